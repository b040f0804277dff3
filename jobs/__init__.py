"""Durable jobs: written down before they are promised, drawn in a fair order, never drawn twice. Imports
pipeline/ only."""
