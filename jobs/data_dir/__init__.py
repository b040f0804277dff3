"""The folder that jobs are kept in: where it is, what is in it, and who may look into it."""
