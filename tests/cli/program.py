"""The command line as a process of its own, with providers to try it on.

At a terminal it makes that its controlling one, so that Ctrl-C and Ctrl-D work.
"""

import atexit
import os
import sys
from pathlib import Path

from langswarm_session import (
    MockFailure,
    MockProviderSession,
    ProviderSessionFactory,
    ToolCallBlock,
)
from langswarm_session.cli import main

ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J [bold]not bold[/bold] :smile: \u202eabc"
"""A reply that would steer a terminal, if it were let."""

SCRIPTS = {
    "flaky": ["fine", MockFailure.RATE_LIMIT, MockFailure.BROKEN_STREAM, "fine again"],
    "escapes": [ESCAPES],
    "calls": [ToolCallBlock(id="call_1", name="look_up", args={"city": "Uppsala"})],
}


def register() -> None:
    for name, replies in SCRIPTS.items():
        ProviderSessionFactory.register(
            name, lambda replies=replies, **_: MockProviderSession(list(replies))
        )
    ProviderSessionFactory.register("slow", lambda **_: MockProviderSession(piece_delay=0.2))


def note_memory() -> None:
    """Write down how much memory this process took at most, in kB; see proc(5)."""
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    Path(os.environ["TEST_MEMORY"]).write_text(peak.split()[1])


if __name__ == "__main__":
    if os.isatty(0):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    register()
    if "TEST_MEMORY" in os.environ:
        atexit.register(note_memory)
    sys.exit(main())
