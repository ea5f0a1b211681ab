"""One answer: a conversation goes in, the engine's text comes out. The doors (server, terminal) know only this."""

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
from chatwheel.engine.requests import Completion, Delta, Request, SamplingParams
from chatwheel.engine.service import EngineService, Speaking
from chatwheel.engine.structured import SpecialToken, schema_of
from chatwheel.engine.tools import CallReader, ToolUse, call_grammar, shown_tokens
from chatwheel.errors import InputError
from chatwheel.model.checkpoint import load_tokenizer
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import is_adapter, read_object
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.store.loading import open_draft, open_model

Backend = Literal["chatwheel", "vllm"]
MAX_RUNNING = 32
MAX_WAITING = 512


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
    service: that runs the engine; one of its own unless given. adapter: through which it speaks.
    """

    def __init__(
        self,
        engine: Answering,
        default_params: SamplingParams,
        service: EngineService | None = None,
        adapter: str | None = None,
    ) -> None:
        self._engine = engine
        self._service = service or EngineService(engine)
        self.default_params = default_params
        self._adapter = adapter

    @staticmethod
    def load(
        directory: Path,
        weights: str | None = None,
        *,
        speculate: int = 0,
        draft: Path | None = None,
        backend: Backend = "chatwheel",
    ) -> Assistant:
        """Opens a model directory in Hugging Face layout.

        weights: in which type it is kept, for ours float32 and for vLLM bfloat16 unless given; what has fewer bits
        takes less memory and time. speculate: how many tokens are guessed, by the model in `draft` if one is given, see
        `Engine`. backend: whose engine. Raises InputError.
        """
        if backend == "vllm":
            return _by_vllm(directory, weights or "bfloat16", guesses=bool(speculate))
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

    def count_tokens(self, messages: Sequence[Message], tools: ToolUse | None = None) -> int:
        """The prompt's tokens after the chat template."""
        return len(self._encode(messages, tools))

    def chat(self, message: str | Sequence[Message], params: SamplingParams | None = None) -> str:
        """The answer's text; greedy unless `params` says otherwise. Blocks."""
        messages = [Message(role="user", content=message)] if isinstance(message, str) else message
        params = params or SamplingParams(temperature=0.0)
        return self._service.generate(self._request(self._encode(messages), params)).text

    async def stream(
        self, messages: Sequence[Message], params: SamplingParams, tools: ToolUse | None = None
    ) -> AsyncIterator[Delta]:
        """The answer in pieces; concurrent calls share the engine's batch. Closing the iterator cancels.

        tools: functions that it may call.
        """
        # In a thread: a long conversation takes a while, and others are listening to the same event loop.
        request, reader = await asyncio.to_thread(self._prepare, messages, params, tools)
        async with aclosing(self._service.stream(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                if reader is not None:
                    delta = _with_calls(delta, reader)
                if delta.text or delta.calls or delta.completion:
                    yield delta

    async def complete(
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

    def _encode(self, messages: Sequence[Message], tools: ToolUse | None = None) -> tuple[int, ...]:
        definitions = tools.definitions() if tools is not None else None
        return tuple(self._engine.tokenizer.encode_prompt([m.model_dump() for m in messages], definitions))

    def _prepare(
        self, messages: Sequence[Message], params: SamplingParams, tools: ToolUse | None
    ) -> tuple[Request, CallReader | None]:
        """The engine's request, and what takes the calls out of its answer."""
        prompt_ids = self._encode(messages, tools)
        if tools is None:
            return self._request(prompt_ids, params), None
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


def _with_calls(delta: Delta, reader: CallReader) -> Delta:
    """A piece of text as words and calls."""
    words, calls = reader.feed(delta.text)
    if delta.completion is None:
        return Delta(text=words, calls=calls)
    rest, more = reader.finish()
    reason = "length" if reader.cut and delta.completion.finish_reason == "stop" else delta.completion.finish_reason
    completion = replace(delta.completion, text=reader.words, calls=reader.calls, finish_reason=reason)
    return Delta(text=words + rest, calls=calls + more, completion=completion)


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
