"""Small disks, and other users: what tests can have where the machine permits it."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """The folder of a file system of its own that holds so much; skips where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="langswarm-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"a small disk cannot be mounted here; run as root ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """A file that takes all the space that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return ballast


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users can get to."""
    folder = Path(tempfile.mkdtemp(prefix="langswarm-open-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def unprivileged() -> int | None:
    """A user that permissions apply to, for root to go on as; None for anybody else."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
