"""Faults on purpose: what is broken, by whom it is written to meanwhile, and what must hold after.

``make chaos`` runs the long form and prints a matrix; the tests run a short form of the same code.

- `writer` is the process that writes, and says on its standard output what was acknowledged;
- `processes` starts such processes and listens to them, `ledger` keeps what they said;
- `audit` compares that with what is stored afterwards, and `matrix` is the table of it all;
- `places` says where the sessions are, `server` is a PostgreSQL server of our own, to be killed.
"""
