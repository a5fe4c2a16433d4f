"""Where PostgreSQL looks for what is named without a schema."""

from __future__ import annotations

SAFE_PATH = "pg_catalog, pg_temp"
"""Where names without a schema are looked for, while we use a connection: ours have one.

Whoever may create objects in a schema of the path could otherwise have a function or an operator
of theirs run with our rights, as an overload that fits better than PostgreSQL's own
(https://wiki.postgresql.org/wiki/A_Guide_to_CVE-2018-1058). ``pg_temp`` is named as it comes first
for tables and types where it is not (https://www.postgresql.org/docs/current/sql-createfunction.html,
"Writing SECURITY DEFINER Functions Safely").
"""

SET_PATH = f"SET LOCAL search_path = {SAFE_PATH}"
"""Sets it for a transaction: needed where `is_pooled`, and done no harm elsewhere."""
