from __future__ import annotations

import pytest

from langswarm_session import (
    InvalidInputError,
    MockProviderSession,
    Price,
    SessionMessage,
    TokenUsage,
    UsageHook,
)


def reply(model, **usage):
    return SessionMessage(
        role="assistant", content="x", provider="openai", model=model, usage=TokenUsage(**usage)
    )


def test_cached_tokens_have_a_price_of_their_own():
    usage = TokenUsage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert Price(input=2.0, output=10.0, cached=0.5).of(usage) == pytest.approx(1.2 + 0.2 + 1.0)
    assert Price(input=2.0, output=10.0).of(usage) == pytest.approx(3.0)


async def test_adds_up_by_user_and_model(manager):
    hook = UsageHook({"gpt-5.4": Price(2, 10), "gpt-5*": Price(1, 5)})
    manager.add_global_hook(hook)
    ann = await manager.create_session("ann", "mock", "echo")
    bob = await manager.create_session("bob", "mock", "echo")
    for session in (ann, ann, bob):
        await session.record(reply("gpt-5.4", input_tokens=100, output_tokens=10))
    await bob.record(reply("gpt-5.4-mini", input_tokens=1000, output_tokens=100))
    await bob.record(reply("other", input_tokens=5))
    await bob.record(SessionMessage(role="assistant", content="nobody counted"))
    rows = {(row["user_id"], row["model"]): row for row in hook.rows()}
    assert rows["ann", "gpt-5.4"]["replies"] == 2
    assert rows["ann", "gpt-5.4"]["input_tokens"] == 200
    assert rows["ann", "gpt-5.4"]["cost"] == pytest.approx((200 * 2 + 20 * 10) / 1e6)
    assert rows["bob", "gpt-5.4-mini"]["cost"] == pytest.approx((1000 + 100 * 5) / 1e6)
    assert rows["bob", "other"]["cost"] is None
    assert hook.cost("ann") == rows["ann", "gpt-5.4"]["cost"]
    assert hook.cost() == pytest.approx(sum(row["cost"] or 0 for row in rows.values()))
    assert {row["user_id"] for row in hook.rows("bob")} == {"bob"}


async def test_counts_what_a_provider_answers(make_manager):
    hook = UsageHook({"echo": Price(1, 1)})
    manager = make_manager(providers={"mock": MockProviderSession()})
    manager.add_global_hook(hook)
    session = await manager.create_session("ann", "mock", "echo")
    await session.send_message("Hello")
    (row,) = hook.rows()
    assert (row["provider"], row["model"], row["replies"]) == ("mock", "echo", 1)
    assert row["input_tokens"] + row["output_tokens"] == session.metrics.total_tokens


def test_a_price_is_a_price():
    with pytest.raises(InvalidInputError, match="gpt"):
        UsageHook({"gpt": 2.0})  # type: ignore[dict-item]
