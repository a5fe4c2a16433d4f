"""The command line ``langswarm-session``. Needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

MISSING_EXTRA = 3
"""The exit code where typer or rich is not installed."""

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What was typed after the program's name; None: this process's own arguments.

    Returns:
        The exit code, as ``langswarm-session --help`` explains them.
    """
    try:
        from langswarm_session.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.stderr.write(
            f"error: the command line needs {error.name}, which is not installed; "
            'install it with: pip install "langswarm-session[cli]"\n'
        )
        return MISSING_EXTRA
    except KeyboardInterrupt:
        return INTERRUPTED
    return run(sys.argv[1:] if arguments is None else arguments)
