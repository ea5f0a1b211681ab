"""Continuous batching over one model: the server, PPO's rollouts, evaluation and the terminal all speak through it.

It reads the model's own weights at every step, without a copy: a trainer that moves them moves the engine too.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from chatwheel.engine.detokenizer import Detokenizer
from chatwheel.engine.kv_cache import KVCache
from chatwheel.engine.requests import Completion, Delta, FinishReason, Request
from chatwheel.engine.sampling import Sampler
from chatwheel.engine.scheduler import Scheduler
from chatwheel.errors import ContextLengthError, InputError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM


@dataclass(kw_only=True)
class _Sequence:
    """A request on its way."""

    request: Request
    seed: int
    max_tokens: int
    text: Detokenizer
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def finish(self, reason: FinishReason) -> Completion:
        return Completion(
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            text=self.text.text,
            finish_reason=reason,
            prompt_tokens=len(self.request.prompt_ids),
        )


class Engine:
    """Many requests, one model. Not thread-safe: `service.EngineService` drives it from one thread.

    max_running: requests in a batch. max_waiting: requests that may queue, without end unless given.
    dtype: of the activations and the cache.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        max_running: int = 64,
        max_waiting: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.tokenizer, self.dtype = model, tokenizer, dtype
        self.context_length = model.config.max_positions
        self._scheduler = Scheduler(max_running=max_running, max_waiting=max_waiting)
        self._cache = KVCache(model.config, max_running, dtype)
        self._sequences: dict[int, _Sequence] = {}
        self._sampler: Sampler | None = None
        self._ids = itertools.count()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers all requests, in their order; for an engine that nobody else uses meanwhile.

        Raises ContextLengthError, InputError, OverloadedError before anything runs.
        """
        ids: list[int] = []
        done: dict[int, Completion] = {}
        try:
            for request in requests:
                ids.append(self.submit(request))
            while len(done) < len(ids):
                done |= {i: delta.completion for i, delta in self.step() if delta.completion is not None}
        except BaseException:
            for request_id in ids:
                self.cancel(request_id)
            raise
        return [done[i] for i in ids]

    def submit(self, request: Request) -> int:
        """Queues a request; its id. Raises ContextLengthError, InputError, OverloadedError."""
        prompt = len(request.prompt_ids)
        if prompt == 0:
            raise InputError("the prompt is empty; give at least one token", param="messages")
        room = self.context_length - prompt
        wanted = request.params.max_tokens
        if room < 1:
            raise ContextLengthError(
                f"this model's context is {self.context_length} tokens, the messages have {prompt}; shorten them",
                code="context_length_exceeded",
                param="messages",
            )
        seed = secrets.randbits(63) if request.params.seed is None else request.params.seed
        request_id = next(self._ids)
        self._scheduler.add(request_id, prompt)
        self._sequences[request_id] = _Sequence(
            request=request,
            seed=seed,
            max_tokens=room if wanted is None else min(wanted, room),
            text=Detokenizer(self.tokenizer, request.params.stop),
        )
        return request_id

    def cancel(self, request_id: int) -> Completion | None:
        """Ends a request now; what it has so far, or None if it had ended."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return None
        self._leave(request_id)
        return sequence.finish("cancelled")

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._scheduler.idle

    @torch.no_grad()
    def step(self) -> list[tuple[int, Delta]]:
        """One token for each running request, and the first for those that enter: (request id, new text)."""
        deltas: list[tuple[int, Delta]] = []
        if self._scheduler.running:
            deltas += self._emit(list(self._scheduler.running), self._decode())
        admitted = self._scheduler.admit()
        if admitted:
            self._sampler = None
            ids = [a.request_id for a in admitted]
            deltas += self._emit(ids, self._prefill(ids, slice(admitted[0].slot, admitted[-1].slot + 1)))
        return deltas

    def _prefill(self, ids: list[int], slots: slice) -> tuple[Tensor, Tensor]:
        """Runs whole prompts, padded on the right, where padding is seen by no real token; chooses their first.

        A prompt that several of them share is run once.
        """
        prompts = [self._sequences[i].request.prompt_ids for i in ids]
        different = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        prompt_of = torch.tensor([different[p] for p in prompts])
        lengths = torch.tensor([len(p) for p in prompts])
        longest = int(lengths.max())
        tokens_NT = torch.zeros(len(different), longest, dtype=torch.long)
        for prompt, row in different.items():
            tokens_NT[row, : len(prompt)] = torch.tensor(prompt)
        self._cache.reserve(slots.stop, longest + 1)
        caches = [self._cache.prefill(layer, slots, prompt_of) for layer in range(self.model.config.num_layers)]
        hidden_NTD = self.model.model(tokens_NT, caches=caches, dtype=self.dtype)
        self._cache.lengths[slots] = lengths
        last_ND = hidden_NTD[prompt_of, lengths - 1]
        return self._sampler_of(ids).choose(self.model.logits(last_ND), [0] * len(ids))

    def _decode(self) -> tuple[Tensor, Tensor]:
        """Runs the last token of each running request; chooses the next."""
        ids = self._scheduler.running
        sequences = [self._sequences[i] for i in ids]
        tokens_N1 = torch.tensor([[s.token_ids[-1]] for s in sequences])
        lengths = self._cache.lengths[: len(ids)]
        span = int(lengths.max()) + 1
        self._cache.reserve(len(ids), span)
        beyond_NS = torch.arange(span)[None] > lengths[:, None]
        mask = torch.zeros(len(ids), 1, 1, span, dtype=self.dtype).masked_fill_(beyond_NS[:, None, None], -torch.inf)
        caches = [self._cache.decode(layer, len(ids), span) for layer in range(self.model.config.num_layers)]
        hidden_N1D = self.model.model(
            tokens_N1, positions_BT=lengths[:, None], mask=mask, caches=caches, dtype=self.dtype
        )
        lengths += 1
        if self._sampler is None:
            self._sampler = self._sampler_of(ids)
        return self._sampler.choose(self.model.logits(hidden_N1D[:, 0]), [len(s.token_ids) for s in sequences])

    def _sampler_of(self, ids: list[int]) -> Sampler:
        sequences = [self._sequences[i] for i in ids]
        return Sampler([s.request.params for s in sequences], [s.seed for s in sequences])

    def _emit(self, ids: list[int], chosen: tuple[Tensor, Tensor]) -> list[tuple[int, Delta]]:
        deltas = []
        for request_id, token_id, logprob in zip(ids, chosen[0].tolist(), chosen[1].tolist(), strict=True):
            sequence = self._sequences[request_id]
            reason = self._append(sequence, token_id, logprob)
            text = sequence.text.take(final=reason is not None)
            if reason is not None:
                self._leave(request_id)
                deltas.append((request_id, Delta(text=text, completion=sequence.finish(reason))))
            elif text:
                deltas.append((request_id, Delta(text=text)))
        return deltas

    def _append(self, sequence: _Sequence, token_id: int, logprob: float) -> FinishReason | None:
        sequence.token_ids.append(token_id)
        sequence.logprobs.append(logprob)
        if token_id in self.tokenizer.stop_ids and not sequence.request.params.ignore_eos:
            return "stop"
        sequence.text.add(token_id)
        if sequence.text.stopped:
            return "stop"
        return "length" if len(sequence.token_ids) >= sequence.max_tokens else None

    def _leave(self, request_id: int) -> None:
        move = self._scheduler.remove(request_id)
        if move is not None:
            self._cache.move(move.source, move.target)
        del self._sequences[request_id]
        self._sampler = None
