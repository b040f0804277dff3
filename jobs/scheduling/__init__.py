"""Who is next: fair shares, the dispatch to executors, what goes by the clock, and rate limits."""
