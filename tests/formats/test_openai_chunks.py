from __future__ import annotations

import itertools

import pytest

from langswarm_session.formats.openai_chat import from_completion
from langswarm_session.formats.openai_chunks import ChunkAssembler, Piece


def assembled(*deltas):
    """The reply that deltas make, and what was shown of it."""
    whole = ChunkAssembler()
    pieces = [whole.add({"choices": [{"delta": delta}]}) for delta in deltas]
    whole.add({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    shown = Piece(*("".join(texts) for texts in zip(*pieces, strict=True)))
    return from_completion(whole.completion(), "m"), shown


def calls_of(*pieces):
    reply, _ = assembled(*({"tool_calls": [piece]} for piece in pieces))
    return [(block.id, block.name, block.args) for block in reply.blocks]


def piece(text="", *, name=None, index=0, **more):
    function = {"arguments": text, **({"name": name} if name else {})}
    return {"index": index, "function": function, **more}


OSLO, CET = '{"city":"Oslo"}', '{"zone":"CET"}'
TWO = [("a", "weather", {"city": "Oslo"}), ("b", "clock", {"zone": "CET"})]


class TestCalls:
    def test_in_pieces_that_alternate(self):
        """https://github.com/QwenLM/Qwen-Agent/pull/943."""
        first = [piece(name="weather", id="a"), piece(name="clock", index=1, id="b")]
        rest = [piece(OSLO[:5]), piece(CET[:5], index=1), piece(OSLO[5:]), piece(CET[5:], index=1)]
        assert calls_of(*first, *rest) == TWO

    def test_in_any_order(self):
        assert calls_of(
            piece(CET, name="clock", index=1, id="b"), piece(OSLO, name="weather", id="a")
        ) == TWO  # fmt: skip

    def test_whole_with_one_number_for_all(self):
        """https://github.com/NousResearch/hermes-agent/pull/3468 (Ollama)."""
        assert (
            calls_of(piece(OSLO, name="weather", id="a"), piece(CET, name="clock", id="b")) == TWO
        )

    @pytest.mark.parametrize("second", ["weather", "clock"])
    def test_whole_without_ids(self, second):
        """https://github.com/huggingface/smolagents/pull/1958."""
        made = calls_of(piece(OSLO, name="weather"), piece(CET, name=second))
        assert made == [(None, "weather", {"city": "Oslo"}), (None, second, {"zone": "CET"})]

    def test_without_numbers(self):
        whole = [piece(OSLO, name="weather", index=None, id="a"),
                 piece(name="clock", index=None, id="b"), piece(CET, index=None)]  # fmt: skip
        assert calls_of(*whole) == TWO

    def test_with_id_and_name_in_each_piece(self):
        pieces = [piece(text, name="weather", id="a") for text in (OSLO[:4], OSLO[4:])]
        assert calls_of(*pieces) == TWO[:1]

    def test_with_the_id_in_a_later_piece(self):
        assert calls_of(piece(name="weather"), piece(OSLO, id="a")) == TWO[:1]

    def test_with_an_empty_id_in_later_pieces(self):
        pieces = [piece(name="weather", id="a"), piece(OSLO[:4], id=""), piece(OSLO[4:], id="")]
        assert calls_of(*pieces) == TWO[:1]

    def test_with_arguments_as_an_object(self):
        assert calls_of(piece({"city": "Oslo"}, name="weather", id="a")) == TWO[:1]

    def test_with_fields_of_the_servers_own(self):
        extra = {"google": {"thought_signature": "s"}}
        reply, _ = assembled(
            {"tool_calls": [piece(OSLO, name="weather", id="a", extra_content=extra)]}
        )
        assert reply.blocks[0].extras == {"fields": {"extra_content": extra}}

    def test_in_the_legacy_form(self):
        reply, _ = assembled(
            {"function_call": {"name": "weather", "arguments": ""}},
            *({"function_call": {"arguments": text}} for text in (OSLO[:3], OSLO[3:])),
        )
        assert [(block.name, block.args) for block in reply.blocks] == [TWO[0][1:]]


class TestReasoning:
    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
    def test_in_a_field(self, field):
        reply, shown = assembled({field: "H"}, {field: "m."}, {"content": "So."})
        assert shown == ("So.", "Hm.")
        assert [(b.type, b.extras) for b in reply.blocks] == [
            ("reasoning", {"field": field}),
            ("text", None),
        ]

    def test_in_two_fields_is_shown_once(self):
        both = [{"reasoning": text, "reasoning_content": text} for text in ("H", "m.")]
        reply, shown = assembled(*both, {"content": "So."})
        assert shown.reasoning == "Hm."
        assert [block.type for block in reply.blocks] == ["reasoning", "text"]

    def test_in_parts(self):
        """https://openrouter.ai/docs/use-cases/reasoning-tokens."""
        parts = [
            {"type": "reasoning.text", "text": "H", "index": 0},
            {"type": "reasoning.text", "text": "m.", "signature": "s", "index": 0},
            {"type": "reasoning.encrypted", "data": "e", "id": "r", "index": 1},
        ]
        reply, shown = assembled(*({"reasoning_details": [part]} for part in parts))
        (block,) = reply.blocks
        assert (block.reasoning, shown.reasoning) == ("Hm.", "")
        assert block.extras["reasoning_details"] == [
            {"type": "reasoning.text", "text": "Hm.", "signature": "s", "index": 0},
            parts[2],
        ]

    def test_in_chunks_of_the_content(self):
        """https://docs.mistral.ai/studio-api/conversations/reasoning."""

        def thinking(text):
            return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}

        reply, shown = assembled(
            {"content": ""}, thinking("H"), thinking("m."),
            {"content": [{"type": "text", "text": "S"}]}, {"content": "o."},
        )  # fmt: skip
        assert shown == ("So.", "Hm.")
        assert [(b.type, getattr(b, "text", None) or b.reasoning) for b in reply.blocks] == [
            ("reasoning", "Hm."),
            ("text", "So."),
        ]


def test_sound_in_pieces_that_are_encoded_one_by_one():
    reply, shown = assembled(
        {"audio": {"id": "audio_1", "transcript": "He"}},
        {"audio": {"data": "YQ==", "transcript": "ar."}},
        {"audio": {"data": "Yg=="}},
    )
    (block,) = reply.blocks
    assert (block.base64, block.extras) == ("YWI=", {"id": "audio_1", "transcript": "Hear."})
    assert shown.text == "Hear."


def test_lists_and_other_fields():
    reply, _ = assembled(
        {"role": "assistant", "content": "So.", "annotations": [{"n": 1}], "more": 1},
        {"annotations": [{"n": 2}], "more": 2, "thinking_blocks": [3]},
    )
    assert reply.blocks[0].annotations == [{"n": 1}, {"n": 2}]
    assert reply.native == {
        "openai_chat": {"set": {"more": 2, "thinking_blocks": [3]}, "without": []}
    }


@pytest.mark.parametrize(
    "chunk",
    [{}, {"choices": None}, {"choices": []}, {"choices": [{"delta": None}]},
     {"choices": [{"delta": {"content": None, "tool_calls": None}}]}],
)  # fmt: skip
def test_chunks_with_nothing_in_them(chunk):
    whole = ChunkAssembler()
    assert whole.add(chunk) == Piece()
    assert not whole.is_complete


def test_pieces_come_in_any_sizes():
    for size in itertools.islice(itertools.count(1), 6):
        texts = [OSLO[at : at + size] for at in range(0, len(OSLO), size)]
        assert calls_of(piece(name="weather", id="a"), *map(piece, texts)) == TWO[:1]


def test_thinking_of_litellm_comes_in_pieces():
    """https://github.com/BerriAI/litellm/issues/29428: none can go back as it came."""
    blocks = [
        {"type": "thinking", "thinking": "Step 1. ", "signature": ""},
        {"type": "thinking", "thinking": "Step 2.", "signature": ""},
        {"type": "thinking", "thinking": "", "signature": "one"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "So.", "signature": ""},
        # The whole text again: https://github.com/open-webui/open-webui/pull/29860.
        {"type": "thinking", "thinking": "So.", "signature": "two"},
    ]
    reply, _ = assembled(*({"thinking_blocks": [block]} for block in blocks))
    assert reply.native["openai_chat"]["set"]["thinking_blocks"] == [
        {"type": "thinking", "thinking": "Step 1. Step 2.", "signature": "one"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "So.", "signature": "two"},
    ]


def test_reasoning_of_copilot():
    """https://github.com/BerriAI/litellm/issues/35021."""
    reply, shown = assembled(
        {"role": "assistant", "reasoning_text": "Hm, "},
        {"role": "assistant", "reasoning_text": "yes."},
        {"content": "Yes.", "reasoning_opaque": "sealed"},
    )
    assert shown == Piece("Yes.", "Hm, yes.")
    assert reply.blocks[0].reasoning == "Hm, yes."
    assert reply.native["openai_chat"]["set"] == {"reasoning_opaque": "sealed"}


def test_each_piece_of_a_call_has_an_id_of_its_own():
    """https://github.com/poolsideai/pool/issues/9: the first has the name as well."""
    pieces = [piece(OSLO[:5], name="weather", id="a"), piece(OSLO[5:9], id="x"),
              piece(OSLO[9:], id="x")]  # fmt: skip
    assert calls_of(*pieces) == TWO[:1]


def test_unknown_text_in_pieces():
    reply, _ = assembled({"note": "a"}, {"note": "bc"}, {"note": "abc"})
    assert reply.native["openai_chat"]["set"] == {"note": "abc"}


@pytest.mark.parametrize(
    ("delta", "shown"),
    [
        ({"content": 4}, "4"),
        ({"content": {"type": "text", "text": "a"}}, "a"),
        ({"content": ["a", None, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": "a", "tool_calls": [None], "refusal": False}, "a"),
    ],
)
def test_values_of_other_types(delta, shown):
    reply, piece = assembled(delta)
    assert (reply.text, piece.text) == (shown, shown)


def test_a_legacy_call_whose_arguments_are_an_object():
    reply, _ = assembled({"function_call": {"name": "weather", "arguments": {"city": "Oslo"}}})
    assert reply.blocks[0].args == {"city": "Oslo"}


def test_sound_that_is_cut_anywhere():
    reply, _ = assembled({"audio": {"id": "a", "data": "YW"}}, {"audio": {"data": "Jj"}})
    assert reply.blocks[0].base64 == "YWJj"


def test_a_whole_message_in_one_chunk():
    whole = ChunkAssembler()
    message = {"role": "assistant", "content": "Hi."}
    assert whole.add({"choices": [None, {"message": message, "finish_reason": "stop"}]}).text
    assert from_completion(whole.completion(), "m").text == "Hi."


def test_other_choices_are_not_mixed_in():
    whole = ChunkAssembler()
    choices = [{"index": number, "delta": {"content": text}} for number, text in enumerate("ab")]
    assert whole.add({"choices": choices}) == Piece("a")


def test_a_character_that_is_cut_in_two():
    reply, _ = assembled({"content": "a\ud83d"}, {"content": "\ude00"})
    assert reply.text == "a\U0001f600"
