from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from langswarm_session.storage import owner
from langswarm_session.storage.rules import CANCEL_MARK

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="a dead process is told by /proc alone"
)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A process that says who it is, then waits to be let go."""
    program = "from langswarm_session.storage import owner; print(owner.this_process(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def parts(of: str) -> tuple[str, int, str]:
    machine, _, process = of.partition(":")
    pid, _, started = process.partition(":")
    return machine, int(pid), started


def test_a_process_is_named_by_machine_pid_and_start() -> None:
    machine, pid, started = parts(owner.this_process())
    assert machine
    assert pid == os.getpid()
    assert int(started) > 0
    assert owner.this_process() == owner.this_process()


def test_this_process_is_alive() -> None:
    assert not owner.is_dead(owner.this_process())


def test_another_process_is_alive_until_it_ends(process: subprocess.Popen[str]) -> None:
    other = said(process)
    assert parts(other)[0] == parts(owner.this_process())[0]
    assert parts(other)[1] == process.pid
    assert not owner.is_dead(other)
    process.communicate("go\n")
    assert owner.is_dead(other)


def test_a_process_is_dead_before_anybody_collects_it(process: subprocess.Popen[str]) -> None:
    other = said(process)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}/stat").exists()
    assert owner.is_dead(other)


def test_a_later_process_with_the_pid_is_another() -> None:
    machine, pid, started = parts(owner.this_process())
    assert owner.is_dead(f"{machine}:{pid}:{int(started) - 1}")


def test_a_forked_child_is_another() -> None:
    mine = owner.this_process()
    program = (
        "import os\n"
        "from langswarm_session.storage import owner\n"
        "print(owner.this_process(), flush=True)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print(owner.this_process(), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    parent, child = done.stdout.split()
    assert len({mine, parent, child}) == 3
    assert owner.is_dead(parent)
    assert owner.is_dead(child)


@pytest.mark.parametrize(
    "unknown",
    [
        None,
        "",
        ":",
        "::",
        "elsewhere:1:1",
        ":1:1",
        "elsewhere",
        "a:b:c",
        "\0",
    ],
)
def test_of_others_nothing_is_known(unknown: str | None) -> None:
    assert not owner.is_dead(unknown)


def test_what_is_no_pid_is_not_dead() -> None:
    machine = parts(owner.this_process())[0]
    for pid in ("", "x", "-1", "1.5", "\u00b2"):
        assert not owner.is_dead(f"{machine}:{pid}:1")


class TestHidden:
    """What is left of another user's processes where /proc hides them (``hidepid=2``)."""

    @pytest.fixture(autouse=True)
    def hide(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read, mine = Path.read_text, owner.this_process()
        assert mine

        def hidden(path: Path, *args: str) -> str:
            if path.parent.name.isdigit():
                raise FileNotFoundError(str(path))
            return read(path, *args)

        monkeypatch.setattr(Path, "read_text", hidden)

    def test_one_that_may_not_be_signalled_is_not_dead(
        self, process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def kill(pid: int, number: int) -> None:
            raise PermissionError

        other = said(process)
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", kill)
            assert not owner.is_dead(other)

    def test_one_that_exists_is_not_dead(self, process: subprocess.Popen[str]) -> None:
        assert not owner.is_dead(said(process))

    def test_one_that_does_not_exist_is(self, process: subprocess.Popen[str]) -> None:
        other = said(process)
        process.communicate("go\n")
        assert owner.is_dead(other)


def test_an_owner_that_was_asked_to_end_its_turn_is_the_same(
    process: subprocess.Popen[str],
) -> None:
    other = said(process)
    assert not owner.is_dead(CANCEL_MARK + other)
    process.communicate("go\n")
    assert owner.is_dead(CANCEL_MARK + other)


@pytest.mark.parametrize("pid", ["0", "2147483648", "9" * 30])
def test_a_number_that_no_process_can_have_says_nothing(pid: str) -> None:
    machine = parts(owner.this_process())[0]
    assert not owner.is_dead(f"{machine}:{pid}:1")


def test_an_owner_that_could_not_tell_its_start_is_known_by_its_pid() -> None:
    machine = parts(owner.this_process())[0]
    assert not owner.is_dead(f"{machine}:{os.getpid()}:")


def test_a_command_with_brackets_is_no_obstacle(tmp_path: Path) -> None:
    # The name of a process is in the middle of its stat line, between brackets, as it is.
    strange = tmp_path / "a) S 1 (b"
    strange.symlink_to(sys.executable)
    program = "from langswarm_session.storage import owner; print(owner.this_process())"
    done = subprocess.run(
        [strange, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONHOME": sys.base_prefix,
        },
    )
    assert int(parts(done.stdout.strip())[2]) > 0
