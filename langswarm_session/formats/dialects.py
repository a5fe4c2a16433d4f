"""How a server speaks Chat Completions, as far as servers differ in what they take."""

from __future__ import annotations

from dataclasses import dataclass

from langswarm_session.requests.normalize.target import SystemPlacement


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server speaks Chat Completions. The defaults are what the strictest servers take.

    Attributes:
        name: What it is known by.
        system: Where system messages may be.
        alternates: Whether user and assistant must take turns, the user first: messages of one
            speaker in a row are joined.
        answers_results: Whether the assistant must speak between a tool's results and the user.
        needs_user: Whether the last message must not be the assistant's.
        takes_calls: Whether calls of tools and their results can be sent; else they are put into
            words.
        call_id_length: How long a call's id may be.
        call_id_exact: How many letters and digits an id has, and nothing else; None where ids may
            differ in length.
        any_call_id: Whether it may have other characters than letters, digits, ``_`` and ``-``.
        returns_reasoning: Whether a model is sent its own reasoning back, in the field that it
            came in.
        needs_reasoning: The reasoning field that a message with calls must have, empty if the model
            gave none; None where no field is required.
        call_signature: What stands for the signature of a call that the model did not make; None
            where calls have none.
        echoes: Whether fields that this package does not know, and ids with other characters, go
            back to the model that gave them.
        content_of_calls: The content of a message that has calls and no text.
        takes_parts: Whether content may be a list of parts where it is all text.
        takes_images: Whether a user's content may have pictures; elsewhere they are put into words.
        takes_audio: Whether it may have sound.
        takes_files: Whether it may have files.
        takes_names: Whether users' messages may have names.
        takes_refusals: Whether the assistant's messages have a field for refusals; elsewhere they
            are text.
        streams_usage: Whether it takes ``stream_options``.
        takes_cache_key: Whether it takes ``prompt_cache_key``.
    """

    name: str = "strict"
    system: SystemPlacement = SystemPlacement.FIRST
    alternates: bool = True
    answers_results: bool = False
    needs_user: bool = False
    takes_calls: bool = True
    call_id_length: int = 40
    call_id_exact: int | None = None
    any_call_id: bool = False
    returns_reasoning: bool = True
    needs_reasoning: str | None = None
    call_signature: str | None = None
    echoes: bool = True
    content_of_calls: str | None = None
    takes_parts: bool = True
    takes_images: bool = True
    takes_audio: bool = True
    takes_files: bool = True
    takes_names: bool = True
    takes_refusals: bool = False
    streams_usage: bool = True
    takes_cache_key: bool = False


OPENAI = Dialect(
    "openai",
    system=SystemPlacement.ANYWHERE,
    alternates=False,
    returns_reasoning=False,
    echoes=False,
    takes_refusals=True,
    takes_cache_key=True,
)
"""OpenAI itself (https://developers.openai.com/api/reference/resources/chat): its completions give
no reasoning."""
