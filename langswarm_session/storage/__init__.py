"""Where sessions live: in memory, in a SQLite file, or wherever a plug-in puts them.

A storage of anybody's may build on what ours have in common:

- `rules`: the decisions, as functions of a session's record: who may write, what a key or a
  message id that is known already means, what a cursor is. They raise the errors that callers know.
- `edits`: whether an edit fits the log.
- `rows`: a message as a few columns and one JSON text, and back.

They keep their names and meaning from version to version. How to write one is in
``docs/storage.md``, and ``examples/redis_storage`` is one from outside.
"""
