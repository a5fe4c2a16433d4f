"""The example of a provider from outside, against a small stand-in for Gemini's API."""

from __future__ import annotations

import base64
import json
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "google.genai",
    reason="google-genai is missing: pip install google-genai, to test the example of a provider",
)

from langswarm_session import (
    ImageBlock,
    InvalidInputError,
    ProviderAuthenticationError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderUnavailableError,
    ReasoningBlock,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.testing import ProviderConformance

EXAMPLE = Path(__file__).parents[2] / "examples" / "google_genai_provider"
sys.path[:0] = [str(EXAMPLE), str(Path(__file__).parent)]

from gemini_server import GeminiServer, GeminiWorld, Refused  # noqa: E402
from google.genai import types  # noqa: E402
from langswarm_google_genai import GoogleProviderSession, wire  # noqa: E402

MODEL = "gemini-3.8-flash"


@pytest.fixture(autouse=True)
def without_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own client: aiohttp, which it prefers where it is there, warns and is not closed."""
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", False)


@pytest.fixture(scope="module")
def server():
    with GeminiServer() as server:
        yield server


@pytest.fixture
def gemini(server: GeminiServer) -> GeminiWorld:
    """What a key of the test's own has at the server."""
    return server.world(f"AIza{uuid.uuid4().hex}")


@pytest.fixture
def make(server: GeminiServer, gemini: GeminiWorld):
    def make(key: str = gemini.key, **options: Any) -> GoogleProviderSession:
        options.setdefault("http_options", {"base_url": server.url})
        return GoogleProviderSession(key, max_retries=0, **options)

    return make


@pytest.fixture
async def session(make):
    async with SessionManager("memory", {"google": make()}) as manager:
        yield await manager.create_session("ann", "google", MODEL)


class TestConformance(ProviderConformance):
    model = MODEL
    unknown_model = "unknown-1"

    @pytest.fixture(autouse=True)
    def _world(self, gemini: GeminiWorld, make: Any) -> None:
        self.gemini, self.make_provider = gemini, make
        self.bad_key = "AIza-not-a-key-0123456789"
        self.secrets = (gemini.key, self.bad_key)

    def remembers(self, reply: SessionMessage, word: str, messages: int) -> bool:
        return word in json.dumps(self.gemini.requests[-1]["contents"])

    def prompt_call(self, provider: Any, name: str, args: Any) -> str:
        return f"call {name} {json.dumps(args)}"

    def limit_rate(self, provider: Any) -> None:
        self.gemini.refusals.append(Refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded."))

    def go_down(self, provider: Any) -> None:
        self.gemini.refusals.append(Refused(503, "UNAVAILABLE", "The model is overloaded."))

    def break_stream(self, provider: Any) -> None:
        self.gemini.cut_at.append(2)

    def make_with_bad_key(self) -> Any:
        return self.make_provider(self.bad_key)


class TestPluggedIn:
    async def test_by_registering_it(self, provider_factory, gemini, server):
        provider_factory.register("google", GoogleProviderSession)
        options = {"api_key": gemini.key, "http_options": {"base_url": server.url}}
        async with SessionManager("memory", {"google": options}) as manager:
            session = await manager.create_session("ann", "google", MODEL)
            assert (await session.send_message("x")).text == "I see 1 contents. The last says: x"

    async def test_by_its_entry_point(
        self, provider_factory, tmp_path, monkeypatch, gemini, server
    ):
        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        info = tmp_path / "langswarm_google_genai-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
                for group, entries in project["entry-points"].items()
            )
        )
        monkeypatch.syspath_prepend(tmp_path)
        assert provider_factory.is_known("google")
        options = {"api_key": gemini.key, "http_options": {"base_url": server.url}}
        async with SessionManager("memory", {"google": options}) as manager:
            session = await manager.create_session("ann", "google", MODEL)
            assert (await session.send_message("x")).provider == "google"


class TestRequests:
    async def test_the_system_speaks_apart(self, session, gemini):
        await session.add_system_message("Be kind.")
        await session.send_message("x", instructions="Be brief.", temperature=0.5)
        (request,) = gemini.requests
        assert request["systemInstruction"]["parts"] == [{"text": "Be kind.\n\nBe brief."}]
        assert request["generationConfig"] == {"temperature": 0.5}
        assert [each["role"] for each in request["contents"]] == ["user"]

    async def test_pictures_are_sent_by_value(self, session, gemini):
        data = base64.b64encode(b"\xff\xfe picture").decode()
        await session.send_message(
            [TextBlock(text="x"), ImageBlock(base64=data, mime_type="image/png")]
        )
        (content,) = gemini.requests[0]["contents"]
        sent = types.Part.model_validate(content["parts"][1]).inline_data
        assert (sent.mime_type, sent.data) == ("image/png", b"\xff\xfe picture")

    async def test_tools_of_googles_own(self, session, gemini):
        def look(at: str) -> str:
            """Look."""
            return at

        await session.send_message("x", tools=[look, {"type": "google_search"}])
        sent = [types.Tool.model_validate(tool) for tool in gemini.requests[0]["tools"]]
        assert [tool for tool in sent if tool.google_search is not None]
        ((declared,),) = [tool.function_declarations for tool in sent if tool.function_declarations]
        assert (declared.name, declared.description) == ("look", "Look.")
        assert declared.parameters_json_schema["required"] == ["at"]

    async def test_an_option_that_there_is_not(self, session):
        with pytest.raises(InvalidInputError, match="warmth"):
            await session.send_message("x", warmth=3)

    async def test_an_unpaired_call_is_repaired_and_reported(self, session):
        await session.record(
            SessionMessage(role="assistant", content=[ToolCallBlock(id="c", name="f")])
        )
        reply = await session.send_message("x")
        kinds = {repair["kind"] for repair in reply.metadata["langswarm"]["repairs"]}
        assert kinds == {"call_answered", "user_added"}


class TestThoughts:
    ASKED = {"thinking_config": {"include_thoughts": True}}

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_their_signature_goes_back_to_the_model(self, session, gemini, streaming):
        tool = {"name": "look", "parameters": {"type": "object", "properties": {}}}
        if streaming:
            events = [
                e async for e in session.stream_message("call look {}", tools=[tool], **self.ASKED)
            ]
            call = events[-1].message
            assert "".join(event.reasoning for event in events) == "Hm, let me see."
        else:
            call = await session.send_message("call look {}", tools=[tool], **self.ASKED)
        thought, block = call.content
        assert isinstance(thought, ReasoningBlock)
        assert thought.reasoning == "Hm, let me see."
        assert call.usage.reasoning_tokens > 0
        result = ToolResultBlock(tool_call_id=block.id, name="look", content="it")
        await session.send_message([result], role="tool", tools=[tool])
        (sent,) = gemini.requests[-1]["contents"][1]["parts"]
        assert base64.urlsafe_b64decode(sent["thoughtSignature"]) == f"sig:{MODEL}:call".encode()

    async def test_but_not_to_another(self, session, gemini):
        first = await session.send_message("x")
        assert first.content[0].extras
        await session.switch_provider("google", "gemini-3.8-pro")
        await session.send_message("y")
        assert "thoughtSignature" not in json.dumps(gemini.requests[-1])

    async def test_a_signature_that_comes_last_belongs_to_the_text(self, session, gemini):
        events = [event async for event in session.stream_message("x")]
        stored = events[-1].message
        assert len(stored.content) == 1
        await session.send_message("y")
        sent = gemini.requests[-1]["contents"][1]["parts"]
        assert base64.urlsafe_b64decode(sent[0]["thoughtSignature"]) == f"sig:{MODEL}:text".encode()

    async def test_calls_side_by_side(self, session, gemini):
        signed = base64.b64encode(f"sig:{MODEL}:1".encode()).decode()
        calls = [
            {"functionCall": {"name": "a", "args": {}, "id": "1"}, "thoughtSignature": signed},
            {"functionCall": {"name": "b", "args": {}, "id": "2"}},
        ]
        gemini.replies.append(calls)
        reply = await session.send_message("x", tools=[{"name": "a"}, {"name": "b"}])
        assert [block.id for block in reply.content] == ["1", "2"]
        await session.send_message(await session.call_tools(reply, []))
        sent = gemini.requests[-1]["contents"][1]["parts"]
        assert ["thoughtSignature" in part for part in sent] == [True, False]


class TestAnswers:
    async def test_usage(self, session):
        usage = (await session.send_message("x", thinking_config={"include_thoughts": True})).usage
        assert usage.input_tokens > usage.cached_tokens
        assert usage.output_tokens > usage.reasoning_tokens > 0

    @pytest.mark.parametrize(
        ("answer", "reason", "kinds"),
        [
            ({"candidates": [{"finish_reason": "MAX_TOKENS", "content": {"parts": [{"text": "x"}]}}]}, "length", [TextBlock]),
            ({"candidates": [{"finish_reason": "SAFETY"}]}, "refusal", [RefusalBlock]),
            ({"prompt_feedback": {"block_reason": "PROHIBITED_CONTENT"}}, "refusal", [RefusalBlock]),
        ],
        ids=["length", "safety", "prompt"],
    )  # fmt: skip
    def test_why_it_ended(self, answer, reason, kinds):
        assert wire.is_finished(answer)
        message = wire.from_answer(answer, wire.parts_of(answer), MODEL)
        assert (message.finish_reason, list(map(type, message.content))) == (reason, kinds)

    async def test_a_picture(self, session, gemini):
        given = base64.b64encode(b"\xff\xfe?").decode()
        gemini.replies.append([{"inlineData": {"mimeType": "image/png", "data": given}}])
        (block,) = (await session.send_message("x")).content
        assert block == ImageBlock(base64=given, mime_type="image/png")
        assert (await session.send_message("y")).text


class TestFailures:
    async def test_no_key(self, make, monkeypatch):
        for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        async with SessionManager("memory", {"google": make(None)}) as manager:
            session = await manager.create_session("ann", "google", MODEL)
            with pytest.raises(ProviderAuthenticationError, match="GOOGLE_API_KEY"):
                await session.send_message("x")

    @pytest.mark.parametrize(
        ("refused", "error"),
        [
            (Refused(400, "INVALID_ARGUMENT", "No."), ProviderRequestError),
            (Refused(403, "PERMISSION_DENIED", "No."), ProviderAuthenticationError),
            (Refused(500, "INTERNAL", "No."), ProviderUnavailableError),
        ],
        ids=["400", "403", "500"],
    )
    async def test_it_refuses(self, session, gemini, refused, error):
        gemini.refusals.append(refused)
        with pytest.raises(error) as caught:
            await session.send_message("x")
        assert type(caught.value) is error

    async def test_nobody_is_there(self, make):
        provider = make(http_options={"base_url": "http://127.0.0.1:9"})
        async with SessionManager("memory", {"google": provider}) as manager:
            session = await manager.create_session("ann", "google", MODEL)
            with pytest.raises(ProviderUnavailableError):
                await session.send_message("x")

    async def test_somebody_else_is_there(self, make, provider_server):
        provider = make(http_options={"base_url": provider_server.url})
        async with SessionManager("memory", {"google": provider}) as manager:
            session = await manager.create_session("ann", "google", MODEL)
            with pytest.raises(ProviderResponseError, match="base_url"):
                await session.send_message("x")

    async def test_it_tries_again(self, gemini, server):
        gemini.refusals.append(Refused(503, "UNAVAILABLE", "Later."))
        options = {"base_url": server.url}
        provider = GoogleProviderSession(gemini.key, max_retries=1, http_options=options)
        async with SessionManager("memory", {"google": provider}) as manager:
            session = await manager.create_session("ann", "google", MODEL)
            assert (await session.send_message("x")).text
        assert len(gemini.requests) == 2
