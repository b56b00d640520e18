"""The benchmarks that measured the figures in README.md: ``python -m benchmarks.NAME``."""
