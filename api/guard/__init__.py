"""What stands in front of every route: who may call it, from where, how often, and with how large a body."""
