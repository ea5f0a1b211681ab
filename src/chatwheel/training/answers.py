"""Answers behind their prompts as packed rows, and what models make of each of their tokens.

Everything per token is a flat vector over the answers' own tokens (N), in the order of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chatwheel.data.packing import grow_trees, pack_trees
from chatwheel.model.transformer import CausalLM, ScalarModel, Trunk
from chatwheel.training.batches import Rows
from chatwheel.training.cross_entropy import token_log_probs


@dataclass(frozen=True)
class PromptedAnswer:
    """The tokens of a prompt with an answer, whose own begin at `begin` and end with the end of its turn."""

    tokens: list[int]
    begin: int

    @property
    def length(self) -> int:
        """Tokens of the answer."""
        return len(self.tokens) - self.begin


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Prompts with their answers, packed into rows; answers to one prompt, side by side, share it.

    rows: the packed tokens. before: where, in the flattened rows, the token before each answer token is, N: there it is
    predicted. targets: the answers' tokens, N. lengths: tokens of each answer.
    """

    rows: Rows
    before: Tensor
    targets: Tensor
    lengths: list[int]

    @staticmethod
    def of(answers: Sequence[PromptedAnswer], row_length: int, device: torch.device | None = None) -> Answers:
        """Packs them; each is at most a row."""
        trees = grow_trees([answer.tokens for answer in answers], row_length)
        packed = pack_trees(trees, row_length)
        before: list[np.ndarray] = []
        targets: list[int] = []
        remaining = iter(answers)
        for tree, (row, begin, _) in zip(trees, packed.places, strict=True):
            for number in range(len(tree.ends)):
                answer = next(remaining)
                places = tree.places(number, len(answer.tokens))[answer.begin - 1 : -1]
                before.append(places + (row * row_length + begin))
                targets += answer.tokens[answer.begin :]
        return Answers(
            rows=Rows.of(packed, device),
            before=torch.tensor(np.concatenate(before), device=device),
            targets=torch.tensor(targets, device=device),
            lengths=[answer.length for answer in answers],
        )

    def hidden(self, trunk: Trunk, dtype: torch.dtype) -> Tensor:
        """The hidden state from which each answer token is predicted, ND."""
        flat_XD = self.rows.hidden(trunk, dtype).flatten(0, 1)
        # Branches share the place before their first tokens, whose gradients are added there: in one order only. On a
        # CPU plain indexing has none, on a GPU `index_select`.
        return flat_XD.index_select(0, self.before) if flat_XD.device.type == "cpu" else flat_XD[self.before]

    def log_probs(self, model: CausalLM, dtype: torch.dtype) -> Tensor:
        """log p of each answer token given all before it, N, in nats."""
        return model.computing(lambda: token_log_probs(model.lm_head, self.hidden(model.model, dtype), self.targets))

    def values(self, critic: ScalarModel, dtype: torch.dtype) -> Tensor:
        """The critic's value of the state before each answer token, N."""
        return critic.values(self.hidden(critic.model, dtype))
