"""The built-in lifecycle hooks."""
