"""The bridge between synchronous callers and the event loop."""
