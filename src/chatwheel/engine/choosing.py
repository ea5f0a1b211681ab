"""What the next tokens of a step's answers are chosen from, and how."""

from __future__ import annotations

import numpy as np

from chatwheel.engine.assembly import Sampled
from chatwheel.engine.batch import Choice, FloatArray
from chatwheel.engine.sampling import Rows, adjust


class Choosing:
    """How the next tokens of some answers are chosen; kept while they are the same ones."""

    def __init__(self, sampled: list[Sampled]) -> None:
        self.sampled = sampled
        self._adjusts = any(s.sequence.adjusts for s in sampled)
        self._each = [s.sequence for s in sampled for _ in range(len(s.guesses) + 1)]
        self._index = [s.first + i for s in sampled for i in range(len(s.guesses) + 1)]
        self._ahead = [i for s in sampled for i in range(len(s.guesses) + 1)]
        self._rows = Rows([s.params for s in self._each], [s.seed for s in self._each])

    def choice(self, logits: FloatArray) -> Choice:
        """What to choose from, of a step's logits."""
        raw = logits if len(self._index) == len(logits) else np.ascontiguousarray(logits[self._index])
        scores = self._adjusted(raw) if self._adjusts else raw
        lengths = [len(sequence.token_ids) for sequence in self._each]
        return self._rows.choice(scores, raw, [n + i for n, i in zip(lengths, self._ahead, strict=True)])

    def _adjusted(self, raw_NV: FloatArray) -> FloatArray:
        scores_NV, row = raw_NV.copy(), 0
        for sequence, _, guesses in self.sampled:
            for i in range(len(guesses) + 1 if sequence.adjusts else 0):
                answer, stops = [*sequence.token_ids, *guesses[:i]], list(sequence.stops)
                adjust(scores_NV[row + i], sequence.params, sequence.request.prompt_ids, answer, stops)
                if sequence.matcher is not None:  # such a sequence has no guesses
                    sequence.matcher.mask(scores_NV[row + i])
            row += len(guesses) + 1
        return scores_NV
