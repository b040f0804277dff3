"""What the benchmarks share: no command here measures by itself."""
