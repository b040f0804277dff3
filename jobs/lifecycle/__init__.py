"""A job from its start to its end: its states, its attempts, its readers, and what a killed server leaves."""
