from __future__ import annotations

import http.server
import logging
import threading
import traceback

import openai
import pytest
from openai.resources.responses import AsyncResponses

from langswarm_session import (
    ImageBlock,
    InMemorySessionStorage,
    InvalidInputError,
    MessageRole,
    OpenAIProviderSession,
    ProviderAuthenticationError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderStreamError,
    ProviderUnavailableError,
    ReasoningBlock,
    SessionBackend,
    SessionError,
    SessionManager,
    SessionMessage,
    ToolCallBlock,
    ToolResultBlock,
    UnknownModelError,
)
from langswarm_session.providers import sdk

ASK = "POST /v1/responses"
MODES = ("conversations", "responses", "chat")
WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}

modes = pytest.mark.parametrize("mode", MODES)
both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries that do not wait."""
    monkeypatch.setattr(sdk, "FIRST_DELAY", 0.001)


@pytest.fixture
async def connect(world):
    """Makes sessions with a provider of its own each."""
    managers = []

    async def connect(key=world.key, *, model="gpt-5.4", backend=None, **options):
        if "client" not in options:
            options.setdefault("base_url", world.openai_url)
        provider = OpenAIProviderSession(key, **options)
        manager = SessionManager(InMemorySessionStorage(), providers={"openai": provider})
        managers.append(manager)
        backend = backend or SessionBackend.PROVIDER_NATIVE
        return await manager.create_session("u", "openai", model, backend)

    yield connect
    for manager in managers:
        await manager.close()


@pytest.fixture
async def stateless(connect):
    return await connect(mode="responses")


@pytest.fixture
def web_page():
    """The address of a server that answers all with a web page."""

    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", "21")
            self.end_headers()
            self.wfile.write(b"<html>Welcome!</html>")

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def text_of(item):
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def shown_by(session, text, **options):
    shown = ""
    async for event in session.stream_message(text, **options):
        shown += event.text
        if event.message is not None:
            assert shown == event.message.text
            return event.message
    raise AssertionError("a stream ends with its message")


def asking(streaming):
    return shown_by if streaming else lambda session, *a, **k: session.send_message(*a, **k)


class TestModes:
    async def test_by_address(self, world):
        assert OpenAIProviderSession("k", base_url=world.openai_url)._mode is None

    async def test_conversations_are_for_openais_own_address(self, world, monkeypatch):
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        for address, mode in (
            (None, "conversations"),
            ("https://api.openai.com/v1", "conversations"),
            ("https://api.openai.com.example.org/v1", "chat"),
            (world.openai_url, "chat"),
        ):
            options = {} if address is None else {"base_url": address}
            provider = OpenAIProviderSession("k", **options)
            assert provider.mode == mode
            await provider.close()

    def test_an_unknown_one(self):
        with pytest.raises(InvalidInputError, match="conversations, responses, chat, not 'x'"):
            OpenAIProviderSession("k", mode="x")

    async def test_a_session_with_a_local_backend_leaves_nothing_there(self, world, connect):
        session = await connect(mode="conversations", backend=SessionBackend.LOCAL_MEMORY)
        await session.send_message("one")
        await session.send_message("two")
        assert world.state()["conversations"] == {}
        assert world.state()["responses"] == {}

    async def test_a_client_of_the_callers_own(self, world):
        client = openai.AsyncOpenAI(api_key=world.key, base_url=world.openai_url)
        provider = OpenAIProviderSession(client=client, mode="responses")
        async with SessionManager(InMemorySessionStorage(), providers={"openai": provider}) as m:
            session = await m.create_session("u", "openai", "gpt-5.4")
            assert (await session.send_message("one")).text.startswith("I see 1")
        assert not client.is_closed()
        await client.close()

    async def test_counting(self, world, connect):
        if not hasattr(AsyncResponses, "input_tokens"):
            pytest.skip("this version of the openai package counts no tokens")
        session = await connect(mode="responses")
        await session.record(
            [
                SessionMessage(role=MessageRole.USER, content="x" * 400),
                SessionMessage(role=MessageRole.ASSISTANT, content="y" * 400),
            ]
        )
        await session.update_context(max_input_tokens=50, token_counter="provider")
        body = {"object": "response.input_tokens", "input_tokens": 205}
        counting = "POST /v1/responses/input_tokens"
        world.fail(counting, "status", times=-1, status=200, body=body)
        reply = await session.send_message("one")
        assert reply.text == "I see 1 messages. The last says: one"

    async def test_counting_with_an_sdk_that_cannot(self, connect, monkeypatch, caplog):
        monkeypatch.delattr(AsyncResponses, "input_tokens", raising=False)
        session = await connect(mode="responses")
        await session.update_context(max_input_tokens=50, token_counter="provider")
        await session.send_message("one")
        assert "tokens are estimated" in caplog.text
        assert "update it, or use" in caplog.text

    async def test_only_conversations_are_kept(self, connect):
        session = await connect(mode="chat")
        await session.send_message("one")
        with pytest.raises(InvalidInputError, match="no copy of this conversation"):
            await session.reconcile()


class TestStateless:
    @both_ways
    async def test_the_window_travels(self, world, stateless, streaming):
        ask = asking(streaming)
        await stateless.add_system_message("Be brief.")
        await ask(stateless, "one")
        reply = await ask(stateless, "two", instructions="In French.")
        assert reply.text == "I see 3 messages. The last says: two"
        body = world.requests(ASK)[-1]["body"]
        assert body["instructions"] == "Be brief.\n\nIn French."
        assert body["store"] is False
        assert [text_of(item) for item in body["input"]] == [
            "one",
            "I see 1 messages. The last says: one",
            "two",
        ]
        assert world.state()["responses"] == {}

    async def test_usage(self, stateless):
        await stateless.send_message("one")
        usage = (await stateless.send_message("two")).usage
        assert usage.input_tokens > usage.cached_tokens > 0

    @both_ways
    async def test_calls_reasoning_and_results(self, world, stateless, streaming):
        ask = asking(streaming)
        world.set(reasoning=True)
        options = {"tools": [WEATHER], "reasoning": {"effort": "low", "summary": "auto"}}
        world.reply({"tool_calls": [{"name": "weather", "arguments": {"city": c}} for c in "ab"]})
        reply = await ask(stateless, "both?", **options)
        thought, *calls = reply.blocks
        assert isinstance(thought, ReasoningBlock)
        assert thought.reasoning == "Thinking about: both?"
        results = [ToolResultBlock(tool_call_id=c.id, content="snow") for c in calls]
        reply = await ask(stateless, results, role="tool", **options)
        assert reply.text == "I see 1 messages. The last says: snow"
        kinds = [item["type"] for item in world.requests(ASK)[-1]["body"]["input"]]
        assert kinds == ["message", "reasoning", *["function_call"] * 2,
                         *["function_call_output"] * 2]  # fmt: skip
        await stateless.switch_provider("openai", "o9-mini")
        reply = await ask(stateless, "and?", **options)
        assert {r["kind"] for r in reply.metadata["langswarm"]["repairs"]} == {"reasoning_dropped"}
        assert world.state()["refused"] == []

    async def test_reasoning_is_shown(self, world, stateless):
        world.set(reasoning=True)
        events = [e async for e in stateless.stream_message("one", reasoning={"effort": "low"})]
        assert "".join(event.reasoning for event in events) == "Thinking about: one"

    @both_ways
    async def test_custom_and_hosted_tools(self, world, stateless, streaming):
        ask = asking(streaming)
        action = {"type": "search", "query": "snow"}
        custom = {"type": "custom_tool_call", "call_id": "call_1", "name": "sql", "input": "x"}
        search = {"type": "web_search_call", "status": "completed", "action": action}
        world.reply({"items": [search, custom]})
        reply = await ask(stateless, "Go.")
        assert isinstance(reply.blocks[1], ToolCallBlock)
        result = ToolResultBlock(tool_call_id="call_1", content="1")
        await ask(stateless, [result], role="tool")
        kinds = [item["type"] for item in world.requests(ASK)[-1]["body"]["input"]]
        assert kinds == [
            "message",
            "web_search_call",
            "custom_tool_call",
            "custom_tool_call_output",
        ]

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("rate_limit", {"retry_after": 0}),
            ("server_error", {}),
            ("overloaded", {}),
            ("cut_before", {}),
            ("cut_after", {}),
            ("status_after", {"status": 500}),
        ],
    )
    @both_ways
    async def test_what_may_pass_is_tried_again(self, world, stateless, kind, options, streaming):
        world.fail(ASK, kind, times=2, **options)
        reply = await asking(streaming)(stateless, "one")
        assert reply.text == "I see 1 messages. The last says: one"

    @pytest.mark.parametrize("kind", ["cut_stream", "stream_error"])
    @pytest.mark.parametrize("at", [0, 1, 3])
    async def test_streams_that_break_off_before_their_first_piece(
        self, world, stateless, kind, at
    ):
        world.fail(ASK, kind, at=at)
        reply = await shown_by(stateless, "one")
        assert reply.text == "I see 1 messages. The last says: one"
        assert len(world.requests(ASK)) == 2

    @pytest.mark.parametrize("kind", ["cut_stream", "stream_error"])
    @pytest.mark.parametrize("at", [5, 9, 15])
    async def test_streams_that_break_off(self, world, stateless, kind, at):
        world.fail(ASK, kind, at=at)
        ending = ProviderStreamError if kind == "cut_stream" else ProviderUnavailableError
        with pytest.raises(ending) as caught:
            await shown_by(stateless, "one")
        assert caught.value.retriable
        kept = len(await stateless.get_messages())
        reply = await stateless.send_message("two")
        assert reply.text == f"I see {3 if kept == 2 else 1} messages. The last says: two"

    async def test_a_rate_limit_in_mid_stream(self, world, stateless):
        world.fail(ASK, "stream_error", at=6, code="rate_limit_exceeded", message="Slow down.")
        with pytest.raises(ProviderRateLimitError, match="Slow down"):
            await shown_by(stateless, "one")

    @both_ways
    async def test_a_response_that_failed(self, world, stateless, streaming):
        world.reply({"finish": "failed", "error": {"code": "invalid_prompt", "message": "No."}})
        with pytest.raises(ProviderRequestError, match=r"gave no reply: No\."):
            await asking(streaming)(stateless, "one")


class TestErrors:
    """Each says which provider or model, and what to do."""

    @modes
    @both_ways
    async def test_a_bad_key(self, connect, mode, streaming):
        session = await connect("bad-key-123456", mode=mode)
        with pytest.raises(ProviderAuthenticationError, match="openai refused the key; check it"):
            await asking(streaming)(session, "one")

    async def test_no_key(self, connect, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        session = await connect(None, mode="chat")
        with pytest.raises(ProviderAuthenticationError, match="has no key: give one in providers="):
            await session.send_message("one")

    async def test_the_key_of_the_environment(self, world, connect, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", world.key)
        session = await connect(None, mode="chat")
        assert (await session.send_message("one")).text.startswith("I see 1")

    async def test_options_that_no_client_takes(self, connect):
        session = await connect(mode="chat", basurl="x")
        with pytest.raises(InvalidInputError, match="basurl"):
            await session.send_message("one")

    @modes
    async def test_nothing_listens(self, connect, mode):
        session = await connect(mode=mode, base_url="http://127.0.0.1:9/v1", max_retries=0)
        with pytest.raises(
            ProviderUnavailableError, match=r"cannot be reached at http://127\.0\.0\.1:9/v1/; check"
        ):
            await session.send_message("one")

    @modes
    @both_ways
    async def test_a_web_page(self, connect, web_page, mode, streaming):
        session = await connect(mode=mode, base_url=web_page)
        with pytest.raises(ProviderResponseError, match=f"{web_page}/ gave is not an answer"):
            await asking(streaming)(session, "one")

    @modes
    async def test_a_missing_v1(self, world, connect, mode):
        session = await connect(mode=mode, base_url=world.openai_url.removesuffix("/v1"))
        with pytest.raises(ProviderResponseError, match="check the base_url"):
            await session.send_message("one")

    async def test_a_server_without_conversations(self, world, connect):
        world.set(compat=True)
        session = await connect(mode="conversations")
        with pytest.raises(ProviderRequestError, match="Invalid URL"):
            await session.send_message("one")

    @modes
    @both_ways
    async def test_an_unknown_model(self, world, connect, mode, streaming):
        session = await connect(model="unknown-7", mode=mode)
        with pytest.raises(UnknownModelError, match=r"no model 'unknown-7'.*switch_provider"):
            await asking(streaming)(session, "one")
        asked = [r for r in world.requests() if r["path"].endswith(("responses", "completions"))]
        assert len(asked) == 1

    @pytest.mark.parametrize("mode", ["conversations", "responses"])
    @pytest.mark.parametrize(
        ("model", "content", "options", "said"),
        [
            ("notools-1", "one", {"tools": [WEATHER]}, "tools"),
            ("noreason-1", "one", {"reasoning": {"effort": "low"}}, "reasoning"),
            ("novision-1", [ImageBlock(url="https://example.org/a.png")], {}, "image"),
        ],
    )
    async def test_what_a_model_cannot_do(self, connect, mode, model, content, options, said):
        session = await connect(model=model, mode=mode)
        with pytest.raises(ProviderRequestError, match=said) as caught:
            await session.send_message(content, **options)
        assert not caught.value.retriable

    @pytest.mark.parametrize("mode", ["conversations", "responses"])
    @pytest.mark.parametrize(
        "name",
        ["model", "input", "conversation", "previous_response_id", "store", "stream", "background"],
    )
    async def test_options_that_the_session_decides(self, connect, mode, name):
        session = await connect(mode=mode)
        with pytest.raises(InvalidInputError, match=f"{name} is not to be given"):
            await session.send_message("one", **{name: None})

    @pytest.mark.parametrize("mode", ["conversations", "responses"])
    async def test_unknown_options(self, connect, mode):
        session = await connect(mode=mode)
        with pytest.raises(InvalidInputError, match=r"'openai' does not take this.*tempratur"):
            await session.send_message("one", tempratur=1)
        reply = await session.send_message("two")
        assert reply.text == "I see 1 messages. The last says: two"


class TestSecrets:
    FAULTS = (
        ("status", {"status": 400}),
        ("status", {"status": 401}),
        ("status", {"status": 404}),
        ("status", {"status": 404, "code": "model_not_found"}),
        ("status", {"status": 429, "headers": {"retry-after": "9999"}}),
        ("status", {"status": 500}),
        ("stream_error", {"at": 6}),
        ("cut_before", {}),
        ("garbage", {}),
        ("html", {}),
    )

    @modes
    @pytest.mark.parametrize(("kind", "options"), FAULTS)
    @pytest.mark.parametrize("by", ["argument", "environment", "client"])
    async def test_no_error_and_no_log_has_the_key(
        self, provider_server, connect, monkeypatch, caplog, mode, kind, options, by
    ):
        key = "Passw0rt"  # nothing that would be known for a key by its looks
        world = provider_server.world(key)
        caplog.set_level(logging.DEBUG)
        path = "/v1/chat/completions" if mode == "chat" else ASK.removeprefix("POST ")
        message = f"The key {key} may not do this."
        arguments = {"mode": mode, "base_url": world.openai_url, "max_retries": 0}
        client = None
        if by == "environment":
            monkeypatch.setenv("OPENAI_API_KEY", key)
        if by == "client":
            client = openai.AsyncOpenAI(api_key=key, base_url=world.openai_url)
            arguments = {"mode": mode, "client": client, "max_retries": 0}
        session = await connect(key if by == "argument" else None, **arguments)
        world.fail(f"POST {path}", kind, message=message, **options)
        with pytest.raises(SessionError) as caught:
            await shown_by(session, "one")
        told = [str(caught.value), repr(caught.value), *caught.value.args]
        told += traceback.format_exception(caught.value)
        told += [turn.error or "" for turn in await session.get_turns()]
        told.append(repr(session.manager.core.providers.of("openai", None)))
        for text in [*told, caplog.text]:
            assert key not in text
        if client is not None:
            await client.close()


class TestHistoryOfOthers:
    @modes
    async def test_whatever_was_recorded_can_be_sent(self, world, connect, mode):
        session = await connect(mode=mode)
        broken = ToolCallBlock(id="c1", name="a b", args={"n": float("inf")})
        await session.record(
            [
                SessionMessage(role=MessageRole.ASSISTANT, content="First!"),
                SessionMessage(role=MessageRole.USER, content="", name="x y"),
                SessionMessage(role=MessageRole.ASSISTANT, content=[broken]),
                SessionMessage(role=MessageRole.TOOL, content=[ToolResultBlock(tool_call_id="c9")]),
            ]
        )
        await session.send_message("one")
        await session.send_message("two")
        assert world.state()["refused"] == []
