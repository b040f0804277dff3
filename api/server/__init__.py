"""The server beneath all routes: where it listens, which connections it takes, and how it ends."""
