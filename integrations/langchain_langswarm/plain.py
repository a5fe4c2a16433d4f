"""What LangChain's messages may hold, as JSON values, and back.

Documents (which retriever tools leave as artifacts) come back as documents. Of any other pydantic
object (such as what structured output leaves in a message) the data is kept, and comes back as
plain data.
"""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from langswarm_session.errors import InvalidInputError
from langswarm_session.formats.plain import Kind, PlainValues

FORMAT = "langchain"
"""The key of LangChain's own part in `SessionMessage.native`."""


def _data_of(value: Any) -> Any:
    """Return what a pydantic object holds."""
    if not isinstance(value, BaseModel):
        return NotImplemented
    try:
        return value.model_dump(mode="json")
    except PydanticSerializationError as error:
        kind = type(value)
        raise InvalidInputError(
            f"the data of a {kind.__module__}.{kind.__qualname__} in a message is not JSON: {error}"
        ) from error


# Not validated: its fields may have been assigned since, and the message is still readable.
_DOCUMENT = Kind(
    "$document",
    lambda value: type(value) is Document,
    dict,
    lambda parts: Document.model_construct(**parts),
)
_values = PlainValues(
    [_DOCUMENT], _data_of, takes="tuples, bytes, LangChain documents or pydantic objects"
)
encode = _values.encode
decode = _values.decode
