"""The Model Context Protocol: a server with the tools `draw` and `list_models`."""
