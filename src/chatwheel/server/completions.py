"""The request and the answer of POST /v1/completions, field by field as OpenAI has them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from chatwheel.engine.detokenizer import spelled
from chatwheel.engine.requests import Completion, Delta, SamplingParams
from chatwheel.errors import InputError
from chatwheel.model.fill_in_the_middle import fill_in_the_middle
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.server.logprobs import LegacyLogprobs
from chatwheel.server.sampling import SamplingFields, TokenId

Json = dict[str, Any]
Tokens = Annotated[list[TokenId], Field(min_length=1)]
MAX_TOKENS = 16
"""OpenAI's default."""
MAX_ANSWERS = 256
"""Of all prompts together."""


class CompletionRequest(SamplingFields):
    """The body. A prompt is text, or tokens; several are answered each. best_of: so many answers to each prompt, of
    which the n likeliest (by mean log-prob) are given. max_tokens: 0 with `echo` only."""

    prompt: str | Annotated[list[str], Field(min_length=1)] | Tokens | Annotated[list[Tokens], Field(min_length=1)]
    suffix: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    best_of: int | None = Field(None, ge=1, le=20)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)

    def check(self) -> None:
        """What no single field can tell. Raises InputError that names the field."""
        self.check_stream()
        if self.max_tokens == 0 and not self.echo:
            raise InputError("max_tokens is 0 and echo is not set, so there is nothing to give.", param="max_tokens")
        if self.suffix and self.echo:
            raise InputError("echo is not possible with suffix; set one of them.", param="echo")
        if self.best_of is not None and self.best_of < self.num_shown:
            raise InputError(f"best_of is {self.best_of}; it must be at least n, {self.num_shown}.", param="best_of")
        if self.stream and self.num_answers > self.num_shown:
            raise InputError("best_of can't be streamed: the best is known at the end.", param="best_of")
        if len(self.prompts()) * self.num_answers > MAX_ANSWERS:
            raise InputError(
                f"{len(self.prompts())} prompts with {self.num_answers} answers each; at most {MAX_ANSWERS} answers "
                "at a time.",
                param="prompt",
            )

    @property
    def num_shown(self) -> int:
        """Answers to a prompt that are given."""
        return self.n or 1

    @property
    def num_answers(self) -> int:
        """Answers to a prompt that are written."""
        return max(self.best_of or 1, self.num_shown)

    @property
    def room(self) -> int:
        """Tokens that an answer may have."""
        return MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def prompts(self) -> Sequence[str | Sequence[int]]:
        """Each prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt

    def read(self, tokenizer: Tokenizer) -> list[Prompt]:
        """The prompts as the model reads them. Raises InputError."""
        return [self._read(prompt, tokenizer) for prompt in self.prompts()]

    def _read(self, prompt: str | Sequence[int], tokenizer: Tokenizer) -> Prompt:
        if self.suffix:
            if not isinstance(prompt, str):
                raise InputError("with suffix the prompt must be text.", param="prompt")
            return Prompt(*fill_in_the_middle(tokenizer, prompt, self.suffix))
        ids = tokenizer.encode_text(prompt) if isinstance(prompt, str) else list(prompt)
        if not self.echo:
            return Prompt(ids)
        text, begins = spelled(tokenizer, ids)
        if isinstance(prompt, str):  # what begins a text (`<s>`) is not part of it
            added = max(0, len(text) - len(prompt))
            text, begins = prompt, [min(max(0, begin - added), len(prompt)) for begin in begins]
        return Prompt(ids, text=text, begins=begins)

    def sampling(self, prompt: Prompt, choice: int) -> SamplingParams:
        """How to choose the tokens of one of the answers to a prompt."""
        return self.params(
            choice,
            max_tokens=max(1, self.room),
            stop_token_ids=prompt.ends,
            logprobs=self.logprobs is not None,
            top_logprobs=self.logprobs or 0,
            prompt_logprobs=bool(self.echo) and self.logprobs is not None,
        )


class Prompt(NamedTuple):
    """A prompt's tokens, and further ones that end its answer. text, begins: as it is echoed, and where in that each
    token begins."""

    ids: list[int]
    ends: tuple[int, ...] = ()
    text: str = ""
    begins: Sequence[int] = ()


class Writer:
    """Makes one choice's text and log-probs of its pieces."""

    def __init__(self, body: CompletionRequest, prompt: Prompt, tokenizer: Tokenizer) -> None:
        self._body, self._prompt, self._tokenizer = body, prompt, tokenizer
        self._echoed = not body.echo
        self._told = 0

    def piece(self, delta: Delta) -> tuple[str, Json | None]:
        """The text that a piece brings, and its tokens; those that end an answer come with the last piece."""
        gathered, text = LegacyLogprobs(self._tokenizer), "" if self._body.room == 0 else delta.text
        begin = len(self._prompt.text)
        if not self._echoed:
            self._echoed, text = True, self._prompt.text + text
            if self._body.logprobs is not None:
                gathered.add_prompt(self._prompt.ids, self._prompt.begins, delta.prompt)
        if self._body.room:
            tokens = delta.tokens if delta.completion is None else delta.completion.tokens[self._told :]
            gathered.add(tokens, begin)
            self._told += len(tokens)
        return text, gathered.json() if self._body.logprobs is not None else None


def mean_logprob(completion: Completion) -> float:
    """How likely the model found its answer, whatever its length."""
    return sum(completion.logprobs) / max(1, len(completion.logprobs))


@dataclass(frozen=True)
class CompletionFormat:
    """What all objects of one answer share."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def choice(self, index: int, text: str, logprobs: Json | None, reason: str | None) -> Json:
        """One of `choices`."""
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def object(self, choices: Sequence[Json], usage: Json | None = None, *, with_usage: bool = True) -> Json:
        """The whole answer, or a chunk of it."""
        shared = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        extra: Json = {"usage": usage} if with_usage else {}
        return shared | {"system_fingerprint": self.fingerprint, "choices": list(choices)} | extra


def finish_reason(completion: Completion, room: int) -> str:
    """OpenAI's word for why the answer ended."""
    return "length" if completion.finish_reason == "length" or not room else "stop"
