from __future__ import annotations

import asyncio
import gc
import traceback
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from langswarm_session import create_session_manager
from langswarm_session.errors import (
    ContextLengthError,
    InvalidInputError,
    InvalidReasoningError,
    ProviderAuthenticationError,
    ProviderCapabilityError,
    ProviderQuotaError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SessionError,
    SessionNotFoundError,
    UnknownModelError,
)
from langswarm_session.providers import sdk
from langswarm_session.providers.sdk import (
    LONGEST_RETRY_AFTER,
    RetryPolicy,
    Sdk,
    check_options,
    client_options,
    delay,
    opened,
    plain,
    refusal_of,
    secrets_of,
)


class APIError(Exception):
    """An error as the SDKs' generator makes it."""

    def __init__(self, message="", *, body=None):
        super().__init__(message)
        self.body = body


class APIStatusError(APIError):
    def __init__(self, status, body=None, headers=None):
        super().__init__(f"Error code: {status} - {body}", body=body)
        self.status_code = status
        self.response = Response(headers or {})
        self.code = body.get("code") if isinstance(body, dict) else None
        self.param = body.get("param") if isinstance(body, dict) else None


class APIConnectionError(APIError):
    pass


class APITimeoutError(APIConnectionError):
    pass


class Response:
    def __init__(self, headers):
        self.headers = headers


class Client:
    base_url = "https://user:pass@api.example.org/v1/"
    api_key = "a-key-of-its-own"

    def __init__(self):
        self.closed = 0

    async def close(self):
        self.closed += 1


class Stream:
    def __init__(self, kind="text/event-stream"):
        self.response = Response({"content-type": kind})
        self.closed = False

    def __aiter__(self):
        return self

    async def close(self):
        self.closed = True


class Answer:
    def model_dump(self, **options):
        assert options == {"mode": "json", "exclude_unset": True, "warnings": False}
        return {"id": "x"}


@pytest.fixture
def vendor():
    return Sdk("acme", Client, ("the-secret",), Client())


def caught(vendor, error, **options):
    with pytest.raises(SessionError) as info, vendor.errors("m-1", **options):
        raise error
    return info.value


@pytest.mark.parametrize(
    ("error", "kind", "retriable", "said"),
    [
        (APITimeoutError(), ProviderTimeoutError, True, "gave no answer in time"),
        (APIConnectionError(), ProviderUnavailableError, True, r"//api\.example\.org/v1/; check"),
        (APIStatusError(401), ProviderAuthenticationError, False, "refused the key"),
        (APIStatusError(403), ProviderAuthenticationError, False, "does not allow"),
        (APIStatusError(404), ProviderResponseError, False, "check the base_url"),
        (APIStatusError(404, "404 page not found"), ProviderResponseError, False, "page not found"),
        (APIStatusError(404, "model 'm-1' not found"), UnknownModelError, False, "try|not found"),
        (APIStatusError(402), ProviderQuotaError, False, "no credit left"),
        (APIStatusError(413), ContextLengthError, False, "too long for acme"),
        (APIStatusError(405), ProviderCapabilityError, False, "does not do this"),
        (APIStatusError(409, {"message": "x"}), ProviderRequestError, True, "refused the request"),
        (APIStatusError(400, {"code": "invalid_encrypted_content", "message": "x"}),
         InvalidReasoningError, False, "reasoning"),
        (APIStatusError(404, {"message": "no item"}), ProviderRequestError, False, "no item"),
        (APIStatusError(404, {"message": "no model m-1"}), UnknownModelError, False, "'m-1'"),
        (APIStatusError(404, {"code": "model_not_found"}), UnknownModelError, False, "'m-1'"),
        (APIStatusError(404, {"message": "no x_m-1"}), ProviderRequestError, False, "x_m-1"),
        (APIStatusError(408), ProviderTimeoutError, True, "gave up waiting"),
        (APIStatusError(429), ProviderRateLimitError, True, "no more requests"),
        (APIStatusError(400, {"message": "bad"}), ProviderRequestError, False, "bad"),
        (APIStatusError(422, {"error": {"message": "bad"}}), ProviderRequestError, False, "bad"),
        (APIStatusError(400, {"code": "conversation_locked"}), ProviderRequestError, True, "busy"),
        (APIStatusError(503), ProviderUnavailableError, True, r"is down \(503\)"),
        (APIStatusError(502, "<HTML>x</HTML>"), ProviderUnavailableError, True, "a web page"),
        (ValueError("x"), ProviderResponseError, False, "ValueError"),
        (KeyError("x"), ProviderResponseError, False, "KeyError"),
        (TypeError("no keyword x"), InvalidInputError, None, "no keyword x"),
        (RuntimeError("x"), ProviderSessionError, False, "failed: RuntimeError: x"),
        (APIError("x", body={"type": "overloaded_error"}), ProviderUnavailableError, True, "x"),
        (APIError("x", body={"error": {"code": "rate_limit"}}), ProviderRateLimitError, True, "x"),
        (APIError("x", body={"type": "invalid"}), ProviderRequestError, False, "gave no reply: x"),
    ],
)  # fmt: skip
def test_errors(vendor, error, kind, retriable, said):
    made = caught(vendor, error)
    assert type(made) is kind
    assert getattr(made, "retriable", None) is retriable
    assert made.__cause__ is error
    with pytest.raises(kind, match=said):
        raise made


def test_where_an_sdk_makes_an_object_of_text(vendor):
    with pytest.raises(ProviderResponseError), vendor.errors():
        "text"._set_private_attributes()
    assert type(caught(vendor, AttributeError("x", obj=1))) is ProviderSessionError


def test_errors_of_a_stream(vendor):
    broken = APIConnectionError()
    assert type(caught(vendor, broken, streaming=True)) is ProviderStreamError
    read = type("ReadError", (Exception,), {"__module__": "httpx2._exceptions"})
    assert type(caught(vendor, read(), streaming=True)) is ProviderStreamError
    assert type(caught(vendor, read())) is ProviderUnavailableError
    late = type("TimeoutException", (Exception,), {"__module__": "httpx._exceptions"})
    assert type(caught(vendor, late(), streaming=True)) is ProviderTimeoutError


@pytest.mark.parametrize("error", [SessionNotFoundError("x"), asyncio.CancelledError()])
def test_what_is_passed_on(vendor, error):
    with pytest.raises(type(error)) as info, vendor.errors():
        raise error
    assert info.value is error


@pytest.mark.parametrize("secret", ["the-secret", "a-key-of-its-own", "sk-proj-abcdefgh"])
@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500])
def test_secrets_are_in_no_error(vendor, secret, status):
    made = caught(vendor, APIStatusError(status, {"message": f"{secret} is bad"}))
    assert secret not in "".join(traceback.format_exception(made))
    # What the server said is known all the same.
    assert made.__cause__ is None
    assert made.__suppress_context__


def test_what_a_server_said_is_known_though_it_is_hidden(vendor):
    body = {"message": "the-secret", "code": "c", "param": "p"}
    assert refusal_of(caught(vendor, APIStatusError(409, body))) == (409, "c", "p")
    assert refusal_of(caught(vendor, RuntimeError())) == (None, "", "")
    assert refusal_of(ProviderSessionError("x")) == (None, "", "")


class TestClients:
    async def test_one_for_each_loop(self):
        made = []

        def make():
            made.append(Client())
            return made[-1]

        vendor = Sdk("acme", make)
        assert vendor.client is vendor.client
        await asyncio.to_thread(lambda: asyncio.run(use(vendor)))
        gc.collect()
        assert len(made) == 2
        await vendor.close()
        await vendor.close()
        assert [client.closed for client in made] == [1, 0]

    async def test_a_callers_own_is_left_open(self):
        client = Client()
        vendor = Sdk("acme", Client, (), client)
        assert vendor.client is client
        await vendor.close()
        assert client.closed == 0

    @pytest.mark.parametrize(
        ("error", "kind", "said"),
        [
            (
                TypeError("no keyword the-secret"),
                InvalidInputError,
                r"invalid options for provider .*: .*\*\*\*",
            ),
            (RuntimeError("the-secret"), ProviderAuthenticationError, "has no key"),
            (InvalidInputError("x"), InvalidInputError, "x"),
        ],
    )
    async def test_that_cannot_be_made(self, error, kind, said):
        def make():
            raise error

        vendor = Sdk("acme", make, ("the-secret",))
        with pytest.raises(kind, match=said) as info:
            _ = vendor.client
        assert "the-secret" not in "".join(traceback.format_exception(info.value))


async def use(vendor):
    return vendor.client


class TestDelays:
    def test_delays_grow_up_to_a_limit(self):
        error = ProviderUnavailableError("x")
        assert 0.125 <= delay(0, error) <= 0.25
        assert 4.0 <= delay(50, error) <= 8.0
        assert delay(50, ProviderRateLimitError("x", retry_after=3.0)) == 3.0


class TestPatience:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(sdk, "FIRST_DELAY", 0.0)

    async def test_it_ends(self):
        patience, error = RetryPolicy(2), ProviderUnavailableError("x")
        assert [await patience.waits(error) for _ in range(3)] == [True, True, False]

    async def test_it_can_be_ended(self):
        patience = RetryPolicy(2)
        patience.end()
        assert not await patience.waits(ProviderUnavailableError("x"))

    @pytest.mark.parametrize(
        "error",
        [
            InvalidInputError("x"),
            ProviderRequestError("x"),
            ProviderRateLimitError("x", retry_after=LONGEST_RETRY_AFTER + 1),
        ],
    )
    async def test_some_errors_are_the_last_word(self, error):
        assert not await RetryPolicy(2).waits(error)

    async def test_a_lock_is_waited_out_and_counts_for_nothing(self, vendor, monkeypatch):
        locked = caught(vendor, APIStatusError(400, {"code": "conversation_locked"}))
        patience = RetryPolicy(0)
        assert [await patience.waits(locked) for _ in range(3)] == [True] * 3
        monkeypatch.setattr(sdk, "LOCK_WAIT", -1.0)
        assert not await RetryPolicy(9).waits(locked)

    async def test_a_call_is_made_again(self, vendor):
        errors = [APIConnectionError(), APIStatusError(500)]

        async def call():
            if errors:
                raise errors.pop()
            return "answer"

        with pytest.raises(ProviderUnavailableError):
            await vendor.patiently(call, 0)
        assert await vendor.patiently(call, 1) == "answer"


class TestStreams:
    """A stream is asked for again until a reader has seen something of it."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(sdk, "FIRST_DELAY", 0.0)

    @pytest.mark.parametrize(
        ("tries", "retries", "ending", "pieces"),
        [
            ([["a", "b"]], 0, None, ["a", "b"]),
            ([[ProviderStreamError("x")], ["a"]], 1, None, ["a"]),
            ([[ProviderUnavailableError("x")], [ProviderStreamError("x")], ["a"]], 2, None, ["a"]),
            ([[ProviderStreamError("x")], ["a"]], 0, ProviderStreamError, []),
            ([["a", ProviderStreamError("x")], ["b"]], 2, ProviderStreamError, ["a"]),
            ([[ProviderRequestError("x")], ["a"]], 2, ProviderRequestError, []),
        ],
    )
    async def test_again(self, vendor, tries, retries, ending, pieces):
        closed = []

        async def ask():
            try:
                for piece in tries.pop(0):
                    if isinstance(piece, Exception):
                        raise piece
                    yield piece
            finally:
                closed.append(True)

        async def read():
            async for piece in vendor.streamed(ask, retries):
                seen.append(piece)

        seen, asked = [], len(tries)
        with nullcontext() if ending is None else pytest.raises(ending):
            await read()
        assert seen == pieces
        assert len(closed) == asked - len(tries)

    async def test_a_reader_that_leaves_ends_it(self, vendor):
        closed = []

        async def ask():
            try:
                yield "a"
                yield "b"
            finally:
                closed.append(True)

        stream = vendor.streamed(ask, 3)
        assert await anext(stream) == "a"
        await stream.aclose()
        assert closed == [True]


class TestErrorsInAnswers:
    """A status of 200 says nothing: routers put the error into the answer."""

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            ({"error": {"message": "slow", "code": 429}}, ProviderRateLimitError),
            ({"error": {"message": "down", "code": 502}, "choices": None}, ProviderUnavailableError),
            # github.com/BerriAI/litellm/issues/8448: beside a choice without content
            ({"error": {"message": "slow", "code": 429}, "choices": [{"message": {}}]},
             ProviderRateLimitError),
            # github.com/runpod-workers/worker-vllm/issues/57
            ({"object": "error", "message": "The model `m-1` does not exist.", "code": 404},
             UnknownModelError),
            ({"type": "error", "error": {"type": "overloaded_error"}}, ProviderUnavailableError),
            ({"error": "busy"}, ProviderRequestError),
        ],
    )  # fmt: skip
    async def test_are_errors(self, vendor, answer, kind):
        for made in (answer, SimpleNamespace(**answer)):
            with pytest.raises(kind) as caught:
                vendor.check(made, "m-1")
            assert type(caught.value) is kind

    @pytest.mark.parametrize(
        "answer",
        [
            {"choices": [], "error": None},
            {"object": "response", "error": {"code": "server_error"}, "status": "failed"},
            {"type": "session.error", "error": {"message": "of an event"}},
            {"type": "message", "content": []},
            "text",
            None,
        ],
    )
    def test_are_not_seen_elsewhere(self, vendor, answer):
        vendor.check(answer)

    async def test_are_tried_again(self, vendor, monkeypatch):
        monkeypatch.setattr(sdk, "FIRST_DELAY", 0.0)
        answers = [{"error": {"message": "slow", "code": 429}}, {"choices": ["x"]}]

        async def call():
            return answers.pop(0)

        assert await vendor.patiently(call, 1) == {"choices": ["x"]}


class TestReading:
    @pytest.mark.parametrize("error", [TypeError("x"), AttributeError("x"), KeyError("x")])
    def test_what_does_not_fit_is_the_servers_fault(self, vendor, error):
        for options in ({"reading": True}, {"streaming": True}):
            assert type(caught(vendor, error, **options)) is ProviderResponseError

    def test_a_keyword_that_does_not_fit_is_the_callers(self, vendor):
        assert type(caught(vendor, TypeError("x"))) is InvalidInputError


class TestCounting:
    @pytest.mark.parametrize("status", [404, 405, 501])
    async def test_that_is_not_there(self, vendor, status):
        async def count():
            raise caught(vendor, APIStatusError(status, {"message": "Not found"}))

        with pytest.raises(ProviderCapabilityError, match="acme at .* counts no tokens; use"):
            await vendor.counted(count())

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (APIStatusError(404, {"message": "no model m-1"}), UnknownModelError),
            (APIStatusError(400, {"message": "no"}), ProviderRequestError),
            (APIStatusError(503), ProviderUnavailableError),
        ],
    )
    async def test_that_fails_otherwise(self, vendor, error, kind):
        async def count():
            raise caught(vendor, error)

        with pytest.raises(kind) as info:
            await vendor.counted(count())
        assert type(info.value) is kind


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_the_time_that_a_server_names_is_waited(vendor, status, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(sdk.asyncio, "sleep", sleep)
    errors = [APIStatusError(status, {"message": "busy"}, {"retry-after": "3"})]

    async def call():
        if errors:
            raise errors.pop()
        return "answer"

    assert await vendor.patiently(call, 1) == "answer"
    assert waits == [3.0]


class TestAnswers:
    def test_plain(self, vendor):
        assert plain(vendor, Answer()) == {"id": "x"}

    @pytest.mark.parametrize("answer", ["<html>", None, b"x", 3])
    def test_what_is_none(self, vendor, answer):
        with pytest.raises(ProviderResponseError, match="not an answer of acme's API"):
            plain(vendor, answer)

    async def test_streams(self, vendor):
        for kind in ("text/event-stream", "text/plain", ""):
            stream = Stream(kind)
            assert await opened(vendor, stream) is stream

    @pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
    async def test_what_is_no_stream_is_closed(self, vendor, kind):
        stream = Stream(kind)
        with pytest.raises(ProviderResponseError, match=f"no stream but {kind}"):
            await opened(vendor, stream)
        assert stream.closed
        with pytest.raises(ProviderResponseError, match="no stream but str"):
            await opened(vendor, "text")


def test_options_that_a_session_decides():
    check_options("acme", {"a": 1}, {"b": "it is ours"})
    with pytest.raises(InvalidInputError, match="b is not to be given.*'acme': it is ours"):
        check_options("acme", {"a": 1, "b": None}, {"b": "it is ours"})


class TestAddress:
    URL = "https://ann:passw0rd-x@h.example/v1?key=s3cret%2Bvalue&api-version=2024-10-01#part"

    def test_what_may_not_be_shown_is_sent_otherwise(self):
        options = client_options({"base_url": self.URL, "default_query": {"key": "own"}})
        assert options["base_url"] == "https://h.example/v1"
        assert options["default_query"] == {"key": "own", "api-version": "2024-10-01"}
        assert options["default_headers"]["Authorization"].startswith("Basic ")
        assert client_options({"timeout": 3}) == {"timeout": 3}

    def test_secrets_are_struck_from_texts(self):
        secrets = secrets_of(("sk-short", "x", "test", None), {"base_url": self.URL})
        cleaned = Sdk("acme", object, secrets).clean(
            "a test of x for 2024-10-01: s3cret%2Bvalue s3cret+value passw0rd-x sk-short"
        )
        assert cleaned == "a test of x for 2024-10-01: *** *** *** ***"

    async def test_a_short_key_is_a_word(self):
        class Client:
            api_key = "test"
            base_url = URL = "https://ann:pw@h.example/v1/?key=abc#x"

        given = Sdk("acme", object, ("test",), Client())
        assert given.clean("this is a test") == "this is a test"
        assert given.address == "https://h.example/v1/"

    @pytest.mark.parametrize("name", ["openai", "anthropic"])
    async def test_the_query_reaches_the_server_and_nobody_else(self, name, caplog):
        httpx = pytest.importorskip("httpx2")  # what both SDKs use since 2026
        caplog.set_level("DEBUG", logger="langswarm_session")
        asked = []

        def answer(request):
            asked.append(str(request.url))
            return httpx.Response(500, json={"error": {"message": f"no: {request.url}"}})

        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        mode = {"openai": "chat", "anthropic": "messages"}[name]
        options = {"api_key": "test", "mode": mode, "http_client": client, "max_retries": 0}
        providers = {name: {**options, "base_url": "https://h.example/v1?key=s3cret-value"}}
        async with create_session_manager("memory", providers=providers) as manager:
            session = await manager.create_session("u", name, "m")
            with pytest.raises(ProviderUnavailableError) as caught:
                await session.send_message("hi")
        assert asked[0].startswith("https://h.example/v1/")
        assert asked[0].endswith("?key=s3cret-value")
        shown = "".join(traceback.format_exception(caught.value))
        assert "s3cret" not in shown + repr(manager) + caplog.text
