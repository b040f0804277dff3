"""Processes that draw, and this process' side of them."""
