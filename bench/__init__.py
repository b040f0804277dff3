"""Benchmarks: one command each, one table each. Nothing here asserts on time; tests/ does not run it."""
