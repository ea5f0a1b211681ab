"""What runs next: a pure data structure, without tensors or models.

Each step computes some positions of some sequences, `max_step_tokens` in all: first what running answers need for their
next token, then chunks of prompts (Sarathi; Agrawal et al., 2024), so that a long prompt holds nobody up. Who waits is
taken by priority, and within one by fair queues: the key that has had the fewest tokens comes first (start-time fair
queueing; Goyal et al., 1996). Waiting raises the priority, so that nobody waits for ever. When blocks run out, the last
of the least gives back all it has and waits again; its tokens are computed once more, to the same numbers.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chatwheel.engine.blocks import BLOCK_SIZE, BlockPool, block_keys
from chatwheel.errors import ContextLengthError, OverloadedError

PATIENCE = 200
"""Steps of waiting after which a priority counts as one higher."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a request wants to be treated.

    key: whose it is; keys share fairly. priority: higher comes first. deadline: in the caller's seconds; later it is
    given up. scope: what its numbers depend on beside its tokens, such as an adapter: only equal ones share blocks.
    """

    key: str = ""
    priority: int = 0
    deadline: float = math.inf
    scope: bytes = b""


class Chunk(NamedTuple):
    """Positions [begin, end) of a sequence are computed in this step. `drafts` of them are guesses."""

    request_id: int
    begin: int
    end: int
    drafts: int = 0


@dataclass(kw_only=True)
class Plan:
    """A step. size: its positions. preempted: those that wait again. expired: those whose deadline has passed; they are
    gone."""

    chunks: list[Chunk] = field(default_factory=list)
    size: int = 0
    preempted: list[int] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Entry:
    """A sequence. tokens: prompt and answer so far. computed: how many have keys and values. blocks: its table."""

    tokens: list[int]
    longest: int
    terms: Terms
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    published: int = 0
    admitted: bool = False  # once at least
    arrived: int = 0  # the step in which it came; preemption does not change it

    @property
    def missing(self) -> int:
        """Tokens that are to be computed before the next one can be sampled."""
        return len(self.tokens) - self.computed


class Scheduler:
    """Waiting and running sequences, by id.

    max_running: sequences in a step. max_step_tokens: positions in a step. max_waiting: beyond it, `add` raises
    OverloadedError.
    """

    def __init__(
        self, pool: BlockPool, *, max_running: int, max_step_tokens: int = 512, max_waiting: int | None = None
    ) -> None:
        assert max_step_tokens >= max_running, "each running answer needs a position a step"
        self.pool, self.max_running, self.max_step_tokens = pool, max_running, max_step_tokens
        self.max_waiting = max_waiting
        self.entries: dict[int, Entry] = {}
        self.running: list[int] = []  # who came first of the highest priority is first
        self._waiting: dict[int, dict[str, deque[int]]] = defaultdict(dict)  # by priority, then key
        self._served: dict[str, float] = {}  # tokens computed for each key that is here
        self._present: Counter[str] = Counter()  # sequences of each key
        self._deadlines: dict[int, float] = {}  # of those that have one
        self._step = 0
        self.num_waiting = 0
        self.cached_tokens = 0  # that needed no computing, of all admissions

    def add(self, request_id: int, prompt: Sequence[int], max_tokens: int, terms: Terms | None = None) -> None:
        """Queues a sequence that grows by `max_tokens` at most.

        Raises OverloadedError when the queue is full and ContextLengthError if it could never fit.
        """
        terms = terms or Terms()
        longest = len(prompt) + max_tokens
        if -(-longest // BLOCK_SIZE) > self.pool.num_blocks:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens and the answer may have {max_tokens}; the cache holds "
                f"{self.pool.num_blocks * BLOCK_SIZE}: shorten one of them, or give the engine more memory",
                code="context_length_exceeded",
                param="messages",
            )
        self.check_queue()
        entry = Entry(tokens=list(prompt), longest=longest, terms=terms, arrived=self._step)
        self.entries[request_id] = entry
        self._present[terms.key] += 1
        if terms.deadline < math.inf:
            self._deadlines[request_id] = terms.deadline
        self._queue(request_id, entry)

    def check_queue(self) -> None:
        """Raises OverloadedError when the queue is full."""
        if self.max_waiting is not None and self.num_waiting >= self.max_waiting:
            raise OverloadedError(
                f"{self.num_waiting} requests are waiting already; try again in a moment", code="queue_full"
            )

    def append(self, request_id: int, tokens: Sequence[int]) -> None:
        """The sequence has grown: tokens that were sampled, the last of them not computed yet."""
        entry = self.entries[request_id]
        entry.computed += len(tokens) - 1  # guesses that came true are computed already
        entry.tokens += tokens

    def remove(self, request_id: int) -> None:
        """Takes out a sequence, wherever it is."""
        entry = self.entries.pop(request_id)
        self._deadlines.pop(request_id, None)
        if request_id in self.running:
            self.running.remove(request_id)
        else:
            self._waiting[entry.terms.priority][entry.terms.key].remove(request_id)
            self.num_waiting -= 1
        self.pool.release(entry.blocks)
        self._tidy(entry.terms)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.entries

    def plan(self, now: float = 0.0, drafts: dict[int, int] | None = None) -> Plan:
        """The next step, which the caller must compute. drafts: how many guessed tokens each may check besides."""
        self._step += 1
        plan = Plan()
        for request_id in [i for i, deadline in self._deadlines.items() if deadline < now]:
            self.remove(request_id)
            plan.expired.append(request_id)
        # Answers first, then prompts that have begun. Who may have to give way is behind those it gives way to, so that
        # nothing is taken back that is planned already.
        begun = [i for i in self.running if self.entries[i].missing > 1]
        order = [i for i in self.running if self.entries[i].missing == 1] + begun if begun else list(self.running)
        reserve = len(order)  # a position for each of those behind
        for request_id in order:
            reserve -= 1
            if plan.preempted and request_id not in self.running:  # it was preempted by one before it
                continue
            guessed = drafts.get(request_id, 0) if drafts else 0
            self._run(request_id, self.max_step_tokens - plan.size - reserve, guessed, plan)
        while self.num_waiting and plan.size < self.max_step_tokens and not plan.preempted:
            if len(self.running) >= self.max_running or not self._admit(chosen := self._next()):
                break
            self._run(chosen, self.max_step_tokens - plan.size, 0, plan)
        return plan

    def table(self, request_id: int) -> list[int]:
        """The blocks of a sequence, in order."""
        return self.entries[request_id].blocks

    def start_over(self) -> None:
        """What was computed holds no more: all that run wait again, and nothing is known of any block."""
        for request_id in reversed(self.running.copy()):
            self._give_back(request_id)
        self.pool.forget()

    def reset(self) -> list[int]:
        """Drops everybody, after a step that failed; who they were."""
        gone = list(self.entries)
        for request_id in gone:
            self.remove(request_id)
        self.pool.forget()
        return gone

    def _run(self, request_id: int, budget: int, drafts: int, plan: Plan) -> None:
        """Plans the sequence's next positions, with others' blocks if there are no free ones."""
        entry = self.entries[request_id]
        begin, known = entry.computed, len(entry.tokens)
        end = min(known, begin + budget)
        if drafts:
            room = min(begin + budget - end, entry.longest - known - 1)
            drafts = max(0, min(drafts, room)) if end == known else 0
        while (blocks := -(-(end + drafts) // BLOCK_SIZE) - len(entry.blocks)) > 0 and not self._grow(entry, blocks):
            if drafts:
                drafts = 0
                continue
            victim = self.running[-1]
            self._preempt(victim, plan)
            if victim == request_id:
                return
        plan.chunks.append(Chunk(request_id, begin, end + drafts, drafts))
        plan.size += end + drafts - begin
        self._served[entry.terms.key] += end - begin
        entry.computed = end
        if end // BLOCK_SIZE > entry.published:
            self._publish(entry)

    def _grow(self, entry: Entry, blocks: int) -> bool:
        if blocks > self.pool.available:
            return False
        entry.blocks += self.pool.take(blocks)
        return True

    def _publish(self, entry: Entry) -> None:
        """Full blocks of tokens that are certain. Those of this step too: keys are written before they are read."""
        full = entry.computed // BLOCK_SIZE
        if len(entry.keys) < full:
            entry.keys = block_keys(entry.tokens[: full * BLOCK_SIZE], entry.keys, entry.terms.scope)
        for i in range(entry.published, full):
            self.pool.publish(entry.blocks[i], entry.keys[i])
        entry.published = full

    def _admit(self, request_id: int) -> bool:
        """Lets it run, if all its tokens have room."""
        entry = self.entries[request_id]
        # The last token is always computed: its logits are what is wanted.
        most = (len(entry.tokens) - 1) // BLOCK_SIZE
        entry.keys = block_keys(entry.tokens, entry.keys, entry.terms.scope)
        found = self.pool.find(entry.keys[:most])
        self.pool.share(found)
        missing = -(-len(entry.tokens) // BLOCK_SIZE) - len(found)
        # Each of those that run may want a block soon.
        if missing + len(self.running) > self.pool.available:
            self.pool.release(found)
            return False
        entry.blocks, entry.published = found + self.pool.take(missing), len(found)
        entry.computed = len(found) * BLOCK_SIZE
        if not entry.admitted:  # later it finds its own
            self.cached_tokens += entry.computed
        entry.admitted = True
        self._waiting[entry.terms.priority][entry.terms.key].popleft()
        self.num_waiting -= 1
        insort(self.running, request_id, key=self._rank)
        return True

    def _next(self) -> int:
        """Who is to be admitted: of the highest priority, its longest wait counted, the key that has had least."""
        heads = {
            priority: [(self._served[key], queue[0]) for key, queue in queues.items() if queue]
            for priority, queues in self._waiting.items()
        }
        heads = {priority: found for priority, found in heads.items() if found}

        def raised(priority: int) -> tuple[int, int]:
            # A whole priority is raised: within one, who has waited longer has no claim on who has had less.
            oldest = min(self.entries[request_id].arrived for _, request_id in heads[priority])
            return priority + (self._step - oldest) // PATIENCE, priority

        return min(heads[max(heads, key=raised)])[1]

    def _rank(self, request_id: int) -> tuple[int, int, int]:
        """The order of those that run: the last one, of the lowest priority that came last, gives way."""
        entry = self.entries[request_id]
        return (-entry.terms.priority, entry.arrived, request_id)

    def _preempt(self, request_id: int, plan: Plan) -> None:
        self._give_back(request_id)
        plan.preempted.append(request_id)

    def _give_back(self, request_id: int) -> None:
        """It waits again, with nothing computed, before the others of its key."""
        entry = self.entries[request_id]
        self.running.remove(request_id)
        self.pool.release(entry.blocks)
        entry.blocks, entry.computed, entry.published = [], 0, 0
        self._queue(request_id, entry, first=True)

    def _queue(self, request_id: int, entry: Entry, *, first: bool = False) -> None:
        key = entry.terms.key
        if key not in self._served:  # who was away has no claim on what the others had meanwhile
            self._served[key] = min(self._served.values(), default=0.0)
        queue = self._waiting[entry.terms.priority].setdefault(key, deque())
        (queue.appendleft if first else queue.append)(request_id)
        self.num_waiting += 1

    def _tidy(self, terms: Terms) -> None:
        """Forgets a key of which nobody is here."""
        queues = self._waiting[terms.priority]
        if not queues.get(terms.key):
            queues.pop(terms.key, None)
        self._present[terms.key] -= 1
        if not self._present[terms.key]:
            del self._present[terms.key], self._served[terms.key]
