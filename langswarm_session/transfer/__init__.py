"""Exports and imports of sessions."""
