"""Answers of the current policy to a batch of prompts: sampled, held with what is known of them, described, noted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatwheel.atomic import write_atomically
from chatwheel.data.records import Prompt
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.training.answers import PromptedAnswer
from chatwheel.training.rewards import Question


def sample_answers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seeds: Sequence[int],
    temperature: float = 1.0,
    adapter: str | None = None,
) -> list[Completion]:
    """One answer a prompt from the policy's own distribution: no truncation, so that log-probs mean what they say."""
    requests = [
        Request(
            prompt_ids=tuple(prompt),
            params=SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed),
            adapter=adapter,
        )
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return engine.generate(requests)


def encode_prompts(prompts: Iterable[Prompt], tokenizer: Tokenizer, longest: int, name: str = "ppo") -> list[Question]:
    """Prompts with their token ids; those that leave no room for an answer are left out. Raises InputError if none
    fits."""
    encoded = []
    for prompt in prompts:
        messages = tuple(message.model_dump(exclude_none=True) for message in prompt.messages)
        ids = tokenizer.encode_prompt(messages)
        if len(ids) <= longest:
            encoded.append(Question(tuple(ids), messages, prompt.reference))
    if not encoded:
        raise InputError(
            f"{name}: no prompt of at most {longest} tokens; check data.prompts or raise {name}.row_length"
        )
    return encoded


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Answers and what was true when they were sampled. questions: the prompt of each. scores: A. by_judge: what each
    of several judges gave, A. kl: the coefficient of the penalty. per_token: vectors N: "log_probs" as they were;
    "importance", where a trainer and the sampler differ; and "reference", if there is one. staleness: how many rollouts
    ago the sampler was the policy."""

    questions: Sequence[Question]
    completions: Sequence[Completion]
    scores: Tensor
    kl: float
    per_token: Mapping[str, Tensor]
    staleness: int = 0
    by_judge: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each answer."""
        return [len(completion.token_ids) for completion in self.completions]

    @property
    def log_ratio(self) -> Tensor:
        """log p - log p_reference of each token, N; 0 without a reference."""
        log_probs_N = self.per_token["log_probs"]
        return log_probs_N - self.per_token.get("reference", log_probs_N)

    def as_sampled_now(self, vector_N: Tensor) -> Tensor:
        """Of a stale rollout, what means over the tokens are to be of, so that they are those of the policy's own: each
        token counts by its importance."""
        return vector_N * self.per_token["importance"] if self.staleness else vector_N

    def prompted(self, chosen: Iterable[int]) -> list[PromptedAnswer]:
        """Some of the answers behind their prompts."""
        return [
            PromptedAnswer([*self.questions[i].ids, *self.completions[i].token_ids], len(self.questions[i].ids))
            for i in chosen
        ]

    def only(self, chosen: Sequence[int]) -> Rollout:
        """Some of the answers."""
        lengths = self.lengths
        return replace(
            self,
            questions=[self.questions[i] for i in chosen],
            completions=[self.completions[i] for i in chosen],
            scores=self.scores[list(chosen)],
            by_judge={name: values[list(chosen)] for name, values in self.by_judge.items()},
            per_token={name: pick(vector, lengths, chosen) for name, vector in self.per_token.items()},
        )


def pick(vector_N: Tensor, lengths: Sequence[int], chosen: Sequence[int]) -> Tensor:
    """The parts of a flat vector that are some answers'."""
    pieces = torch.split(vector_N, list(lengths))
    return torch.cat([pieces[i] for i in chosen]) if chosen else vector_N[:0]


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's; 0 where one of them is all the same."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size > 1e-9 else 0.0


def repetition(tokens: Sequence[int], size: int = 4) -> float:
    """The share of a text's runs of so many tokens that were there before in it."""
    runs = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


class RolloutLog:
    """`rollouts.jsonl`: for each rollout a line {"step", "best", "worst"} with a few answers to be read. What cannot be
    written is left out: it is not worth a run."""

    def __init__(self, path: Path) -> None:
        self._path, self._begun = path, False

    def add(self, step: int, shown: Mapping[str, Any]) -> None:
        """Of the rollout that this step begins with."""
        line = json.dumps({"step": step, **shown}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with suppress(ChatwheelError, OSError, ValueError):
            if not self._begun:  # what came after the last save is done again
                self._path.parent.mkdir(parents=True, exist_ok=True)
                lines = self._path.read_bytes().splitlines() if self._path.is_file() else []
                write_atomically(self._path, (kept + b"\n" for kept in lines if _step_of(kept) < step))
                self._begun = True
            with self._path.open("ab", buffering=0) as log:
                log.write(line)


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
