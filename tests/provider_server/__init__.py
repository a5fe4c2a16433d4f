"""A stand-in for the vendors' servers, on the loopback, for the tests."""
