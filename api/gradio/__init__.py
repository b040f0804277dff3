"""Gradio's own API: the endpoints, and what keeps Gradio's routes and queue within bounds."""
