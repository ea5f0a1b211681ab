"""One answer: a conversation or a text goes in, the engine's text comes out, or what it thinks of what it has read. The
doors (server, terminal) know only this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from chatwheel.data.records import Message
from chatwheel.engine.adapters import place_of, version_of
from chatwheel.engine.engine import Counts, Engine
from chatwheel.engine.metrics import Metrics
from chatwheel.engine.requests import Completion, Delta, Request, SamplingParams, Task
from chatwheel.engine.service import EngineService, Speaking
from chatwheel.engine.structured import SpecialToken, schema_of
from chatwheel.engine.tools import CallReader, ToolUse, call_grammar, shown_tokens
from chatwheel.errors import InputError
from chatwheel.model.checkpoint import load_tokenizer
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import is_adapter, read_object
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.store.loading import is_reward_model, open_draft, open_model, reward_scale

Backend = Literal["chatwheel", "vllm"]
Turn = Message | Mapping[str, Any]
MAX_RUNNING = 32
MAX_WAITING = 512
GREEDY = SamplingParams(temperature=0.0)
SHORT, FEW = 2000, 32
"""Characters and turns of a conversation that takes less time to encode than to hand to a thread and back."""
COMPLETION_TOKENS = 128
"""Of a text that is gone on with, where nobody says how many: most texts have no end."""


class Answering(Speaking, Protocol):
    """An engine that knows its model."""

    tokenizer: Tokenizer
    context_length: int

    @property
    def adaptable(self) -> bool: ...
    @property
    def special_tokens(self) -> Mapping[str, SpecialToken]: ...
    def close(self) -> None: ...


class Assistant:
    """A model that is ready to answer conversations.

    default_params: how it samples when the caller does not say, from the model's `generation_config.json`.
    service: that runs the engine; one of its own unless given. adapter: through which it speaks. scale: of a reward
    model, mean and deviation of the scores that become 0 and 1.
    """

    def __init__(
        self,
        engine: Answering,
        default_params: SamplingParams,
        service: EngineService | None = None,
        adapter: str | None = None,
        scale: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._engine = engine
        self._service = service or EngineService(engine)
        self.default_params = default_params
        self._adapter, self._scale = adapter, scale

    @staticmethod
    def load(
        directory: Path,
        weights: str | None = None,
        *,
        speculate: int = 0,
        draft: Path | None = None,
        backend: Backend = "chatwheel",
    ) -> Assistant:
        """Opens a model directory in Hugging Face layout: one that answers, or a reward model, which scores.

        weights: in which type it is kept, for ours float32 and for vLLM bfloat16 unless given; what has fewer bits
        takes less memory and time. speculate: how many tokens are guessed, by the model in `draft` if one is given, see
        `Engine`. backend: whose engine. Raises InputError.
        """
        if backend == "vllm":
            return _by_vllm(directory, weights or "bfloat16", guesses=bool(speculate))
        if is_reward_model(directory):
            judge, tokenizer = open_model(directory, ScalarModel)
            engine = Engine(judge, tokenizer, max_running=MAX_RUNNING, max_waiting=MAX_WAITING, weights=weights)
            return Assistant(engine, SamplingParams(), scale=reward_scale(directory))
        model, tokenizer = open_model(directory, CausalLM)
        guesser = open_draft(draft, directory) if draft is not None else None
        engine = Engine(
            model,
            tokenizer,
            max_running=MAX_RUNNING,
            max_waiting=MAX_WAITING,
            weights=weights or "float32",
            release=True,
            speculate=speculate,
            draft=guesser,
            adapters=place_of,
        )
        return Assistant(engine, _default_params(tokenizer.generation_config))

    def through(self, adapter: Path) -> Assistant | None:
        """The same model speaking through an adapter as its files are now, which the engine loads when it is first
        asked: as good as the merged model, and closed with this one.

        None where that would not be the adapter's own model: the engine can't, or the adapter came with other tokens,
        another chat template or other ends. Raises InputError for damaged files.
        """
        if not self._engine.adaptable:
            return None
        ours, version = self._engine.tokenizer, version_of(adapter)
        theirs = ours.beside(adapter) if (adapter / "tokenizer.json").is_file() else ours
        if theirs is None or (theirs.template.source, theirs.stop_ids) != (ours.template.source, ours.stop_ids):
            return None
        return Assistant(self._engine, _default_params(theirs.generation_config), self._service, version)

    @property
    def tokenizer(self) -> Tokenizer:
        """What its prompts are made with."""
        return self._engine.tokenizer

    @property
    def context_length(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return self._engine.context_length

    @property
    def metrics(self) -> tuple[Counts, Metrics]:
        """What its engine has done, and how long requests took; from any thread."""
        return self._service.counts, self._service.metrics

    @property
    def dead(self) -> bool:
        """Whether it will answer nothing any more."""
        return self._service.dead

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """The prompt's tokens after the chat template. Blocks."""
        return len(self._encode(messages))

    def chat(self, message: str | Sequence[Turn], params: SamplingParams | None = None) -> str:
        """The answer's text; greedy unless `params` says otherwise. Blocks."""
        messages = [Message(role="user", content=message)] if isinstance(message, str) else _messages(message)
        return self._service.generate(self._request(self._encode(messages), params or GREEDY)).text

    def complete(self, prompt: str, params: SamplingParams | None = None) -> str:
        """How a text goes on, without a conversation around it; greedy and COMPLETION_TOKENS long unless `params` says
        otherwise. Blocks."""
        params = params or replace(GREEDY, max_tokens=COMPLETION_TOKENS)
        return self._service.generate(self._request(tuple(self.tokenizer.encode_text(prompt)), params)).text

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """A vector of length 1 for each text: the mean of its hidden states, see `read`. Blocks."""
        return [
            _embedding(self._service.generate(self._reading(ids))) for ids in map(self.tokenizer.encode_text, texts)
        ]

    def score(self, messages: Sequence[Turn]) -> float:
        """What a reward model thinks of a conversation that ends with an answer; demonstrations have 0 in the mean and
        a deviation of 1. Blocks. Raises InputError for a model that is none."""
        return self._scored(self._service.generate(self._reading(self.encode_answered(_messages(messages)), "score")))

    async def encode(self, messages: Sequence[Message], tools: ToolUse | None = None) -> tuple[int, ...]:
        """The prompt: the conversation after the chat template."""
        if tools is None and _is_short(messages):
            return self._encode(messages)
        # In a thread: a long conversation takes a while, and others are listening to the same event loop.
        return await asyncio.to_thread(self._encode, messages, tools)

    async def stream(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        tools: ToolUse | None = None,
        *,
        prompt_ids: tuple[int, ...] | None = None,
    ) -> AsyncIterator[Delta]:
        """The answer in pieces; concurrent calls share the engine's batch. Closing the iterator cancels.

        tools: functions that it may call. prompt_ids: the same messages and tools as `encode` has given them, if it
        has.
        """
        prompt_ids = await self.encode(messages, tools) if prompt_ids is None else prompt_ids
        if tools is None:
            request, reader = self._request(prompt_ids, params), None
        else:  # in a thread, as its grammar may take a while
            request, reader = await asyncio.to_thread(self._calling, prompt_ids, params, tools)
        async for delta in self._spoken(request, reader):
            yield delta

    async def go_on(self, prompt_ids: Sequence[int], params: SamplingParams) -> AsyncIterator[Delta]:
        """`stream` of a raw prompt: no conversation, no template."""
        async for delta in self._spoken(self._request(tuple(prompt_ids), params), None):
            yield delta

    async def _spoken(self, request: Request, reader: CallReader | None) -> AsyncIterator[Delta]:
        async with aclosing(self._service.stream(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                if reader is not None:
                    delta = _with_calls(delta, reader)
                if delta.text or delta.calls or delta.tokens or delta.completion:
                    yield delta

    async def read_embedding(self, prompt_ids: Sequence[int]) -> tuple[float, ...]:
        """A vector of length 1: the mean of the hidden states.

        The mean, since a model that was trained to go on with a text keeps at each place what matters for what comes
        next; its last state alone is about one token. (Of models that were trained to put a text into its last token,
        that one would be better.)
        """
        return _embedding(await self._read(self._reading(prompt_ids)))

    async def read_score(self, prompt_ids: Sequence[int]) -> float:
        """`score` of a conversation that `encode_answered` has read."""
        return self._scored(await self._read(self._reading(prompt_ids, "score")))

    async def answer(
        self, messages: Sequence[Message], params: SamplingParams, tools: ToolUse | None = None
    ) -> Completion:
        """The whole answer."""
        completion: Completion | None = None
        async for delta in self.stream(messages, params, tools):
            completion = delta.completion or completion
        assert completion is not None, "a stream ends with its completion"
        return completion

    def close(self) -> None:
        """Stops the engine's thread; for what was opened, not for what speaks through it."""
        self._service.close()
        self._engine.close()

    def encode_answered(self, messages: Sequence[Message]) -> list[int]:
        """A conversation that ends with an answer, as a reward model has read demonstrations. Raises InputError."""
        if not messages or messages[-1].role != "assistant":
            raise InputError("an answer is scored: the last message must be the assistant's", param="messages")
        return self.tokenizer.encode_conversation([message.model_dump() for message in messages])[0]

    def _encode(self, messages: Sequence[Message], tools: ToolUse | None = None) -> tuple[int, ...]:
        definitions = tools.definitions() if tools is not None else None
        return tuple(self._engine.tokenizer.encode_prompt([m.model_dump() for m in messages], definitions))

    def _calling(
        self, prompt_ids: tuple[int, ...], params: SamplingParams, tools: ToolUse
    ) -> tuple[Request, CallReader | None]:
        """The engine's request, and what takes the calls out of its answer."""
        form, special = self._engine.tokenizer.template.call_format, self._engine.special_tokens
        calls_only = tools.choice == "required"
        content = schema_of(params.grammar) if params.grammar is not None and not calls_only else None
        if tools.choice == "none":
            grammar = params.grammar or call_grammar(tools, form, special)
            return self._request(prompt_ids, replace(params, grammar=grammar)), None
        params = replace(
            params,
            grammar=call_grammar(tools, form, special, content),
            shown_tokens=shown_tokens(form, special),
            stop=() if calls_only else params.stop,  # stop strings end words; in arguments they would break the JSON
        )
        return self._request(prompt_ids, params), CallReader(form, only_at_start=content is not None)

    def _request(self, prompt_ids: tuple[int, ...], params: SamplingParams) -> Request:
        return Request(prompt_ids=prompt_ids, params=params, adapter=self._adapter)

    def _reading(self, prompt_ids: Sequence[int], task: Task = "mean") -> Request:
        return Request(prompt_ids=tuple(prompt_ids), task=task, adapter=self._adapter)

    async def _read(self, request: Request) -> Completion:
        """What becomes of a text that is only read."""
        completion: Completion | None = None
        async with aclosing(self._service.stream(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                completion = delta.completion
        assert completion is not None, "a stream ends with its completion"
        return completion

    def _scored(self, completion: Completion) -> float:
        assert completion.score is not None, "who scores gives a score"
        mean, deviation = self._scale
        # A reward model that has learnt nothing gives all demonstrations the same score.
        return (completion.score - mean) / max(deviation, 1e-6)


def _is_short(messages: Sequence[Message]) -> bool:
    calls = any(message.tool_calls for message in messages)  # their arguments may be of any length
    return not calls and len(messages) <= FEW and sum(len(message.content) for message in messages) <= SHORT


def _messages(turns: Sequence[Turn]) -> list[Message]:
    return [turn if isinstance(turn, Message) else Message.model_validate(turn) for turn in turns]


def _with_calls(delta: Delta, reader: CallReader) -> Delta:
    """A piece of text as words and calls."""
    words, calls = reader.feed(delta.text)
    if delta.completion is None:
        return replace(delta, text=words, calls=calls)
    rest, more = reader.finish()
    reason = "length" if reader.cut and delta.completion.finish_reason == "stop" else delta.completion.finish_reason
    completion = replace(delta.completion, text=reader.words, calls=reader.calls, finish_reason=reason)
    return replace(delta, text=words + rest, calls=calls + more, completion=completion)


def _embedding(completion: Completion) -> tuple[float, ...]:
    assert completion.embedding is not None, "who reads gives a vector"
    return completion.embedding


def _by_vllm(directory: Path, weights: str, *, guesses: bool) -> Assistant:
    from chatwheel.engine.vllm_engine import VllmEngine

    if guesses:
        raise InputError("vLLM's own guessing is not reached from here; leave --speculate and --draft out")
    if is_adapter(directory):
        raise InputError(f"{directory}: vLLM wants whole models; `chatwheel models merge` makes one of an adapter")
    config = ModelConfig.from_hugging_face(read_object(directory / "config.json"), where=str(directory))
    tokenizer = load_tokenizer(directory, config)
    engine = VllmEngine(directory, config, tokenizer, max_running=MAX_RUNNING, max_waiting=MAX_WAITING, weights=weights)
    return Assistant(engine, _default_params(tokenizer.generation_config))


def _default_params(config: Mapping[str, Any]) -> SamplingParams:
    if not config.get("do_sample", True):
        return SamplingParams(temperature=0.0)
    return SamplingParams(
        temperature=float(config.get("temperature") or 1.0),
        top_p=float(config.get("top_p") or 1.0),
        top_k=int(config.get("top_k") or 0),
    )
