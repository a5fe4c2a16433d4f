"""A model for the Agents SDK that answers by script; older versions of the SDK bring none along."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from agents.items import ModelResponse
from agents.models.interface import Model
from agents.usage import Usage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

Step = list[Any] | Exception
"""The output items of one answer, or what the model fails with."""


def assistant_message(text: str, item_id: str = "msg") -> ResponseOutputMessage:
    """What the model says."""
    part = ResponseOutputText(text=text, type="output_text", annotations=[], logprobs=[])
    return ResponseOutputMessage(
        id=item_id, content=[part], role="assistant", status="completed", type="message"
    )


def function_call(
    name: str, arguments: dict[str, Any], call_id: str, item_id: str
) -> ResponseFunctionToolCall:
    """A tool that the model calls."""
    return ResponseFunctionToolCall(
        id=item_id,
        call_id=call_id,
        name=name,
        arguments=json.dumps(arguments),
        type="function_call",
        status="completed",
    )


class ScriptedModel(Model):
    """Gives the next answer of a script each time that it is asked.

    Attributes:
        inputs: What it was sent, call by call.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.inputs: list[Any] = []
        self._steps = iter(steps)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        output = self._next(args, kwargs)
        return ModelResponse(output=output, usage=Usage(requests=1), response_id="resp")

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        response = Response(
            id="resp",
            created_at=0,
            model="scripted",
            object="response",
            output=self._next(args, kwargs),
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
        )
        yield ResponseCompletedEvent(
            response=response, sequence_number=0, type="response.completed"
        )

    def _next(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        given = args[1] if len(args) > 1 else kwargs["input"]
        self.inputs.append(copy.deepcopy(given))
        step = next(self._steps)
        if isinstance(step, Exception):
            raise step
        return step
