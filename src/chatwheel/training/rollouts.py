"""Answers of the current policy to a batch of prompts, with what PPO needs of each token.

Everything per token is a flat vector over the answers' tokens (N), in the order of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatwheel.data.packing import pack
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.batches import Rows


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Prompts with their answers, packed into rows.

    rows: the packed tokens. place: row and column, each N, of every answer token. lengths: tokens of each answer.
    """

    rows: Rows
    place: tuple[Tensor, Tensor]
    lengths: list[int]

    @staticmethod
    def of(
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Completion],
        row_length: int,
        device: torch.device | None = None,
    ) -> Answers:
        """Packs each prompt with its answer; together they are at most a row."""
        sequences = [[*p, *a.token_ids] for p, a in zip(prompts, answers, strict=True)]
        packed = pack(sequences, row_length)
        row: list[int] = []
        column: list[int] = []
        for prompt, answer, (at, begin, _) in zip(prompts, answers, packed.places, strict=True):
            row += [at] * len(answer.token_ids)
            column += range(begin + len(prompt), begin + len(prompt) + len(answer.token_ids))
        place = (torch.tensor(row, device=device), torch.tensor(column, device=device))
        return Answers(rows=Rows.of(packed, device), place=place, lengths=[len(a.token_ids) for a in answers])

    def log_probs(self, model: CausalLM, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """log p of each answer token given all before it, and the entropy there, N each, in nats."""
        hidden_BTD = self.rows.hidden(model.model, dtype)
        row, column = self.place
        log_probs_NV = model.logits(hidden_BTD[row, column - 1]).float().log_softmax(-1)
        chosen_N = log_probs_NV.gather(-1, self.rows.tokens[row, column][:, None])[:, 0]
        with torch.no_grad():
            entropy_N = -(log_probs_NV.exp() * log_probs_NV).sum(-1)
        return chosen_N, entropy_N

    def values(self, critic: ScalarModel, dtype: torch.dtype) -> Tensor:
        """The critic's value of the state before each answer token, N."""
        row, column = self.place
        values_BT = critic.values(self.rows.hidden(critic.model, dtype))
        return values_BT[row, column - 1]


def sample_answers(
    engine: Engine, prompts: Sequence[Sequence[int]], *, max_tokens: int, seeds: Sequence[int], temperature: float = 1.0
) -> list[Completion]:
    """One answer a prompt from the policy's own distribution: no truncation, so that log-probs mean what they say."""
    requests = [
        Request(
            prompt_ids=tuple(prompt),
            params=SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed),
        )
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return engine.generate(requests)
