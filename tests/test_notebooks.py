"""The notebooks run from beginning to end in a real kernel, and show what their words say.

A notebook has a test of its own here, which runs it and looks at what its cells show.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


class Shown(NamedTuple):
    """What the cells of a notebook show, each by the cell's id."""

    text: dict[str, str]
    html: dict[str, str]
    figures: dict[str, bytes]


Run = Callable[[str], Awaitable[Shown]]


def shown(notebook: nbformat.NotebookNode) -> Shown:
    shows = Shown({}, {}, {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shows.text[cell.id] = ""
            for output in cell.outputs:
                assert output.get("name") != "stderr", output["text"]
                data = output.get("data", {})
                shows.text[cell.id] += output["text"] if "text" in output else data["text/plain"]
                if "text/html" in data:
                    shows.html[cell.id] = data["text/html"]
                if "image/png" in data:
                    shows.figures[cell.id] = base64.b64decode(data["image/png"])
    return shows


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where a kernel and matplotlib keep what is their own.

    Matplotlib's list of fonts is made here: when that takes long, it says so on stderr.
    """
    names = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    homes = {name: str(tmp_path_factory.mktemp(name.lower())) for name in names}
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.font_manager"],
        check=True,
        capture_output=True,
        timeout=100,
        env={**os.environ, **homes},
    )
    return homes


@pytest.fixture
def run(tmp_path: Path, homes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a notebook in an empty folder; a second run finds what the first one left there."""
    for name, value in homes.items():
        monkeypatch.setenv(name, value)

    async def run(name: str) -> Shown:
        notebook = nbformat.read(FOLDER / name, as_version=4)
        await NotebookClient(
            notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).async_execute()
        return shown(notebook)

    return run


@pytest.fixture
def keys(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of somebody with keys, whose vendors are the stand-in server."""
    monkeypatch.setenv("OPENAI_API_KEY", world.key)
    monkeypatch.setenv("OPENAI_BASE_URL", world.openai_url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", world.key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", world.anthropic_url)


def rows(table: str) -> dict[str, list[float]]:
    """The rows of a table, as pandas prints it, that begin with a name and have numbers behind."""
    row = re.compile(r"^(\S.*?)((?: +-?\d+(?:\.\d+)?)+)$", re.MULTILINE)
    return {found[1]: [float(each) for each in found[2].split()] for found in row.finditer(table)}


def drawn(figure: bytes) -> float:
    """How much of a figure is in colour: the part of it, from 0 to 1. Axes and words are not."""
    from matplotlib.image import imread

    colours = imread(BytesIO(figure))[..., :3]
    return float((colours.max(axis=2) - colours.min(axis=2) > 0.3).mean())


async def test_quickstart(run: Run):
    text, html, _ = await run("00_quickstart.ipynb")
    assert "Where shall we go? (That is the first thing I hear from you.)" in text["first"]
    assert "I remember 2 messages." in html["second"]
    assert "27 + 19 tokens" in html["second"]
    assert "of ada · active · mock/recall · 5 messages" in html["record"]
    assert "Be brief." in html["record"]
    assert text["messages"].endswith("5 messages, 71 tokens\n")
    assert text["stream"].startswith("You said: How shall we get there? ")
    assert text["stream"].endswith("\nstored as message 7\n")
    assert text["tools"] == "'It is 12 degrees in Uppsala.'"
    assert "calls weather</summary>" in html["tools-record"]
    assert "12 degrees in Uppsala, for ada" in html["tools-record"]
    assert text["retry"] == "True 4 requests so far\n"
    assert "the mock gave no answer in time\nworth another try: True\n" in text["failure"]
    assert "\nYou said: Book a room. (Before that: Book the train." in text["failure"]
    assert "I remember 6 messages." in text["failure"]
    read, failed = text["broken"].split("\n", 1)
    assert failed.endswith("the mock's stream broke off\n")
    assert text["search"].startswith("turn 16: failed, ProviderStreamError: ")
    assert text["search"].count("turn ") == 1
    assert "#17 · " in html["search"]
    assert read.strip() in html["search"]
    assert "You said: Do you remember me? (Before that: Tell them all" in text["restart"]
    assert text["users"].startswith("Ben does not find Ada's session.\n")
    assert (html["users"].count(">ben<"), html["users"].count(">ada<")) == (1, 0)
    assert text["fork"].endswith("I remember 2 messages.)\n19 messages there, 5 here\n")
    assert (html["manager"].count(">ben<"), html["manager"].count(">ada<")) == (1, 2)

    again = await run("00_quickstart.ipynb")
    assert again.text["messages"] == text["messages"]
    assert (again.html["manager"].count(">ben<"), again.html["manager"].count(">ada<")) == (2, 4)


async def test_chain_memory(run: Run):
    shows = (await run("01_chain_memory.ipynb")).text
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
    assert again.text["memory"].startswith(f"You asked 6 time(s). {first}")


@pytest.mark.usefixtures("keys")
async def test_providers(run: Run, world):
    text, html, figures = await run("05_providers.ipynb")
    assert text["first"].startswith("I see 1 messages. The last says: I have a week in October.")
    assert re.findall(r"POST +(\S+)", text["first"]) == ["conversations", "responses"]
    assert text["second"].startswith("I see 3 messages. ")
    assert re.findall(r"POST +(\S+)", text["second"]) == ["responses"]
    there, here = map(int, re.findall(r"(\d+) KiB", text["travels"]))
    assert here > 5 * there
    assert [*figures] == ["travels-plot"]
    assert drawn(figures["travels-plot"]) > 0.001
    assert len({*re.findall(r"(\d+) input tokens", text["tokens"])}) == 1  # the same for both

    assert text["switch"].startswith("anthropic | claude-sonnet-5 | I see 5 messages. ")
    assert text["back"].startswith("openai | gpt-5.4-mini | I see 7 messages. ")
    whole, new = map(int, re.findall(r"(\d+) bytes", text["thread"]))
    assert whole > 10_000 > 500 > new
    assert "anthropic answers in place of openai" in text["fallback"]
    assert "anthropic | claude-sonnet-5 | I see 9 messages. " in text["fallback"]
    assert text["fallback"].endswith("\nProviderUnavailableError\n")
    assert text["fallback-after"].startswith("openai | gpt-5.4-mini | I see 11 messages. ")

    assert text["reconcile"] == "equal: True\nonly there: ['I do not fly.']\nonly here: []\n"
    assert text["pull"].startswith("equal: True\nI see 14 messages. ")
    assert "I do not fly." in html["record"]
    assert html["record"].count("· claude-sonnet-5 ·") == 2
    assert html["record"].count("· gpt-5.4-mini ·") == 5
    assert "calls weather</summary>" in html["orphan"]
    assert text["repaired"].endswith("repaired: call_answered - the call 'call_1'\n")

    tokens = [int(each) for each in re.findall(r"took (\d+) input", text["budget"])]
    # A request that would be too long begins again with about half of the budget.
    assert max(tokens) <= 1500
    again = [after for before, after in pairwise(tokens) if after < before]
    assert again
    assert max(again) <= 750
    assert "8 of 14 messages are summarised: I see 1 messages. " in text["summary"]
    assert text["end"] == "3 conversations deleted at OpenAI, 0 sessions left here\n"
    assert not world.state()["conversations"]


async def test_usage_and_cost(run: Run):
    text, html, figures = await run("06_usage_and_cost.ipynb")
    in_all, of_ada = map(float, re.findall(r"([\d.]+) €", text["work"]))
    assert text["work"].startswith("60 conversations: ")
    assert 0 < of_ada < in_all
    assert text["table"].count("\n") == 8
    assert re.search(r"emil +local .* NaN", text["table"])
    assert float(re.search(r"([\d.]+) € in all", text["replies"])[1]) == in_all
    assert html["dearest"].count("<td>") == 2 * 5

    by_user = rows(text["by-user"])
    share = {user: cached / sent for user, (sent, cached, *_) in by_user.items()}
    assert share["emil"] < share["dora"] < share["ben"] < share["ada"] < share["chen"]

    grown = rows(text["growth"])
    whole, budget, summary = (
        grown[name]
        for name in ("the whole conversation", "at most 4,000 tokens", "a summary now and then")
    )
    sent, cost = 0, 2
    assert whole[sent] > budget[sent] > summary[sent]
    assert whole[cost] > budget[cost]
    assert whole[cost] > summary[cost]
    writing = float(re.search(r"about ([\d.]+) €", text["summaries"])[1])
    assert summary[cost] + writing < whole[cost]

    assert [*figures] == ["by-user-plot", "cost-plot", "cached-plot", "growth-plot"]
    assert min(map(drawn, figures.values())) > 0.001


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!http)(.+?)\)", cell.source):
                assert (FOLDER / target).exists(), target


def test_every_notebook_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if f'await run("{path.name}")' not in source] == []


def needs(extra: str, *modules: str) -> None:
    """Skips the test of a notebook whose frameworks are not all here."""
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            pytest.skip(f'{module} is missing: pip install "langswarm-session[{extra}]"')


async def test_agents(run: Run):
    needs("langchain-agents", "langchain")
    text, html, _ = await run("02_agents.ipynb")
    said = "My tools said: 12 degrees in Narvik"
    assert text["agent"] == f"'You asked 1 time(s). {said}'"
    assert text["second"] == f"You asked 2 time(s). {said}\n6 messages, of which 2 are new\n"
    assert "of ada · active · langchain/none · 6 messages" in html["record"]
    assert html["record"].count("calls weather</summary>") == 1
    said += "; 12 degrees in Uppsala"
    assert text["stream"] == f"You asked 3 time(s). {said}"
    # The model may have been a word or two ahead of the reader.
    assert re.match(
        r"You asked 4 time\(s\)\. My\ncancelled, kept: You asked 4 time\(s\)\. My", text["break"]
    )
    assert text["crash"].startswith("exit code 1\n")
    assert "Please book the train to Narvik." in html["crash"]
    assert "calls book</summary>" in html["crash"]
    said += "; No result: the call was broken off before it gave one."
    answer, died, went_on = text["going-on"].splitlines()
    assert answer == f"You asked 6 time(s). {said}"
    assert died == "failed the process that ran the turn ended before the turn did"
    assert went_on.strip() == "complete"
    assert text["careful"] == "shall I? book {'city': 'Oslo'}\n"
    said += "; the train to Oslo is booked"
    assert text["approve"] == f"You asked 7 time(s). {said}\ncancelled interrupted\ncomplete \n"
    assert text["thread"] == "20 messages in the thread, 20 in the record\n"
    assert text["restart"] == f"You asked 8 time(s). {said}\n22 messages\n"

    again = await run("02_agents.ipynb")  # on the same file
    assert again.text["agent"].startswith(f"'You asked 9 time(s). {said}")
    assert again.text["second"].endswith("\n28 messages, of which 2 are new\n")
    assert again.text["thread"] == "42 messages in the thread, 42 in the record\n"


async def test_llama_index(run: Run):
    needs("llama-index", "llama_index")
    text, html, _ = await run("03_llama_index.ipynb")
    told = "You told me {} thing(s), first: I go to Narvik."
    assert text["engine"] == f"{told.format(1)}\n{told.format(2)}\n"
    assert text["stream"] == told.format(3)
    assert "of ada · active · llama_index/none · 6 messages" in html["record"]
    deleted, roles = text["edit"].splitlines()
    assert deleted == f"deleted: {told.format(3)}"
    assert roles == str(["user", "assistant"] * 3)
    told = "You told me {} thing(s), first: How is the weather in Narvik?"
    told += " A tool says: 12 degrees in Narvik."
    assert text["agent"] == f"{told.format(1)}\n{told.format(2)}\n"
    assert html["agent-record"].count("calls weather</summary>") == 1
    counts = re.search(r"(\d+) messages active, (\d+) archived, (\d+) in the rec", text["archive"])
    active, archived, recorded = map(int, counts.groups())
    assert active + archived == recorded == 20
    assert active < archived
    first = f"is now: Page {archived // 2 + 1}: the night train leaves at ten.\n"
    assert text["archive"].endswith(first)
    assert text["restart"] == f"{told.format(3)}\n"
    assert text["users"].startswith("[] []\nsession 'chat': there is no such session")
    assert '"user_id": "ada"' in text["serial"]
    assert text["serial"].endswith("\n6 messages\n")

    again = await run("03_llama_index.ipynb")  # on the same file
    assert again.text["restart"].startswith(told.format(6))


async def test_across_frameworks(run: Run):
    needs("langchain-agents", "langchain")
    needs("llama-index", "llama_index")
    needs("openai-agents", "agents", "agents.testing")
    text, html, _ = await run("04_across_frameworks.ipynb")
    assert text["langchain"] == "'It is 12 degrees in Narvik.'"
    given = text["llama-given"].splitlines()
    assert [line.split()[0] for line in given] == ["user", "assistant", "tool", "assistant", "user"]
    assert "tool_name='weather' tool_kwargs={'city': 'Narvik'}" in given[1]
    assert "text='12 degrees in Narvik'" in given[2]
    assert text["llama"] == "It is as warm in Uppsala.\n"

    kind = r"^\{(?:'type': '(?!message)(\w+)'.*|.*'role': '(\w+)'.*)\}$"
    items = re.findall(kind, text["agents-given"], re.MULTILINE)
    assert ["".join(item) for item in items] == [
        *("user", "function_call", "function_call_output", "assistant") * 2,
        "user",
    ]
    called = re.findall(r"'function_call', 'call_id': '(\w+)'", text["agents-given"])
    answered = re.findall(r"'call_id': '(\w+)', 'output': '12 degrees", text["agents-given"])
    assert called == answered == ["call_1", "call_2"]
    assert text["agents"] == "'12 degrees in Oslo as well.'"

    plain = text["plain-given"].splitlines()
    assert [line.split()[0] for line in plain] == ["user", "assistant", "tool", "assistant"] * 3 + [
        "user"
    ]
    assert "name='weather' args={'city': 'Oslo'}" in plain[9]
    assert plain[10].endswith(" 12 degrees in Oslo")
    assert text["plain"] == "'I would take the train to Narvik.'"

    back = text["back"].splitlines()
    assert len(back) == 15
    assert [line[6:].strip() for line in back if line.startswith("ai ")] == [
        "[{'city': 'Narvik'}]", "It is 12 degrees in Narvik.",
        "[{'city': 'Uppsala'}]", "It is as warm in Uppsala.",
        "[{'city': 'Oslo'}]", "12 degrees in Oslo as well.",
        "I would take the train to Narvik.",
    ]  # fmt: skip
    assert "of ada · active · mock/any · 16 messages" in html["record"]
    assert html["record"].count("calls weather</summary>") == 3
    assert text["own"] == "LangChain: True\nLlamaIndex: True\nOpenAI Agents SDK: True\n"

    lost = {
        int(seq): cells
        for seq, *cells in re.findall(
            r"<th>(\d+)</th>\s*<td>(.*?)</td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>", html["fidelity"]
        )
    }
    langchain, llama_index, openai_agents = range(3)
    assert lost[6] == ["", "", "content[0]"]  # the thought
    assert "content[0].annotations" in lost[12][llama_index]
    assert (lost[2][langchain], lost[2][llama_index], lost[2][openai_agents]) == (
        "",
        "usage",
        "usage",
    )
    assert {lost[seq][openai_agents] for seq in (10, 12)} == {""}  # its own
