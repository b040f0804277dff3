"""How long a drawing will take, learned from those before it."""
