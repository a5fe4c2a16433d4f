"""The files that TLS with PostgreSQL takes, and which of them cannot be read.

To the driver a file that is not there is as a server that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

_WITHOUT_ROOT = ("allow", "prefer")
"""The modes, of those with TLS, to which it is the same who signed the server's certificate."""


def unreadable_file(dsn: str | None) -> str | None:
    """What is wrong with a file that the driver takes; None if it can read all of them.

    Args:
        dsn: The address; what it leaves out comes from the environment.
    """
    options = dict(parse_qsl(urlsplit(dsn or "").query))
    for name in ("sslmode", "sslrootcert", "sslcrl", "sslcert", "sslkey"):
        options.setdefault(name, os.environ.get(f"PG{name.upper()}", ""))
    for name, path in _files(options):
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            return f"{name} is {path!r}, which cannot be read ({error.strerror})"
    return None


def _files(options: dict[str, str]) -> Iterator[tuple[str, str]]:
    mode, root = options["sslmode"] or "prefer", options["sslrootcert"]
    if mode == "disable":
        return
    if mode not in _WITHOUT_ROOT:
        if root or mode.startswith("verify"):
            yield "sslrootcert", root or _default_root()
        if options["sslcrl"]:
            yield "sslcrl", options["sslcrl"]
    if options["sslcert"]:
        yield "sslcert", options["sslcert"]
        if options["sslkey"]:
            yield "sslkey", options["sslkey"]


def _default_root() -> str:
    try:
        home = Path.home()
    except RuntimeError:  # nobody knows of one
        home = Path("~")
    return str(home / ".postgresql" / "root.crt")
