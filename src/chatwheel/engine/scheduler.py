"""Who runs next: a pure data structure, without tensors or models.

First come, first served. Each step decodes all running requests, then prefills waiting ones into free slots.
Running requests occupy slots 0..n-1; when one leaves, the last one moves into its slot, and the plan says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from chatwheel.errors import OverloadedError


@dataclass(frozen=True)
class Admission:
    """A request enters a slot."""

    request_id: int
    slot: int


@dataclass(frozen=True)
class Move:
    """The content of slot `source` moves to slot `target`."""

    source: int
    target: int


@dataclass(kw_only=True)
class Scheduler:
    """Waiting and running requests, by id.

    max_running: slots. max_waiting: beyond it, `add` raises OverloadedError. max_prefill_tokens: prompt tokens that
    enter in one step, padded to the longest (at least one request always does), so that running answers are not held
    up for long.
    """

    max_running: int
    max_waiting: int | None = None
    max_prefill_tokens: int = 4096
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    running: list[int] = field(default_factory=list)

    def add(self, request_id: int, prompt_tokens: int) -> None:
        """Queues a request. Raises OverloadedError when the queue is full."""
        if self.max_waiting is not None and len(self.waiting) >= self.max_waiting:
            raise OverloadedError(
                f"{len(self.waiting)} requests are waiting already; try again in a moment", code="queue_full"
            )
        self.waiting.append((request_id, prompt_tokens))

    def admit(self) -> list[Admission]:
        """Moves waiting requests into free slots; they are to be prefilled now."""
        admitted: list[Admission] = []
        longest = 0
        while self.waiting and len(self.running) < self.max_running:
            request_id, prompt_tokens = self.waiting[0]
            longest = max(longest, prompt_tokens)
            if admitted and longest * (len(admitted) + 1) > self.max_prefill_tokens:
                break
            self.waiting.popleft()
            admitted.append(Admission(request_id, len(self.running)))
            self.running.append(request_id)
        return admitted

    def remove(self, request_id: int) -> Move | None:
        """Takes out a request, wherever it is; the move that keeps the slots dense, if one is needed."""
        if request_id in self.running:
            slot = self.running.index(request_id)
            last = self.running.pop()
            if last == request_id:
                return None
            self.running[slot] = last
            return Move(source=len(self.running), target=slot)
        self.waiting = deque(item for item in self.waiting if item[0] != request_id)
        return None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.running
