"""Conversations as text: the chat template in Jinja, and which of its characters the assistant says.

Templates mark the assistant's words with transformers' `{% generation %}` tag; the supervised mask comes from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chatwheel.errors import InputError

END_OF_TEXT, SYSTEM, USER, ASSISTANT, END = SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{%- else -%}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)

# A base model's: the messages as lines of a document that it goes on with.
PLAIN_TEMPLATE = "{{- '<|endoftext|>' -}}{%- for message in messages -%}{{ message['content'] + '\n' }}{%- endfor -%}"

# Private-use characters that mark where the assistant's words begin and end while a template renders.
_BEGIN, _FINISH = "\ue0f0", "\ue0f1"


class _Generation(Extension):
    """Jinja's `{% generation %}...{% endgeneration %}`: renders its body between two marks."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{_BEGIN}{caller()}{_FINISH}"


@dataclass(frozen=True)
class Rendered:
    """A conversation as text; `spans` are the (begin, end) character ranges that the assistant says."""

    text: str
    spans: tuple[tuple[int, int], ...]


class ChatTemplate:
    """A compiled template. Renders in a sandbox: a template from the Hub is data, not code."""

    def __init__(self, source: str = CHAT_TEMPLATE, special_tokens: Sequence[str] = SPECIAL_TOKENS) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation])
        environment.globals["raise_exception"] = _refuse
        self.source = source
        self._forbidden = (*special_tokens, _BEGIN, _FINISH)
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise InputError(f"the chat template is damaged (line {error.lineno}: {error.message})") from None

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> Rendered:
        """The text of `{"role", "content"}` messages. Special tokens inside a content are taken out of it, so that
        nobody can end a turn, or speak for the assistant, from within a message."""
        clean = [{"role": m["role"], "content": self.without_special_tokens(m["content"])} for m in messages]
        marked = self._template.render(messages=clean, add_generation_prompt=add_generation_prompt)
        text, spans, length = [], [], 0
        for i, piece in enumerate(marked.replace(_FINISH, _BEGIN).split(_BEGIN)):
            text.append(piece)
            if i % 2:
                spans.append((length, length + len(piece)))
            length += len(piece)
        return Rendered("".join(text), tuple(spans))

    def without_special_tokens(self, content: str) -> str:
        """Text that nothing but text can be read out of."""
        before = None
        while before != content:  # taking one out may put another together
            before = content
            for token in self._forbidden:
                content = content.replace(token, "")
        return content


def _refuse(message: str) -> None:
    raise InputError(f"the chat template refuses this conversation: {message}")
