"""A model that calls tools, for versions of LlamaIndex that bring none along."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata, ToolCallBlock
from llama_index.core.llms import MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import PrivateAttr


class CallingLLM(MockLLM, FunctionCallingLLM):
    """Answers with what a function makes of the messages, whole or streamed."""

    _answer: Callable[..., ChatMessage] = PrivateAttr()

    def __init__(self, answer: Callable[..., ChatMessage]) -> None:
        super().__init__()
        self._answer = answer

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, is_function_calling_model=True)

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        return ChatResponse(message=self._answer(messages))

    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        return self.chat(messages)

    def stream_chat(
        self, messages: Sequence[ChatMessage], **_: Any
    ) -> Generator[ChatResponse, None, None]:
        whole = self.chat(messages)
        text = str(whole.message.content)
        for end in range(1, len(text)):
            part = ChatMessage(text[:end], role="assistant")
            yield ChatResponse(message=part, delta=text[end - 1])
        yield whole

    async def astream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        async def stream() -> AsyncGenerator[ChatResponse, None]:
            for response in self.stream_chat(messages):
                yield response

        return stream()

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        new = [ChatMessage(user_msg)] if isinstance(user_msg, str) else [user_msg]
        return {"messages": [*(chat_history or ()), *filter(None, new)]}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **_: Any
    ) -> list[ToolSelection]:
        return [
            ToolSelection(
                tool_id=block.tool_call_id or "",
                tool_name=block.tool_name,
                tool_kwargs=block.tool_kwargs,
            )
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]
