"""Turns: a question, its reply, and everything that happens in between."""
