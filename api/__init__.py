"""What a program talks to: Gradio's own endpoints now, HTTP routes beside them later. Imports no torch."""
