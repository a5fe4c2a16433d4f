"""Starts the servers, each from its environment, with its data in a folder of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "sk-not-a-real-key-0123456789"

CONTEXT = 4096
"""Tokens of context that the model on llama.cpp has."""

START_SECONDS = 180.0


class Servers:
    """Running servers, by name.

    Args:
        home: Where the environments are, one for each server.
        data: Where the servers may write.
    """

    def __init__(self, home: Path, data: Path) -> None:
        self._home, self._data = home, data
        self._running: dict[str, tuple[subprocess.Popen[bytes], str]] = {}

    def url(self, name: str) -> str:
        """The address of a server, started if it does not run yet.

        Args:
            name: One of the servers; what follows a ``+`` tells two of the same kind apart.
        """
        if name not in self._running:
            self._running[name] = self._started(name)
        process, url = self._running[name]
        assert process.poll() is None, f"{name} ended: {self._log(name)}"
        return url

    def stop(self) -> None:
        """Stop them all, those that were started last first."""
        for process, _ in reversed(self._running.values()):
            process.terminate()
        for process, _ in self._running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of a server's environment."""
        path = str(self._home / name / "bin" / command[0])
        return subprocess.run(
            [path, *command[1:]], capture_output=True, text=True, timeout=60, check=False
        )

    def told(self, name: str) -> dict[str, Any]:
        """What the model was sent last that a server asked, or that is the server itself.

        Args:
            name: The server; those that stand before llmock send to llmock.
        """
        source = name if name.startswith("llmock") else "llmock"
        with urllib.request.urlopen(f"{self.url(source)}/_llmock/requests", timeout=30) as answer:
            records = json.load(answer)["requests"]
        bodies = [each["body"] for each in records if each["body"] and each["status"] < 400]
        last: dict[str, Any] = bodies[-1]
        return last

    def _started(self, name: str) -> tuple[subprocess.Popen[bytes], str]:
        kind = name.partition("+")[0]
        folder = self._data / name.replace("+", "-")
        folder.mkdir()
        port = _free_port()
        program, *arguments = COMMANDS[name](self, folder, port)
        path = self._home / kind / "bin" / program
        assert path.exists(), f"{path} is missing: run `make real`, which installs the servers"
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), **ENVIRONMENT.get(kind, {})}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(path), *arguments], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        self._await(name, process, port)
        return process, f"http://127.0.0.1:{port}"

    def _await(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        until = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < until:
            if _answers(port):
                return
            time.sleep(0.2)
        process.kill()
        raise AssertionError(f"{name} did not start: {self._log(name)}")

    def _log(self, name: str) -> str:
        log = (self._data / name.replace("+", "-") / "log").read_text(errors="replace")
        return log[-3000:]


def _answers(port: int) -> bool:
    """Whether a server is ready: llama.cpp says 503 while it loads its model."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code != 503
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


Command = Callable[[Servers, Path, int], list[str]]


def _llmock(*more: str) -> Command:
    """A stand-in for several vendors that keeps what it was told, and judges its clients."""
    return lambda _, __, port: [
        *["llmock", "serve", "-h", "127.0.0.1", "-p", str(port), "--log-level", "warning"],
        *["--latency-ms", "60", *more],
    ]


def _llama(_: Servers, folder: Path, port: int) -> list[str]:
    """llama.cpp with a small model."""
    script = Path(__file__).parent / "llama_server.py"
    return ["python", str(script), str(folder / "model.gguf"), str(port), str(CONTEXT)]


def _agentic(servers: Servers, folder: Path, port: int) -> list[str]:
    """vLLM's gateway for Responses and Conversations, before llama.cpp."""
    return [
        *["agentic-server", "--llm-api-base", servers.url("llama"), "--skip-llm-ready-check"],
        *["--gateway-host", "127.0.0.1", "--gateway-port", str(port)],
        *["--db-url", f"sqlite://{folder}/agentic.db"],
    ]


def _litellm(servers: Servers, folder: Path, port: int) -> list[str]:
    """LiteLLM's proxy, before llmock."""
    params = {"model": "openai/gpt-4o", "api_key": KEY, "api_base": f"{servers.url('llmock')}/v1"}
    config = folder / "config.yaml"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "gpt-4o", "litellm_params": params}],
                "litellm_settings": {"telemetry": False},
                "general_settings": {"master_key": KEY},
            }
        )
    )
    return ["litellm", "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]


def _oma(servers: Servers, folder: Path, port: int) -> list[str]:
    """open-managed-agents, whose wheel brings no tables: they are made before it starts."""
    script = Path(__file__).parent / "oma_tables.py"
    made = subprocess.run(
        [str(servers._home / "oma" / "bin" / "python"), str(script)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return ["uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", str(port)]


def _ogx(servers: Servers, folder: Path, port: int) -> list[str]:
    """OGX: Conversations, Responses, Chat and Messages in SQLite, before llmock."""
    config = folder / "ogx.yaml"
    config.write_text(json.dumps(_ogx_config(f"{servers.url('llmock')}/v1", folder, port)))
    return ["ogx", "run", str(config), "--port", str(port), "--insecure"]


def _ogx_config(model_url: str, folder: Path, port: int) -> dict[str, object]:
    queue = {"max_write_queue_size": 1000, "num_writers": 2}
    table = {"backend": "sql_default"}

    def provider(kind: str, config: dict[str, object]) -> list[dict[str, object]]:
        name = kind.rpartition("::")[2]
        return [{"provider_id": name, "provider_type": kind, "config": config}]

    stored = {"table_name": "responses", **table, **queue}
    batches = {"kvstore": {"namespace": "message_batches", "backend": "kv_default"}}
    files = {
        "storage_dir": str(folder / "files"),
        "metadata_store": {"table_name": "files_metadata", **table},
    }
    return {
        "version": 2,
        "distro_name": "real",
        "apis": [
            *["inference", "responses", "messages", "files"],
            *["tool_runtime", "vector_io", "conversations"],
        ],
        "providers": {
            "messages": provider("inline::builtin", batches),
            "inference": provider("remote::openai", {"api_key": KEY, "base_url": model_url}),
            "responses": provider("inline::builtin", {"persistence": {"responses": stored}}),
            "files": provider("inline::localfs", files),
            "vector_io": [],
            "tool_runtime": [],
        },
        "storage": {
            "backends": {
                "kv_default": {"type": "kv_sqlite", "db_path": str(folder / "kv.db")},
                "sql_default": {"type": "sql_sqlite", "db_path": str(folder / "sql.db")},
            },
            "stores": {
                "metadata": {"namespace": "registry", "backend": "kv_default"},
                "inference": {"table_name": "inference_store", **table, **queue},
                "conversations": {"table_name": "openai_conversations", **table},
                "prompts": {"namespace": "prompts", "backend": "kv_default"},
            },
        },
        "registered_resources": {
            "models": [
                {
                    "model_id": "gpt-4o",
                    "provider_id": "openai",
                    "provider_model_id": "gpt-4o",
                    "model_type": "llm",
                    "metadata": {},
                }
            ]
        },
        "server": {"port": port, "host": "127.0.0.1"},
    }


ENVIRONMENT = {
    "litellm": {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "1"},
    "ogx": {"OPENAI_API_KEY": KEY},
    "oma": {"OMA_RUNTIME_BACKEND": "local", "OMA_API_KEY": KEY},
}

COMMANDS: dict[str, Command] = {
    "llmock": _llmock(),
    "llmock+faults": _llmock(
        *["--error-rate", "429=0.15", "--error-rate", "503=0.15"],
        *["--stream-fault", "truncate=0.15", "--stream-fault", "disconnect=0.15"],
    ),
    "llmock+small": _llmock("--context-window", "600"),
    "llama": _llama,
    "agentic": _agentic,
    "litellm": _litellm,
    "oma": _oma,
    "ogx": _ogx,
}
