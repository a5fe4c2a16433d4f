"""The built-in middleware."""
