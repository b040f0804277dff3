"""Which models there are: models.yaml, read and checked, and where a model's files are."""
