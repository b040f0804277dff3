"""What a program talks to: Gradio's own endpoints and, beside them, OpenAI's. Imports no torch."""
