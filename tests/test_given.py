"""What a caller gives as messages."""

import pytest

from langswarm_session import InvalidInputError, MessageRole, SessionMessage
from langswarm_session.given import text_message


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
