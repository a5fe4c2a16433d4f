"""Where sessions live: in memory, in a SQLite file, or wherever a plug-in puts them."""
