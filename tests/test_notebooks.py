"""The notebooks run from beginning to end in a real kernel, and show what their words say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

Shown = dict[str, str]
"""What each cell shows, by the cell's id."""


def shown(cell: nbformat.NotebookNode) -> str:
    parts = []
    for output in cell.outputs:
        assert output.get("name") != "stderr", output["text"]
        parts.append(output["text"] if "text" in output else output["data"]["text/plain"])
    return "".join(parts)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Shown]:
    async def run(name: str) -> Shown:
        notebook = nbformat.read(FOLDER / name, as_version=4)
        await NotebookClient(
            notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).async_execute()
        return {cell.id: shown(cell) for cell in notebook.cells if cell.cell_type == "code"}

    return run


async def test_chain_memory(run):
    shows = await run("01_chain_memory.ipynb")
    first = "The first was: Who was Ada Lovelace?"
    assert shows["chain"] == f"'You asked 1 time(s). {first}'"
    assert shows["memory"] == f"You asked 1 time(s). {first}\nYou asked 2 time(s). {first}\n"
    assert shows["async"] == f"'You asked 3 time(s). {first}'"
    assert shows["stream"] == f"You asked 4 time(s). {first}"
    assert "You asked 1 time(s). The first was: Who was Charles" in shows["other"]
    assert shows["record"].endswith("8 messages in 4 turns\n")
    assert "7  user       For which machine?\n" in shows["record"]
    assert shows["failure"].startswith("the model is down\n7 complete \n9 failed RuntimeError")
    assert shows["restart"] == f"You asked 5 time(s). {first}\n"
    assert shows["sessions"] == "lovelace 11\nbabbage 2\n"

    again = await run("01_chain_memory.ipynb")  # on the same file, as after a restart
    assert again["memory"].startswith(f"You asked 6 time(s). {first}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_every_notebook_is_run_here():
    assert [path.name for path in NOTEBOOKS] == ["01_chain_memory.ipynb"]
