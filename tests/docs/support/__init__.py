"""What the tests of the documentation read of it, run of it, and compare it with."""
