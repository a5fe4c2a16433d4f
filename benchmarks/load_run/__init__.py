"""Many sessions, many at work at once, for minutes.  ``python -m benchmarks.load_run --help``."""
