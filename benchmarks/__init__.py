"""Side by side with the peers: same work, same disk, one run.  ``python -m benchmarks --help``."""
