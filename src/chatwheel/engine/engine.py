"""Continuous batching over one model: the server, PPO's rollouts, evaluation and the terminal all speak through it.
Texts that are only read, for an embedding or a reward, go through the same steps.

Each step is a plan of the scheduler, computed by a runner, and a token for every sequence that is complete up to its
last one. It computes from the model's own weights: a trainer that moves them moves the engine too (`update_weights`).
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from ctypes import CDLL
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter

import numpy as np
import psutil
import torch

from chatwheel.engine.adapters import MEMORY, Adapters, Find, Loaded
from chatwheel.engine.assembly import Asked, Assembly, Read, Sampled
from chatwheel.engine.batch import Chosen, FloatArray, Runner
from chatwheel.engine.blocks import BLOCK_SIZE, BlockPool
from chatwheel.engine.choosing import Choosing
from chatwheel.engine.detokenizer import Detokenizer
from chatwheel.engine.draft_model import DraftModel
from chatwheel.engine.native.bindings import load_kernels
from chatwheel.engine.native.runner import STORED, NativeRunner
from chatwheel.engine.pooling import Pooling
from chatwheel.engine.requests import Completion, Delta, Request, TokenLogprobs, check
from chatwheel.engine.scheduler import Scheduler, Terms
from chatwheel.engine.sequence import Sequence
from chatwheel.engine.speculation import NgramDrafter
from chatwheel.engine.structured import Grammars, SpecialToken
from chatwheel.engine.torch_runner import TorchRunner
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.model.config import ModelConfig
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, Linear, ScalarModel

logger = logging.getLogger(__name__)
SHARE_OF_MEMORY = 0.3
"""Of what is free, that the cache may grow to unless it is told otherwise."""


@dataclass(kw_only=True)
class Counts:
    """What an engine has done since it began: for its metrics. computed_tokens: positions, of prompts and answers."""

    steps: int = 0
    computed_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    guesses: int = 0
    accepted_guesses: int = 0
    running: int = 0
    waiting: int = 0
    blocks_held: int = 0
    blocks: int = 0


class Engine:
    """Many requests, one model. Not thread-safe: `service.EngineService` drives it from one thread.

    max_running: requests in a batch. max_waiting: requests that may queue, without end unless given.
    max_step_tokens: positions that are computed in a step, by a draft model as many again; less lets running answers
    wait less for others' prompts.
    cache_tokens: positions that the cache holds, of all requests together.
    weights: "float32" reads the model's own; the smaller types take less memory and time. dtype: bfloat16 means
    weights of that, and on GPUs activations too.
    release: copies in a smaller type take the place of the model's own weights, so that they are not in memory twice;
    the model is then of no other use, and the engine cannot sleep.
    adapters: finds an adapter by its name, for requests that speak through one; adapter_memory: bytes for them.
    speculate: how many tokens may be guessed, where few requests run: from the text itself, or by `draft`, a smaller
    model of the same tokenizer.
    """

    def __init__(
        self,
        model: CausalLM | ScalarModel,
        tokenizer: Tokenizer,
        *,
        max_running: int = 64,
        max_waiting: int | None = None,
        max_step_tokens: int = 512,
        cache_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
        weights: str | None = None,
        release: bool = False,
        speculate: int = 0,
        draft: CausalLM | None = None,
        adapters: Find | None = None,
        adapter_memory: int = MEMORY,
    ) -> None:
        for name, value, least in (
            ("max_running", max_running, 1),
            ("max_step_tokens", max_step_tokens, 1),
            ("cache_tokens", cache_tokens, 1),
            ("max_waiting", max_waiting, 0),
            ("speculate", speculate, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if weights not in (None, *STORED):
            raise InputError(f"weights {weights!r} are not known; known are {', '.join(STORED)}")
        self.model, self.tokenizer, self.dtype = model, tokenizer, dtype
        self.context_length = model.config.max_positions
        self._weights = weights or ("bfloat16" if dtype == torch.bfloat16 else "float32")
        self._release_weights = release
        if draft is not None and draft.config.vocab_size < tokenizer.vocab_size:
            raise InputError(
                f"the draft model has {draft.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}"
            )
        self._speculate, self._draft = speculate, draft
        self._drafter: DraftModel | None = None
        self._grammars = Grammars(tokenizer, model.config.vocab_size)
        self._adapters = Adapters(model.config, adapters, adapter_memory) if adapters is not None else None
        tokens = _default_cache_tokens(model.config, max_running) if cache_tokens is None else cache_tokens
        self._pool = BlockPool(-(-tokens // BLOCK_SIZE))
        self._scheduler = Scheduler(
            self._pool,
            max_running=max_running,
            max_step_tokens=max(max_step_tokens, max_running),
            max_waiting=max_waiting,
        )
        self._runner: Runner | None = None
        self._version = -1
        self._parameters = list(model.parameters())  # gathering them takes longer than a small model's step
        self._sequences: dict[int, Sequence] = {}
        self._assembly = Assembly(self._scheduler, self._sequences)
        self._choosing: Choosing | None = None
        self._ids = itertools.count()
        self._counts = Counts()

    def generate(self, requests: Iterable[Request]) -> list[Completion]:
        """Answers all requests, in their order; for an engine that nobody else uses meanwhile.

        Raises ContextLengthError, InputError, OverloadedError before anything runs.
        """
        ids: list[int] = []
        done: dict[int, Completion] = {}
        try:
            for request in requests:
                ids.append(self.submit(request))
            while len(done) < len(ids):
                done |= {i: d.completion for i, d in self.step(stream=False) if d.completion is not None}
        except BaseException:
            for request_id in ids:
                self.cancel(request_id)
            raise
        return [done[i] for i in ids]

    def submit(self, request: Request) -> int:
        """Queues a request; its id. Raises ContextLengthError, InputError, OverloadedError."""
        params, prompt = request.params, len(request.prompt_ids)
        check(request, self.model.config.vocab_size, self.context_length)
        answers, scores = request.task == "generate", isinstance(self.model, ScalarModel)
        if scores != (request.task == "score"):
            raise InputError("a reward model scores texts, and nothing else does", param="model")
        room = self.context_length - prompt
        # Without a wish the cache may be the limit, with one it is an error.
        spare = self._pool.num_blocks * BLOCK_SIZE - prompt
        max_tokens = min(room, max(1, spare)) if params.max_tokens is None else min(params.max_tokens, room)
        max_tokens *= answers
        seed = secrets.randbits(63) if params.seed is None else params.seed
        request_id = next(self._ids)
        self._scheduler.check_queue()  # a grammar may take long
        matcher = self._grammars.matcher(params.grammar, max_tokens) if params.grammar is not None else None
        adapter = self._adapter(request.adapter) if request.adapter is not None else None
        # A prompt whose every place is asked for is computed, even if an earlier request had it.
        whole = params.prompt_logprobs or request.task == "mean"
        scope = secrets.token_bytes(16) if whole else adapter.scope if adapter is not None else b""
        deadline = time.monotonic() + request.timeout if request.timeout is not None else float("inf")
        terms = Terms(key=request.key, priority=request.priority, deadline=deadline, scope=scope)
        try:
            self._scheduler.add(request_id, request.prompt_ids, max_tokens, terms)
        except ChatwheelError:
            self._release(request)
            raise
        self._sequences[request_id] = Sequence(
            number=request_id,
            request=request,
            seed=seed,
            max_tokens=max_tokens,
            stops=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.tokenizer.stop_ids),
            text=Detokenizer(self.tokenizer, params.stop, params.shown_tokens),
            pooling=None if answers else Pooling(request.task, prompt),
            adapter=adapter.number if adapter is not None else -1,
            matcher=matcher,
            drafter=NgramDrafter(request.prompt_ids) if self._speculate and answers and self._draft is None else None,
        )
        return request_id

    def _adapter(self, name: str) -> Loaded:
        if self._adapters is None:
            raise InputError(f"this engine speaks through no adapters; {name} was asked for", param="model")
        return self._adapters.acquire(name, self._awake())

    def _release(self, request: Request) -> None:
        if self._adapters is not None and request.adapter is not None:
            self._adapters.release(request.adapter)

    def cancel(self, request_id: int) -> Completion | None:
        """Ends a request now; what it has so far, or None if it had ended."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return None
        self._leave(request_id)
        return sequence.finish("cancelled")

    @property
    def adaptable(self) -> bool:
        """Whether requests may speak through adapters."""
        return self._adapters is not None and _by_kernels(self.model) is not None

    @property
    def special_tokens(self) -> Mapping[str, SpecialToken]:
        """What a grammar has to name as tokens, see `Grammars.special_tokens`. May be asked from any thread."""
        return self._grammars.special_tokens

    @property
    def counts(self) -> Counts:
        """What it has done, and how much is under way."""
        scheduler, counts = self._scheduler, self._counts
        counts.running, counts.waiting = len(scheduler.running), scheduler.num_waiting
        counts.cached_tokens = scheduler.cached_tokens
        counts.blocks, counts.blocks_held = self._pool.num_blocks, self._pool.held
        return counts

    dead = False
    """Whether it will answer nothing any more: a step that fails ends its requests only."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._scheduler.idle

    def update_weights(self) -> None:
        """Says that the model's weights have moved: what the cache holds is forgotten, copies are made anew, and what
        runs is read again with the new ones.

        A trainer calls it between its steps and the next requests; of some optimizers (PyTorch's fused ones) nothing
        else tells.
        """
        self._scheduler.start_over()
        self._assembly.start_over()
        for sequence in self._sequences.values():
            sequence.read_again()
        self._parameters = list(self.model.parameters())
        if self._runner is not None:
            self._runner.refresh()
            self._version = self._weights_version()

    def sleep(self) -> None:
        """Gives back the cache's memory and all copies of weights, while nothing runs; the next request wakes it."""
        assert self.idle, "an engine sleeps when nothing runs"
        assert not self._release_weights, "its weights are nowhere else"
        self._runner = self._drafter = None
        if self._adapters is not None:
            self._adapters.clear()
        self._pool.forget()

    def close(self) -> None:
        """Gives everything back; of no other use then."""
        self._runner = self._drafter = None

    def step(self, *, stream: bool = True) -> list[tuple[int, Delta]]:
        """Computes the scheduler's next plan: (request id, new text) of those that have some.

        stream: without it there is no text before the completion's.
        """
        self._follow_weights()
        guesses = self._guesses()
        plan = self._scheduler.plan(time.monotonic(), {i: len(g) for i, g in guesses.items()})
        deltas = [(i, Delta(text="", completion=self._forget(i).finish("cancelled"))) for i in plan.expired]
        if not plan.chunks:
            return deltas
        assert self._runner is not None
        self._counts.steps += 1
        self._counts.computed_tokens += plan.size
        self._counts.preemptions += len(plan.preempted)
        try:
            step = self._assembly.step(plan, guesses)
            hidden, logits = self._runner.forward(step.batch)
            self._note_prompts(step.asked, logits)  # first: an answer may end with its first token
            if step.sampled:
                deltas += self._emit(step.sampled, self._choose(step.sampled, logits), logits, stream)
            deltas += self._gather(step.read, hidden[step.batch.scored :])
        except BaseException:
            # What is in the cache is not known any more.
            for request_id in self._scheduler.reset():
                self._forget(request_id)
            raise
        return deltas

    def _follow_weights(self) -> None:
        """Somebody may have changed the weights since the last step, and then no old key or value holds."""
        self._awake()
        if self._weights_version() != self._version:
            self.update_weights()

    def _awake(self) -> Runner:
        if self._runner is None:
            if self._draft is not None and self._speculate:
                self._drafter = self._draft_model(self._draft)
            self._runner = _runner(self.model, self._pool.num_blocks, self.dtype, self._weights, self._release_weights)
            self._version = self._weights_version()
        return self._runner

    def _draft_model(self, draft: CausalLM) -> DraftModel:
        """It has room for as many answers as it guesses for, or less: a third of what a cache may take."""
        longest = -(-min(draft.config.max_positions, self._pool.num_blocks * BLOCK_SIZE) // BLOCK_SIZE)
        room = _default_cache_tokens(draft.config, MOST_SPECULATING) // BLOCK_SIZE // 3
        num_blocks = max(1, min(MOST_SPECULATING * longest, room))
        runner = _runner(draft, num_blocks, self.dtype, self._weights, self._release_weights)
        step = self._scheduler.max_step_tokens
        return DraftModel(runner, draft.config, num_blocks=num_blocks, max_step_tokens=step)

    def _weights_version(self) -> int:
        """A number that grows whenever a weight is changed in place."""
        return sum(map(attrgetter("_version"), self._parameters))

    def _guesses(self) -> dict[int, list[int]]:
        running = self._scheduler.running
        if not self._speculate or len(running) > MOST_SPECULATING:
            return {}
        answers = [self._sequences[request_id] for request_id in running]
        # A grammar's tokens are known one by one.
        plain = [a for a in answers if a.token_ids and a.matcher is None and not a.params.prompt_logprobs]
        if self._drafter is not None:
            found = self._drafted(self._drafter, plain)
        else:
            found = {a.number: a.drafter.propose(self._speculate) for a in plain if a.drafter is not None}
        vocabulary = self.model.config.vocab_size
        return {i: list(takewhile(lambda token: token < vocabulary, guesses)) for i, guesses in found.items()}

    def _drafted(self, drafter: DraftModel, answers: list[Sequence]) -> dict[int, list[int]]:
        try:
            return drafter.propose(answers, self._speculate)
        except Exception:  # answers go on without guesses
            logger.exception("the draft model failed; it guesses no more")
            self._draft = self._drafter = None
            return {}

    def _choose(self, sampled: list[Sampled], logits: FloatArray) -> Chosen:
        assert self._runner is not None
        if self._choosing is None or self._choosing.sampled != sampled:
            self._choosing = Choosing(sampled)
        return self._runner.choose(self._choosing.choice(logits))

    def _emit(
        self, sampled: list[Sampled], chosen: Chosen, logits: FloatArray, stream: bool
    ) -> list[tuple[int, Delta]]:
        deltas: list[tuple[int, Delta]] = []
        tokens, logprobs, row, now = chosen.tokens.tolist(), chosen.logprobs.tolist(), 0, time.monotonic()
        generated = 0
        for sequence, first, guesses in sampled:
            new = [tokens[row]]
            reason = sequence.append(tokens[row], logprobs[row], now)
            if guesses:
                for i, guess in enumerate(guesses):
                    if reason is not None or new[-1] != guess:
                        break
                    new.append(tokens[row + i + 1])
                    reason = sequence.append(new[-1], logprobs[row + i + 1], now)
                self._counts.guesses += len(guesses)
                self._counts.accepted_guesses += len(new) - 1
            if sequence.params.top_logprobs:
                for i in range(len(new)):
                    normaliser = float(chosen.normalisers[row + i])
                    sequence.top.append(_top(logits[first + i], normaliser, sequence.params.top_logprobs))
            row += len(guesses) + 1
            generated += len(new)
            if reason is not None:
                self._leave(sequence.number)
                deltas.append((sequence.number, sequence.delta(reason)))
                continue
            self._scheduler.append(sequence.number, new)
            if stream and (delta := sequence.delta()).text:
                deltas.append((sequence.number, delta))
        self._counts.generated_tokens += generated
        return deltas

    def _gather(self, read: list[Read], hidden: FloatArray) -> list[tuple[int, Delta]]:
        deltas: list[tuple[int, Delta]] = []
        for sequence, first, size, last in read:
            assert sequence.pooling is not None
            sequence.pooling.take(hidden[first : first + size])
            if not last:
                continue
            if isinstance(self.model, ScalarModel):
                weight_D = self.model.score.weight.detach()[0].float().cpu().numpy()
                completion = sequence.finish("stop", score=sequence.pooling.score(weight_D))
            else:
                completion = sequence.finish("stop", embedding=sequence.pooling.embedding())
            self._leave(sequence.number)
            deltas.append((sequence.number, Delta(text="", completion=completion)))
        return deltas

    def _note_prompts(self, asked: list[Asked], logits: FloatArray) -> None:
        """Log-probs of a prompt's own tokens: each row says what it thought of the next."""
        for sequence, first, chunk in asked:
            # Of a prompt that is read again, after it gave way, the beginning is noted already.
            begin = max(chunk.begin, len(sequence.prompt))
            following = sequence.request.prompt_ids[begin + 1 : chunk.end + 1]
            rows = logits[first + begin - chunk.begin :][: len(following)]
            if not following:
                continue
            best = rows.max(-1)
            normalisers = best + np.log(np.exp(rows - best[:, None]).sum(-1))
            for token, row, normaliser in zip(following, rows, normalisers.tolist(), strict=True):
                top = _top(row, normaliser, sequence.params.top_logprobs)
                sequence.prompt.append(TokenLogprobs(token_id=token, logprob=float(row[token]) - normaliser, top=top))

    def _leave(self, request_id: int) -> None:
        self._scheduler.remove(request_id)
        self._forget(request_id)

    def _forget(self, request_id: int) -> Sequence:
        self._choosing = None
        sequence = self._sequences.pop(request_id)
        self._release(sequence.request)
        return sequence


MOST_SPECULATING = 4
"""Running requests up to which guessing pays: beyond it the processor has enough to do."""


def _top(row_V: FloatArray, normaliser: float, count: int) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens with their log-probs, the likeliest first, of equal ones the smaller id."""
    if not count:
        return ()
    count = min(count, len(row_V))
    found = np.argpartition(-row_V, count - 1)[:count]
    order = found[np.lexsort((found, -row_V[found]))]
    return tuple((int(i), float(row_V[i]) - normaliser) for i in order)


def _runner(model: CausalLM | ScalarModel, num_blocks: int, dtype: torch.dtype, weights: str, release: bool) -> Runner:
    """The kernels where they can run, else PyTorch."""
    kernels = _by_kernels(model)
    if kernels is None:
        if weights in ("int8", "int4"):
            raise InputError(f"weights in {weights} need the kernels: a CPU, and a C++ compiler")
        return TorchRunner(model, num_blocks=num_blocks, dtype=torch.bfloat16 if weights == "bfloat16" else dtype)
    threads = torch.get_num_threads()
    return NativeRunner(kernels, model, num_blocks=num_blocks, weights=weights, threads=threads, release=release)


def _by_kernels(model: CausalLM | ScalarModel) -> CDLL | None:
    """The kernels, if they can compute the model."""
    on_cpu = model.model.embed_tokens.weight.device.type == "cpu"
    plain = all(module.adapter is None for module in model.modules() if isinstance(module, Linear))
    return load_kernels() if on_cpu and plain else None


def _default_cache_tokens(config: ModelConfig, max_running: int) -> int:
    """All requests at full length, if a share of the free memory can hold it."""
    size = 2 * 4 * config.num_layers * config.num_kv_heads * config.head_dim
    room = int(psutil.virtual_memory().available * SHARE_OF_MEMORY) // size
    return min(max_running * config.max_positions, max(room, BLOCK_SIZE))
