"""The command line: `stepwise draw`, `models` and `serve`.

A client like the others: it draws with this machine's engine or with another Stepwise over its API, and knows
nothing of torch. Whatever is slow to import is imported by the command that needs it.
"""
