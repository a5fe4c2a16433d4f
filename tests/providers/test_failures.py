from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session.providers.failures import Failure, Kind

ANTHROPIC_SIGNATURE = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "messages.1.content.0: Invalid `signature` in `thinking` block. The block is "
        'bound to a different conversation. Remove the block, or set "drop_block".',
    },
}


def of_openai(message, code=None, kind="invalid_request_error"):
    return {"message": message, "type": kind, "param": None, "code": code}


def of_openrouter(code, raw):
    metadata = {"raw": raw, "provider_name": "X"}
    return {"error": {"message": "Provider returned error", "code": code, "metadata": metadata}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # developers.openai.com: error codes
        (400, of_openai("Your input exceeds the context window of this model.",
                        "context_length_exceeded")),
        (400, of_openai("Invalid 'messages': array too long. Expected an array with maximum length "
                        "2048", "array_above_max_length")),
        # github.com/TheR1D/shell_gpt/issues/653: waiting never helps
        (429, of_openai("Request too large for gpt-4o in organization org-x on tokens per min "
                        "(TPM): Limit 30000, Requested 31538.", "rate_limit_exceeded", "tokens")),
        # github.com/HunorLaczko/ha-groq-cloud-api/issues/27
        (413, of_openai("Request too large for model `llama`", "rate_limit_exceeded", "tokens")),
        (400, of_openai("Please reduce the length of the messages or completion.")),
        # docs.claude.com/en/api/errors
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message":
               "prompt is too long: 213462 tokens > 200000 maximum"}}),
        (400, {"error": {"message": "input length and `max_tokens` exceed context limit: 188240 + "
                                    "21333 > 200000"}}),
        (413, {"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds "
                                          "the maximum size"}}),
        (413, "<html><title>413 Request Entity Too Large</title></html>"),
        # vLLM: an object of its own; SGLang in a stream (github.com/sgl-project/sglang/issues/12081)
        (400, {"object": "error", "message": "This model's maximum context length is 8192 tokens. "
               "However, you requested 8300 tokens", "type": "BadRequestError", "code": 400}),
        (200, {"object": "error", "message": "The input (9000 tokens) is longer than the model's "
               "context length (8192 tokens).", "type": "BadRequestError", "code": "400"}),
        # tools/server of llama.cpp
        (400, {"error": {"code": 400, "message": "request (2358 tokens) exceeds the available "
               "context size (2048 tokens), try increasing it", "type":
               "exceed_context_size_error", "n_ctx": 2048}}),
        # Gemini's OpenAI endpoint answers with a list
        (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token "
               "count (1196265) exceeds the maximum number of tokens allowed (1048575)."}}]),
        (400, {"object": "error", "message": "Prompt contains 65673 tokens and 0 draft tokens, too "
               "large for model with 32768 maximum context length", "code": "3051"}),
        (500, "input length exceeds the context length"),  # Ollama: a text under "error"
        (400, {"error": {"message": "litellm.ContextWindowExceededError: litellm.BadRequestError: "
               "too long", "type": None, "param": None, "code": "400"}}),
        (400, of_openai("<400> InternalError.Algo.InvalidParameter: Range of input length should "
                        "be [1, 983616]")),
        (400, of_openai("Invalid request: Your request exceeded model token limit: 262144")),
        (502, of_openrouter(502, '{"error":{"message":"prompt is too long: 1 tokens > 0"}}')),
        # github.com/microsoft/vscode/issues/289514, and without a code
        # github.com/microsoft/vscode-copilot-release/issues/6700
        (400, of_openai("prompt token count of 514673 exceeds the limit of 128000",
                        "model_max_prompt_tokens_exceeded")),
        (400, of_openai("prompt token count of 65446 exceeds the limit of 64000", "", "")),
        # github.com/lmstudio-ai/lmstudio-bug-tracker/issues/546
        (400, {"error": "Trying to keep the first 111490 tokens when context the overflows. "
                        "However, the model is loaded with context length of only 32768 tokens, "
                        "which is not enough."}),
        # github.com/abetlen/llama-cpp-python/issues/462
        (500, of_openai("Requested tokens (2065) exceed context window of 1800", None, "x")),
        (400, {"errors": [{"code": 5021, "message": "AiError: The estimated number of input and "
                           "maximum output tokens (41234) exceeded this model context window limit "
                           "(24000)."}]}),
        (400, {"message": "Input Tokens Exceeded: Number of input tokens exceeds maximum length."}),
        (400, of_openai("Invalid 'input[3].output': string too long. Expected a string with "
                        "maximum length 10485760", "string_above_max_length")),
        # github.com/anthropics/claude-code/issues/34120
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message":
               "messages.9.content.1.image.source.base64.data: At least one of the image "
               "dimensions exceed max allowed size for many-image requests: 2000 pixels"}}),
    ],
)  # fmt: skip
def test_requests_that_are_too_long(status, body):
    failure = Failure(status, body)
    assert failure.kind is Kind.LENGTH
    assert not failure.is_transient


@pytest.mark.parametrize(
    "text",
    [
        "Invalid 'metadata.name': string too long. Expected a string with maximum length 512",
        "max_tokens: 300000 > 64000, which is the maximum allowed number of output tokens",
    ],
)
def test_options_that_are_too_long_are_no_long_requests(text):
    assert Failure(400, of_openai(text, "string_above_max_length")).kind is Kind.REFUSED


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, ANTHROPIC_SIGNATURE),
        (400, {"error": {"message": "messages.1.content.0.thinking.signature: Field required"}}),
        (400, {"error": {"message": "messages.3.content.1: `thinking` or `redacted_thinking` "
               "blocks in the latest assistant message cannot be modified."}}),
        # github.com/lbjlaq/Antigravity-Manager/issues/498, .../1393: an error inside a message
        (400, {"error": {"code": 400, "message": json.dumps(ANTHROPIC_SIGNATURE),
                         "status": "INVALID_ARGUMENT"}}),
        (429, {"message": "All accounts exhausted. Last error: HTTP 400: "
               + json.dumps({"error": {"code": 400, "message": json.dumps(ANTHROPIC_SIGNATURE)}})}),
        # github.com/openai/codex/issues/8119
        (400, of_openai("The encrypted content gAAA...c90= could not be verified.",
                        "invalid_encrypted_content")),
        (200, of_openai("The encrypted content for item rs_1 could not be verified. Reason: "
                        "Encrypted content could not be decrypted or parsed.")),
        # github.com/openai/openai-agents-python/issues/1660
        (400, of_openai("Item 'rs_1' of type 'reasoning' was provided without its required "
                        "following item.")),
        # github.com/nearai/ironclaw/issues/1510
        (400, [{"error": {"code": 400, "message": "Function call is missing a thought_signature in "
               "functionCall parts.", "status": "INVALID_ARGUMENT"}}]),
    ],
)  # fmt: skip
def test_reasoning_that_is_refused(status, body):
    failure = Failure(status, body)
    assert failure.kind is Kind.REASONING
    assert not failure.is_transient


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # github.com/2389-research/tracker/issues/547, langchain-ai/langchainjs/issues/1929
        (429, of_openai("You exceeded your current quota", "insufficient_quota")),
        (429, of_openai("x", "project_spend_limit_exceeded", "insufficient_quota")),
        (200, of_openai("x", "credit_balance_exhausted")),
        # github.com/anthropics/claude-code/issues/66314
        (400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too "
               "low to access the Anthropic API."}}),
        (400, {"error": {"type": "invalid_request_error", "message": "x",
               "details": {"error_code": "enforced_spend_limit_reached"}}}),
        (402, {"error": {"type": "billing_error", "message": "x"}}),
        (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
        (200, {"error": {"message": "Insufficient credits", "code": 402}}),
    ],
)  # fmt: skip
def test_credit_that_is_gone(status, body):
    failure = Failure(status, body, headers={"x-should-retry": "true"})
    assert failure.kind is Kind.QUOTA
    assert not failure.is_transient


def test_a_budget_of_requests_under_way_passes():
    body = {"error": {"code": 402, "message": "x", "metadata": {"limit_source": "y"}}}
    failure = Failure(402, body, headers={"retry-after": "2"})
    assert failure.kind is Kind.RATE_LIMIT
    assert failure.is_transient


def test_a_limit_of_a_minute_is_no_lack_of_credit():
    # Gemini says "quota" of both, and names the wait in the body alone.
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.837906927s"},
    ]
    message = "You exceeded your current quota, please check your plan and billing details."
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}
    failure = Failure(429, [{"error": error}])
    assert failure.kind is Kind.RATE_LIMIT
    assert failure.retry_after == 45.837906927
    assert failure.message == message


@pytest.mark.parametrize(
    ("status", "body", "kind", "effective"),
    [
        (200, {"error": {"message": "x", "code": 429}}, Kind.RATE_LIMIT, 429),
        (200, {"error": {"message": "x", "code": "502"}}, Kind.UNAVAILABLE, 502),
        (200, {"type": "error", "error": {"type": "overloaded_error"}}, Kind.UNAVAILABLE, 529),
        (None, {"code": "server_error", "message": "x"}, Kind.UNAVAILABLE, 500),
        (None, {"code": "rate_limit_exceeded", "message": "x"}, Kind.RATE_LIMIT, 429),
        (None, {"type": "timeout_error"}, Kind.TIMEOUT, 504),
        (None, {"type": "authentication_error"}, Kind.KEY, 401),
        (None, {"type": "invalid_request_error"}, Kind.REFUSED, 400),
        (None, None, Kind.REFUSED, 400),
        (200, of_openrouter(429, "error code: 1015"), Kind.RATE_LIMIT, 429),
        (200, {"code": 404, "message": "The model `x` does not exist.", "type": "NotFoundError"},
         Kind.MODEL, 404),
        (404, "model 'qwen3' not found, try pulling it first", Kind.MODEL, 404),
        (400, of_openai("x is not a valid model ID"), Kind.MODEL, 400),
        (400, [{"error": {"code": 400, "message": "API key not valid.", "details":
               [{"reason": "API_KEY_INVALID"}]}}], Kind.KEY, 400),
        (404, {"error": {"message": "No such item"}}, Kind.NOT_FOUND, 404),
        (405, None, Kind.ABSENT, 405),
        (501, None, Kind.ABSENT, 501),
        (498, None, Kind.UNAVAILABLE, 498),
        (529, None, Kind.UNAVAILABLE, 529),
        (500, of_openai("x", "conversation_locked"), Kind.LOCKED, 500),
        (400, of_openai("Invalid 'tools': \"context\" is no tool"), Kind.REFUSED, 400),
        (400, of_openai("max_tokens is too large: 99999. This model supports at most 16384 "
                        "completion tokens"), Kind.REFUSED, 400),
    ],
)  # fmt: skip
def test_kinds(status, body, kind, effective):
    failure = Failure(status, body)
    assert (failure.kind, failure.effective_status) == (kind, effective)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        # github.com/open-webui/computer/issues/293: the reason is inside
        (of_openrouter(429, "glm is temporarily rate-limited upstream."),
         "Provider returned error: glm is temporarily rate-limited upstream."),
        (of_openrouter(400, '{\n "error": {"message": "no word json", "code": null}\n}'),
         "Provider returned error: no word json"),
        ({"error": {"message": json.dumps(ANTHROPIC_SIGNATURE)}},
         ANTHROPIC_SIGNATURE["error"]["message"]),
        ({"error": {"message": 'not of the schema: {"city": 1}'}},
         'not of the schema: {"city": 1}'),
        ({"detail": "No such session"}, "No such session"),
        ({"detail": [{"loc": ["body", "model"], "msg": "Field required", "type": "missing"}]},
         "Field required"),
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ("busy", "busy"),
        ("<html>busy</html>", "what the SDK says"),
        ({"error": {"message": "twice", "metadata": {"raw": "twice"}}}, "twice"),
        ({"error": {"message": None}}, "what the SDK says"),
    ],
)  # fmt: skip
def test_messages(body, message):
    assert Failure(400, body, "what the SDK says").message == message


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        ("404 page not found", True),
        (None, True),
        ({"detail": "Not Found"}, True),
        ({"detail": "Conversation x not found"}, False),
        ({"error": {"message": "Not found"}}, False),
        ([{"error": {"message": "models/x is not found"}}], False),
        ("model 'x' not found", False),
    ],
)
def test_an_address_that_nobody_serves(body, is_one):
    assert Failure(404, body).is_of_no_api is is_one


@pytest.mark.parametrize(
    ("status", "headers", "is_transient"),
    [
        (409, {}, True),
        (400, {}, False),
        (400, {"x-should-retry": "true"}, True),
        (500, {"x-should-retry": "false"}, False),
        (429, {"x-should-retry": "soon"}, True),
        (401, {"x-should-retry": "true"}, False),
        (501, {}, False),
        (503, {}, True),
    ],
)
def test_whether_to_ask_again(status, headers, is_transient):
    assert (
        Failure(status, {"error": {"message": "x"}}, headers=headers).is_transient is is_transient
    )


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "2"}, 2.0),
            ({"retry-after": "-2"}, 0.0),
            ({"retry-after": "nan"}, 0.0),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
            ({"retry-after": "inf"}, 1e9),
            ({"retry-after-ms": "1e400"}, 1e9),
            ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2300"}, 1e9),
            ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999"}, None),
        ],
    )
    @pytest.mark.parametrize("status", [429, 500, 503, 529])
    def test_headers(self, status, headers, seconds):
        assert Failure(status, None, headers=headers).retry_after == seconds

    def test_a_date_to_come(self):
        date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        found = Failure(429, None, headers={"retry-after": date}).retry_after
        assert found is not None
        assert 3000 < found <= 3600

    @pytest.mark.parametrize(
        ("error", "seconds"),
        [
            ({"details": [{"retryDelay": "39s"}]}, 39.0),
            ({"details": [{"retryDelay": "soon"}, "x", {"retryDelay": "1.5s"}]}, 1.5),
            ({"details": [{"retryDelay": "-1s"}]}, None),
            ({"metadata": {"retry_after_seconds": 7}}, 7.0),
            ({"retry_after": True}, None),
            ({"retry_after": 10**400}, 1e9),
            ({"retry_after": "x"}, None),
        ],
    )
    def test_bodies(self, error, seconds):
        assert Failure(503, {"error": error}, headers={}).retry_after == seconds
        assert Failure(503, {"error": error}, headers={"retry-after": "3"}).retry_after == 3.0


bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "detail", "metadata", "raw", "details", "type"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.none() | st.integers(100, 599), bodies)
def test_anything_a_server_may_say_is_read(status, body):
    failure = Failure(status, body, "said")
    again = Failure(status, json.dumps(body) if isinstance(body, dict) else body, "said")
    assert failure.kind in Kind
    assert isinstance(failure.message, str)
    assert again.kind in Kind
    assert failure.retry_after is None or failure.retry_after >= 0


@pytest.mark.parametrize(
    "body",
    [
        {"message": '{"a":' * 100_000},
        {"error": {"message": '{"message": ' * 3000 + "1"}},
        {"error": {"code": "\u00b2"}},
        {"error": {"code": "9" * 5000}},
    ],
)
@pytest.mark.parametrize("status", [200, 400, None])
def test_what_cannot_be_read_is_a_refusal(status, body):
    """Texts that are too deep for `json`, and digits that `int` does not read."""
    failure = Failure(status, body, "said")
    assert failure.kind is Kind.REFUSED
    assert failure.message
