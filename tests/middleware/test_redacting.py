from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langswarm_session import (
    Detector,
    ImageBlock,
    InvalidInputError,
    MockProviderSession,
    OtherBlock,
    ReasoningBlock,
    RedactingMiddleware,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.middleware import redacting
from langswarm_session.middleware.detectors import EMAIL
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
    assert redacting.reveal(reply.text) == reply.text
    assert redacting.reveal(reply.text, user_id="someone else") == reply.text
    revealed = redacting.reveal(reply.text, user_id=session.user_id)
    assert revealed == "You said: From a@b.example to c@d.example"
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


def test_names_of_keys_hide_nothing():
    call = ToolCallBlock(
        id="c",
        name="f",
        args={
            "id": "a@b.example",
            "type": "sk-abcdefghijklmnopqrstuv",
            "base64": "a@b.example",
            "signature": "stays",
            "note": "a@b.example",
        },
    )
    value = {"id": "a@b.example", "item_id": "a@b.example", "nothing": None}
    message = SessionMessage(
        role="assistant",
        content=[call, OtherBlock(value=value)],
        metadata=value,
        native={"x": {"file_id": "a@b.example", "tool_calls": [{"id": "c"}]}},
    )
    redacted = RedactingMiddleware().redacted(message)
    assert redacted.content == [
        ToolCallBlock(
            id="c",
            name="f",
            args={
                "id": "[email]",
                "type": "[api_key]",
                "base64": "[email]",
                "signature": "stays",
                "note": "[email]",
            },
        ),
        OtherBlock(value={"id": "[email]", "item_id": "[email]", "nothing": None}),
    ]
    assert redacted.metadata == {"id": "[email]", "item_id": "[email]", "nothing": None}
    assert redacted.native == {"x": {"file_id": "[email]", "tool_calls": [{"id": "c"}]}}


def test_keys_are_redacted_and_none_is_lost():
    metadata = {"a@b.example": 1, "c@d.example": 2, "[email] 2": 3, "plain": {"e@f.example": 4}}
    redacted = RedactingMiddleware().redacted(
        SessionMessage(role="user", content="hi", metadata=metadata)
    )
    assert "@" not in redacted.model_dump_json()
    assert sorted(map(str, redacted.metadata.values())) == ["1", "2", "3", "{'[email]': 4}"]
    assert RedactingMiddleware().redacted(redacted) is redacted


def test_many_keys_that_become_alike_are_numbered_in_linear_time():
    count = 20_000
    asked = 0

    class Taken(dict):
        def __contains__(self, key):
            nonlocal asked
            asked += 1
            return super().__contains__(key)

    taken, numbers = Taken(), {}
    for number in range(count):
        taken[redacting._unused("[email]", taken, {"[email] 7": 1}, numbers)] = number
    assert len(taken) == count
    assert "[email] 7" not in list(taken)
    assert asked < 3 * count


def test_numbers_that_are_cards_are_redacted():
    metadata = {"card": 4111111111111111, "time": 1764500000000000, "count": 7, "yes": True}
    metadata |= {"big": 1e300, "not": float("inf"), "part": 0.5}
    redacted = RedactingMiddleware().redacted(
        SessionMessage(
            role="user", content="hi", metadata={**metadata, "float": 4111111111111111.0}
        )
    )
    assert redacted.metadata == {**metadata, "card": "[card]", "float": "[card]"}


def test_a_frameworks_copy_keeps_ids_and_payloads_and_no_revoked_proof():
    blocks = [
        ReasoningBlock(reasoning="a@b.example", signature="revoked"),
        ReasoningBlock(reasoning="fine", signature="proof"),
        ToolResultBlock(
            tool_call_id="0701234567", content=[ImageBlock(base64="0701234567AA", file_id="f")]
        ),
    ]
    native = {
        "door": [
            {"thinking": "a@b.example", "signature": "revoked"},
            {"thinking": "fine", "signature": "proof"},
            {"tool_call_id": "0701234567", "data": "0701234567AA", "phone": "+46701234568"},
        ]
    }
    redacted = RedactingMiddleware().redacted(
        SessionMessage(role="assistant", content=blocks, native=native)
    )
    assert redacted.content == [ReasoningBlock(reasoning="[email]"), *blocks[1:]]
    assert redacted.native == {
        "door": [
            {"thinking": "[email]"},
            {"thinking": "fine", "signature": "proof"},
            {"tool_call_id": "0701234567", "data": "0701234567AA", "phone": "[phone]"},
        ]
    }


@pytest.mark.parametrize("place", ["content", "metadata", "native", "block"])
async def test_a_long_message_is_searched_in_another_thread(session, place):
    threads = []

    class Watching(Detector):
        def spans(self, text):
            threads.append(threading.get_ident())
            return super().spans(text)

    redacting = RedactingMiddleware([Watching("email", EMAIL.pattern)])
    long = "a@b.example " + "word " * 4_000
    fields = {"content": "hi"}
    fields |= {"block": {"content": [TextBlock(text=long)]}, "content": {"content": long}}.get(
        place, {place: {"x": [long]}}
    )
    message = SessionMessage(role="user", **fields)
    redacted = await redacting.process_outgoing_message(session, message)
    assert "a@b.example" not in redacted.model_dump_json()
    assert threading.get_ident() not in threads
    threads.clear()
    await redacting.process_outgoing_message(session, SessionMessage(role="user", content="hi"))
    assert set(threads) == {threading.get_ident()}


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
