"""The real models' true shapes with random weights, driven through the app's own engine: see __main__.py."""
