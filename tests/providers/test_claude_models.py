"""What Anthropic's models and servers take, as a table."""

from __future__ import annotations

from types import SimpleNamespace

import anthropic
import pytest

from langswarm_session import AnthropicProviderSession, InvalidInputError
from langswarm_session.errors import ProviderRequestError
from langswarm_session.providers.anthropic.dialects import (
    ANTHROPIC,
    BEDROCK,
    COMPATIBLE,
    DIALECTS,
    FOUNDRY,
    HOSTED,
    VERTEX,
    CacheStyle,
    Dialect,
    Server,
    ToolChanges,
    abilities,
    dialect_at,
    dialect_of,
    learned,
)
from langswarm_session.providers.claude_models import (
    BINDS,
    BINDS_EVERYWHERE,
    SYSTEM_MESSAGES,
    model_of,
    reads,
)


class TestModels:
    @pytest.mark.parametrize(
        ("name", "family", "version"),
        [
            ("claude-opus-5-5", "opus", (5, 5)),
            ("us.anthropic.claude-opus-4-8-20260528-v1:0", "opus", (4, 8)),
            ("anthropic/claude-opus-5.5", "opus", (5, 5)),
            ("claude-sonnet-4-20250514", "sonnet", (4, 0)),
            ("claude-opus-4@20250514", "opus", (4, 0)),
            ("claude-mythos-5-2", "fable", (5, 2)),
            ("claude-3-5-sonnet-20241022", "", (3, 0)),
            ("claude-2.1", "", (3, 0)),
        ],
    )
    def test_are_known_by_any_of_their_names(self, name, family, version):
        assert model_of(name) == (family, version)

    def test_that_are_newer_follow_the_newest_rules_and_others_none(self):
        for name in ("claude-opus-7", "claude-epic-1", "claude-haiku-5-7"):
            assert model_of(name).does(BINDS)
            assert model_of(name).does(SYSTEM_MESSAGES)
        assert model_of("gemma-3") is None
        assert not model_of("claude-3-7-sonnet").does(BINDS)

    def test_bind_their_thinking(self):
        names = "fable-5-1 mythos-5-2 opus-5-5 sonnet-5-5 haiku-5-5".split()
        assert all(model_of(f"claude-{name}").does(BINDS) for name in names)
        others = "fable-5 opus-5 sonnet-5 haiku-4-5 opus-4-8".split()
        assert not any(model_of(f"claude-{name}").does(BINDS) for name in others)
        assert [model_of(f"claude-{name}").does(BINDS_EVERYWHERE) for name in names] == [
            *(False, True, False, False, False)
        ]

    @pytest.mark.parametrize(
        ("reader", "writers"),
        [
            ("fable-5-2", "fable-5-2 mythos-5-2 fable-5-1 opus-5-5 opus-5 sonnet-5 haiku-5-5"),
            ("fable-5-1", "mythos-5-1 fable-5 opus-5-5 opus-5 haiku-4-5 haiku-5-5"),
            ("opus-5-5", "opus-5 opus-4-8 sonnet-5 sonnet-5-5 haiku-4-5 haiku-5-5"),
            ("sonnet-5-5", "sonnet-5 opus-4-8 haiku-4-5 haiku-5-5"),
            ("opus-5", "opus-4-8 sonnet-5 haiku-4-5 haiku-5-5"),
            ("haiku-5-5", ""),
        ],
    )
    def test_read_each_others_thinking_as_the_pages_say(self, reader, writers):
        models = """fable-5-2 mythos-5-2 fable-5-1 mythos-5-1 fable-5 opus-5-5 opus-5 opus-4-8
            sonnet-5-5 sonnet-5 haiku-5-5 haiku-4-5""".split()
        read = {name for name in models if reads(f"claude-{reader}", f"claude-{name}")}
        missing = {reader, *writers.split()} - read
        assert not missing
        barred = {
            "opus-5-5": {"fable-5-1", "mythos-5-1", "fable-5"},
            "sonnet-5-5": {"opus-5", "opus-5-5", "fable-5", "fable-5-1"},
            "fable-5-1": {"fable-5-2", "sonnet-5-5"},
            "opus-5": {"opus-5-5", "fable-5-1", "sonnet-5-5"},
            "haiku-5-5": set(models) - {"haiku-5-5"},
        }
        assert not read & barred.get(reader, set())

    def test_of_others_are_read_by_themselves_alone(self):
        assert reads("kimi-k3", "kimi-k3")
        assert not reads("claude-opus-5-5", "kimi-k3")
        assert not reads("claude-test-1", "claude-test-2")


class TestDialects:
    @pytest.mark.parametrize(
        ("address", "dialect"),
        [
            ("https://api.anthropic.com", ANTHROPIC),
            ("https://bedrock-runtime.us-east-1.amazonaws.com", BEDROCK),
            ("https://us-east5-aiplatform.googleapis.com/v1", VERTEX),
            ("https://aiplatform.googleapis.com/v1", VERTEX),
            ("https://me.services.ai.azure.com/anthropic", FOUNDRY),
            ("https://api.deepseek.com/anthropic", COMPATIBLE),
            ("https://api.anthropic.com.example.org", COMPATIBLE),
            ("http://127.0.0.1:8080", COMPATIBLE),
        ],
    )
    def test_by_address(self, address, dialect):
        assert dialect_at(address) is dialect

    def test_by_client(self):
        vertex = anthropic.AsyncAnthropicVertex(region="r", project_id="p", access_token="t")
        foundry = anthropic.AsyncAnthropicFoundry(api_key="k", resource="r")
        named = type("AsyncAnthropicAWS", (), {"base_url": "https://x.example"})
        assert dialect_of(vertex) is VERTEX
        assert dialect_of(foundry) is FOUNDRY
        assert dialect_of(named()) is HOSTED
        assert dialect_of(SimpleNamespace(base_url="https://api.anthropic.com/")) is ANTHROPIC

    def test_the_callers_word_counts_and_so_does_the_environment(self, monkeypatch):
        def target(**options):
            provider = AnthropicProviderSession("key-12345678", **options)
            return provider.target(SimpleNamespace(model="claude-opus-5-5"), {}).system.value

        assert target() == "after_user"
        assert target(dialect="compatible") == "first"
        assert target(base_url="https://gateway.example", dialect=BEDROCK) == "after_user"
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://gateway.example")
        assert target() == "first"
        with pytest.raises(InvalidInputError, match="dialect must be one of anthropic, .*'nope'"):
            target(dialect="nope")
        with pytest.raises(InvalidInputError, match="block_binding must be .*'keep'"):
            target(block_binding="keep")

    def test_a_model_narrows_them(self):
        assert abilities(ANTHROPIC, "claude-opus-5-5").dialect == ANTHROPIC
        old = abilities(ANTHROPIC, "claude-sonnet-4-6").dialect
        assert (old.system_messages, old.tool_changes, old.clear_at) == (
            *(False, ToolChanges.NONE, False),
        )
        assert abilities(COMPATIBLE, "claude-opus-5-5").dialect.cache is CacheStyle.BLOCKS
        assert abilities(COMPATIBLE, "gemma").dialect.cache is CacheStyle.NONE
        mine = Dialect("mine", cache=CacheStyle.BLOCKS)
        assert abilities(mine, "glm-5") == (None, mine)

    @pytest.mark.parametrize(
        ("refusal", "field", "value"),
        [
            # https://github.com/vercel/ai/pull/13986
            ("cache_control: Extra inputs are not permitted", "cache", CacheStyle.BLOCKS),
            # https://github.com/anthropics/claude-code/issues/61412
            ("role 'system' is not supported on this model", "system_messages", False),
            # https://github.com/anthropics/claude-agent-sdk-typescript/issues/350
            ('messages: Unexpected role "system". The Messages API...', "system_messages", False),
            # https://github.com/ogx-ai/ogx/issues/5982
            ("Input should be 'user' or 'assistant'", "system_messages", False),
            # https://github.com/anthropics/anthropic-sdk-python/issues/461
            ("messages: text content blocks must be non-empty", "empty_texts", False),
            ("Unexpected value(s) `x` for the `anthropic-beta` header", "clear_at", False),
            ("invalid beta flag", "tool_changes", ToolChanges.NONE),
            # https://github.com/leookun/cursor-byok/pull/276
            ("The `content[].thinking` ... must be passed back", "wants_thinking", True),
        ],
    )
    def test_a_refusal_teaches(self, refusal, field, value):
        less = learned(ANTHROPIC, refusal)
        assert getattr(less, field) == value
        while less is not None:  # and comes to an end
            last, less = less, learned(less, refusal)
        assert getattr(last, field) in (value, CacheStyle.NONE)

    def test_another_teaches_nothing(self):
        bound = (
            "Invalid `signature` in `thinking` block. The block is bound to a different "
            "conversation. That setting requires the value in the `anthropic-beta` header."
        )
        for refusal in (bound, "max_tokens: Field required", "prompt is too long"):
            assert learned(ANTHROPIC, refusal) is None
        assert not Server(ANTHROPIC).learns("m", ValueError("cache_control"))

    def test_what_was_learned_is_that_of_a_model(self, caplog):
        server = Server(ANTHROPIC)
        error = ProviderRequestError("role 'system' is not supported on this model")
        assert server.learns("claude-opus-9", error)
        assert not server.learns("claude-opus-9", error)
        assert not server.abilities("claude-opus-9").dialect.system_messages
        assert server.abilities("claude-opus-8").dialect.system_messages
        assert "left out from now on" in caplog.text

    def test_have_names(self):
        assert all(name == dialect.name for name, dialect in DIALECTS.items())
