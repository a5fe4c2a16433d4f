"""How requests are built from the record so that each begins with the whole of the one before."""
