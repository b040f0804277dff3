"""What the tests use in place of what they can't have, and to drive the app."""
