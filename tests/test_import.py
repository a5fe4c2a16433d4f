from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import langswarm_session

PACKAGE = Path(langswarm_session.__file__).parent
SPEC = """
ISession ISessionManager ISessionStorage IProviderSession ISessionMiddleware ISessionLifecycleHook
SessionMessage SessionContext SessionMetrics SessionStatus MessageRole SessionBackend BaseSession
SessionManager InMemorySessionStorage SQLiteSessionStorage StorageFactory MockProviderSession
ProviderSessionFactory create_session_manager create_simple_session create_provider_session
session_context get_session_manager set_session_manager get_default_storage set_default_storage
configure_development_sessions configure_production_sessions LoggingMiddleware MetricsHook
LoggingHook SessionError SessionNotFoundError ProviderSessionError SessionStorageError
""".split()
"""The names that LangSwarm's users import; those of OpenAI, Anthropic and Postgres are to come."""

HEAVY = """
asyncio concurrent.futures sqlite3 ssl socket http urllib.request email multiprocessing subprocess
logging.config unittest pytest hypothesis openai anthropic httpx httpx2 langchain langchain_core
langgraph llama_index agents orjson typer rich IPython asyncpg psycopg
""".split()


def modules(code: str) -> set[str]:
    """What is loaded by a program, beyond what Python and pydantic load themselves."""
    program = (
        "import sys; from pydantic import BaseModel, JsonValue\n"
        "class Any(BaseModel):\n    value: JsonValue = None\n"
        "Any(); before = set(sys.modules)\n"
        f"{code}\nprint(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    return set(output(program).split())


def output(program: str) -> str:
    """What a program prints."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ).stdout


def own_modules() -> set[str]:
    """The package's modules, but for the tests it ships and for the command line."""
    names = {
        ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in PACKAGE.rglob("*.py")
    }
    return {name for name in names if not re.search(r"\.(testing|cli|__init__)\b", name)}


def test_importing_loads_nothing_but_itself() -> None:
    loaded = modules("import langswarm_session")
    assert {name for name in loaded if "langswarm" in name} == {"langswarm_session"}
    assert len(loaded) < 10


def test_models_are_built_at_their_first_use_or_before_a_fork() -> None:
    program = """
import os
from langswarm_session import SessionContext, SessionMessage
from langswarm_session.transfer import exporting
models = (SessionContext, SessionMessage, exporting.SessionRow)
print(*(model.__pydantic_complete__ for model in models), flush=True)
if os.fork() == 0:
    print(*(model.__pydantic_complete__ for model in models), flush=True)
    os._exit(0)
os.wait()
"""
    assert output(program).split() == ["False"] * 3 + ["True"] * 3


def test_the_data_needs_nothing_but_pydantic() -> None:
    code = "from langswarm_session import SessionMessage; SessionMessage(role='user', content='x')"
    loaded = modules(code)
    assert "langswarm_session.models" in loaded
    assert not loaded & set(HEAVY)


def test_a_conversation_in_memory_loads_no_database_and_no_framework() -> None:
    loaded = modules(
        "import asyncio\n"
        "from langswarm_session import create_simple_session\n"
        "async def main():\n"
        "    session = await create_simple_session('user')\n"
        "    await session.send_message('hello')\n"
        "asyncio.run(main())\n"
    )
    assert "langswarm_session.manager" in loaded
    assert not loaded & {*HEAVY} - {"asyncio", "concurrent.futures", "ssl", "socket", "subprocess"}


def test_testing_is_loaded_by_nothing() -> None:
    loaded = modules(
        "import importlib\n"
        f"for name in {sorted(own_modules())}:\n"
        "    importlib.import_module(name)\n"
    )
    assert "langswarm_session.session" in loaded
    assert not {name for name in loaded if name.startswith("langswarm_session.testing")}
    assert not loaded & {"pytest", "hypothesis", "pytest_asyncio"}


def test_the_tests_of_a_provider_need_no_hypothesis() -> None:
    loaded = modules("from langswarm_session.testing import ProviderConformance")
    assert "langswarm_session.testing.provider" in loaded
    assert "hypothesis" not in loaded


def test_the_tests_that_it_ships_are_listed() -> None:
    from langswarm_session import testing

    assert all(getattr(testing, name).__name__ == name for name in testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        testing.Nothing


@pytest.mark.parametrize("name", SPEC)
def test_the_names_that_users_know(name: str) -> None:
    assert name in langswarm_session.__all__
    assert getattr(langswarm_session, name).__name__ == name


@pytest.mark.parametrize("name", langswarm_session.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(langswarm_session, name)
    assert value is getattr(langswarm_session, name)
    assert name in dir(langswarm_session)
    if isinstance(value, type):
        assert value.__module__.startswith("langswarm_session.")


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from langswarm_session import *", names)
    assert set(names) - {"__builtins__"} == set(langswarm_session.__all__)


def test_star_import_needs_no_extra() -> None:
    code = """
import sys
class Nothing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        known = ("langswarm_session", "pydantic", "pydantic_core", "annotated_types",
                 "typing_extensions", "typing_inspection")
        if not (top in known or top in sys.stdlib_module_names or top.startswith("_")):
            raise ModuleNotFoundError(name, name=name)
from importlib import machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = lambda name, *more: None if name == "asyncpg" else find(name, *more)
sys.meta_path.insert(0, Nothing)
from langswarm_session import *
import langswarm_session
assert set(langswarm_session._HOME_OF) - set(globals()) == {"PostgresSessionStorage"}
try:
    langswarm_session.PostgresSessionStorage
except langswarm_session.MissingDependencyError as error:
    assert "langswarm-session[postgres]" in str(error)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'langswarm_session' has no attribute 'Nothing'"):
        langswarm_session.Nothing
    with pytest.raises(ImportError):
        exec("from langswarm_session import Nothing")


def test_dir_is_sorted_and_whole() -> None:
    listed = dir(langswarm_session)
    assert listed == sorted(set(listed))
    assert set(langswarm_session.__all__) | {"__version__", "__doc__"} <= set(listed)


def typed() -> dict[str, str]:
    """The names that type checkers see, with the modules they see them in."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    [block] = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "re-exported by this form alone"
            found[alias.name] = node.module or ""
    return found


def test_what_is_typed_is_what_there_is() -> None:
    homes = {name: f"langswarm_session.{home}" for name, home in langswarm_session._HOME_OF.items()}
    assert typed() == homes
    assert sorted(homes) == langswarm_session.__all__


def test_the_version_is_the_first_thing_said_of_it() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab.]\w+)?", langswarm_session.__version__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
