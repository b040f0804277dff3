"""Pictures and weights that requests bring along: whose they are and when they go, and how they lie on the
disk.
"""
