from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langswarm_session import (
    Detector,
    InvalidInputError,
    MockProviderSession,
    ReasoningBlock,
    RedactingMiddleware,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.middleware.redacting import passes_luhn
from langswarm_session.testing.strategies import messages

SECRETS = {
    "email": "ada.lovelace+notes@analytical.example.org",
    "card": "4111 1111 1111 1111",
    "api_key": "sk-proj-abcdefghijklmnopqrstuvwx",
    "phone": "+46 70 123 45 67",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("place", ["{}", "It is {}.", "({})", "a {}, b", "<{}>", "x\n{}\ny"])
def test_each_kind_is_found_wherever_it_stands(name, place):
    assert RedactingMiddleware().redacted_text(place.format(SECRETS[name])) == place.format(
        f"[{name}]"
    )


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # no card: the check digit is another
        "version 1.2.3.4",
        "2026-11-23 20:51:22",
        "price 1000000",
        "call_0123456789",
        "1+1=2",
        "@property",
        "01a20a25792c7abba301abbd6829bc5b",
        "sk-short",
    ],
)
def test_other_things_are_left_alone(text):
    message = SessionMessage(role="user", content=text)
    assert RedactingMiddleware().redacted(message) is message


def test_the_check_digit():
    assert passes_luhn("79927398713")
    assert not passes_luhn("79927398710")


def everywhere(secret):
    return SessionMessage(
        role="assistant",
        content=[
            TextBlock(text=f"write to {secret}"),
            ReasoningBlock(reasoning=f"he said {secret}", signature="proof"),
            ToolCallBlock(id="call_1", name="send", args={"to": [secret], "cc": {"x": secret}}),
            ToolResultBlock(tool_call_id="call_1", content=f"sent to {secret}"),
            ToolResultBlock(tool_call_id="call_2", content=[TextBlock(text=secret)]),
        ],
        metadata={"about": secret},
        native={"langchain": {"content": secret}},
        name=secret,
    )


@pytest.mark.parametrize("secret", SECRETS.values())
def test_nothing_of_it_is_left_in_any_place(secret):
    redacted = RedactingMiddleware().redacted(everywhere(secret))
    assert secret not in redacted.model_dump_json()
    call = next(block for block in redacted.blocks if isinstance(block, ToolCallBlock))
    assert call.id == "call_1"


def test_reasoning_whose_words_were_changed_has_no_proof_of_them():
    kept = ReasoningBlock(reasoning="nothing here", signature="proof")
    changed = ReasoningBlock(reasoning=SECRETS["email"], signature="proof")
    redacted = RedactingMiddleware().redacted(
        SessionMessage(role="assistant", content=[kept, changed])
    )
    assert redacted.content == [kept, ReasoningBlock(reasoning="[email]")]


async def test_neither_the_log_nor_the_provider_has_it_whichever_way_it_came(db_path):
    mail = SECRETS["email"]
    mock = MockProviderSession([f"I wrote to {mail}."])
    async with SessionManager(
        "sqlite", {"mock": mock}, storage_config={"db_path": db_path}
    ) as manager:
        manager.add_global_middleware(RedactingMiddleware())
        session = await manager.create_session("ann", "mock", "echo")
        await session.record(SessionMessage(role="user", content=f"My address: {mail}"))
        reply = await session.send_message(f"Write to {mail}.")
        assert reply.text == "I wrote to [email]."
        assert [m.text for m in mock.requests[0].messages] == [
            "My address: [email]",
            "Write to [email].",
        ]
    assert mail.encode() not in Path(db_path).read_bytes()


async def test_with_a_vault_the_user_gets_it_back_and_the_log_does_not(session):
    vault: dict[str, str] = {}
    redacting = RedactingMiddleware(vault=vault)
    session.add_middleware(redacting)
    reply = await session.send_message("From a@b.example to c@d.example")
    assert "example" not in (await session.get_messages())[0].text
    assert redacting.reveal(reply.text) == "You said: From a@b.example to c@d.example"
    assert len(vault) == 2


def test_the_same_value_has_the_same_placeholder_wherever_the_key_is_the_same():
    one, other = (
        RedactingMiddleware(vault={}, key=b"k").redacted_text("a@b.example") for _ in "ab"
    )
    assert one == other
    assert one != RedactingMiddleware(vault={}, key=b"l").redacted_text("a@b.example")


def test_without_a_vault_nothing_is_put_back():
    with pytest.raises(InvalidInputError, match="vault"):
        RedactingMiddleware().reveal("[email]")


def test_a_detector_of_ones_own():
    ticket = Detector("ticket", re.compile(r"\bT-\d+\b"))
    assert RedactingMiddleware([ticket]).redacted_text("T-17 a@b.example") == "[ticket] a@b.example"
    with pytest.raises(InvalidInputError, match="Detector"):
        RedactingMiddleware(["ticket"])  # type: ignore[list-item]


def test_no_detector_takes_a_placeholder_for_a_number():
    # Of 2,000 digests several are eight digits that begin with a zero, as a phone's number does.
    redacting = RedactingMiddleware(vault={}, key=b"k")
    texts = [f"{number}@b.example" for number in range(2_000)]
    replaced = [redacting.redacted_text(text) for text in texts]
    assert [redacting.redacted_text(text) for text in replaced] == replaced
    assert [redacting.reveal(text) for text in replaced] == texts


@given(messages())
@settings(max_examples=60)
def test_redacting_again_changes_nothing(message):
    redacting = RedactingMiddleware()
    once = redacting.redacted(message)
    assert redacting.redacted(once) == once


@given(st.text(max_size=50), st.text(max_size=50))
@settings(max_examples=60)
def test_what_was_replaced_comes_back_as_it_was(before, after):
    redacting = RedactingMiddleware(vault={})
    text = f"{before} a@b.example {after}"
    assert redacting.reveal(redacting.redacted_text(text)) == text
