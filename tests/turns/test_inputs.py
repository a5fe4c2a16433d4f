"""What a caller gives as messages."""

import pytest

from langswarm_session import InvalidInputError, MessageRole, SessionMessage
from langswarm_session.turns.inputs import digest_of, text_message, with_turn_context


@pytest.mark.parametrize("native", [None, {"a_door": {"id": None}}])
def test_a_message_of_a_text_is_the_one_that_validating_makes(native):
    made = text_message(MessageRole.USER, "Zoë 漢字 🤖", native)
    validated = SessionMessage(role="user", content="Zoë 漢字 🤖", native=native)
    same = validated.replaced(id=made.id, timestamp=made.timestamp)
    assert made == same
    assert made.model_dump() == same.model_dump()
    assert made.timestamp <= validated.timestamp
    assert made.id != text_message(MessageRole.USER, "x").id


def test_half_a_character_makes_no_message():
    with pytest.raises(InvalidInputError, match="half a character"):
        text_message(MessageRole.USER, "a\ud800")


class TestTurnContext:
    def test_stands_behind_what_was_said_and_is_not_in_its_text(self):
        message = with_turn_context(SessionMessage(role="user", content="Hi"), "It is Monday.")
        assert [block.text for block in message.blocks] == ["Hi", "It is Monday."]
        assert message.text == "Hi"

    def test_a_retry_may_have_another(self):
        plain = SessionMessage(role="user", content="Hi")
        monday, tuesday = (with_turn_context(plain, day) for day in ("Monday", "Tuesday"))
        assert digest_of([monday]) == digest_of([tuesday]) == digest_of([plain])
        other = with_turn_context(SessionMessage(role="user", content="Ho"), "Monday")
        assert digest_of([other]) != digest_of([monday])

    @pytest.mark.parametrize(
        ("role", "text", "said"),
        [
            ("user", "", "must not be empty"),
            ("user", 5, "must be a text, got int"),
            ("system", "x", "goes with a user's message, not with one of system"),
        ],
    )
    def test_what_is_none_is_refused(self, role, text, said):
        with pytest.raises(InvalidInputError, match=said):
            with_turn_context(SessionMessage(role=role, content="Hi"), text)
