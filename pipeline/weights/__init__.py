"""A model's weights: fetched, checked, read, and kept where they are needed."""
