"""Requests to providers: what they begin with, and how they stay append-only."""
