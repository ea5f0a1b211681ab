"""The requests of POST /tokenize, /detokenize (in vLLM's shapes) and /score."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.data.records import Message
from chatwheel.errors import InputError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.server.chat_completions import ChatMessage
from chatwheel.server.sampling import TokenId
from chatwheel.server.tools import Tool, check_calls, tool_use

Json = dict[str, Any]
Conversation = Annotated[list[ChatMessage], Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: str = Field(min_length=1, max_length=1000)


class TokenizeRequest(_Body):
    """A text, or a conversation. add_special_tokens: whether a text begins with `<s>`, where there is one; a template
    says it of conversations. add_generation_prompt: whether the assistant is about to speak. return_token_strs: each
    token as it is written, too."""

    prompt: str | None = None
    messages: Conversation | None = None
    tools: list[Tool] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool | None = None

    def read(self, tokenizer: Tokenizer) -> list[int]:
        """The tokens. Raises InputError."""
        if (self.prompt is None) == (self.messages is None):
            raise InputError("Give prompt or messages, one of them.", param="prompt")
        if self.prompt is not None:
            if not self.prompt:
                return []
            return tokenizer.encode_text(self.prompt) if self.add_special_tokens else tokenizer.encode(self.prompt)
        messages = [message.model_dump() for message in records(self.messages or [])]
        tools = tool_use(self.tools, None, None)
        rendered = tokenizer.template.render(
            messages,
            add_generation_prompt=self.add_generation_prompt,
            tools=None if tools is None else tools.definitions(),
        )
        return tokenizer.encode(rendered.text)


class DetokenizeRequest(_Body):
    """Tokens that become text, special ones as they are written."""

    tokens: list[TokenId]


class ScoreRequest(_Body):
    """A conversation that ends with an answer, or several of them."""

    messages: Conversation | None = None
    conversations: Annotated[list[Conversation], Field(min_length=1, max_length=2048)] | None = None

    def records(self) -> list[list[Message]]:
        """Each conversation. Raises InputError."""
        if (self.messages is None) == (self.conversations is None):
            raise InputError("Give messages or conversations, one of them.", param="messages")
        return [records(conversation) for conversation in self.conversations or [self.messages or []]]


def records(messages: list[ChatMessage]) -> list[Message]:
    """Messages as the assistant takes them. Raises InputError."""
    check_calls(messages)
    return [message.to_record() for message in messages]


def score_list(model: str, scores: list[float], usage: Json) -> Json:
    """The answer, in vLLM's shape."""
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
    shared = {"id": f"score-{secrets.token_hex(14)}", "object": "list", "created": int(time.time()), "model": model}
    return shared | {"data": data, "usage": usage}
