"""What a model says while it learns: the same few prompts now and then, beside the curves.

It draws nothing from a global generator and changes nothing that training reads, so the weights are the same bits with
and without it; and whatever goes wrong here, training goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from chatwheel.atomic import write_atomically
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams
from chatwheel.errors import ChatwheelError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.compilation import uncompiled
from chatwheel.training.distributed import ranks

Sample = dict[str, str | float]
"""prompt, text: what it was given and what it said. reward: what a reward model thinks of it, where there is one."""

Sampler = Callable[[float], Sequence[Sample]]
"""Makes samples in about so many seconds; what takes longer is cut short."""

TIMES = 10
SHARE = 0.02
FREE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class FixedPrompt:
    """text: for people. ids: for the model. answer: what is to be judged, where none is to be written."""

    text: str
    ids: tuple[int, ...]
    answer: str = ""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is recorded of a stage for those who watch it; nothing unless given.

    peak: FLOP/s that a process's threads reach in products of matrices. prompts: what is sampled now and then.
    temperature: 0 is greedy; the seed is always the same.
    """

    peak: float = 0.0
    tokenizer: Tokenizer | None = None
    prompts: Sequence[FixedPrompt] = ()
    max_tokens: int = 48
    temperature: float = 0.0

    def sampler(
        self,
        model: CausalLM,
        dtype: torch.dtype = torch.float32,
        reward: Callable[[Sequence[FixedPrompt], Sequence[Completion]], torch.Tensor] | None = None,
    ) -> Sampler | None:
        """Continuations of the prompts; None where there is nothing to sample, or no process has the whole model."""
        if self.tokenizer is None or not self.prompts or ranks().size > 1:
            return None
        tokenizer, prompts = self.tokenizer, self.prompts

        def sample(seconds: float) -> list[Sample]:
            """The continuations that are done in so many seconds."""
            with at_rest(model):
                engine = Engine(model, tokenizer, max_running=len(prompts), dtype=dtype)
                completions = _within(seconds, engine, [self._request(p, i) for i, p in enumerate(prompts)])
                samples: list[Sample] = [
                    {"prompt": p.text, "text": c.text} for p, c in zip(prompts, completions, strict=True)
                ]
                finished = [i for i, c in enumerate(completions) if c.token_ids]
                if reward is not None and finished:
                    scores = reward([prompts[i] for i in finished], [completions[i] for i in finished])
                    for i, score in zip(finished, scores.tolist(), strict=True):
                        samples[i]["reward"] = round(score, 3)
            return samples

        return sample

    def _request(self, prompt: FixedPrompt, seed: int) -> Request:
        params = SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens, seed=seed)
        return Request(prompt_ids=prompt.ids, params=params)


@contextmanager
def at_rest(model: CausalLM | ScalarModel) -> Iterator[None]:
    """Without dropout, which would draw, and without compiled layers, which would be compiled for each new shape."""
    training = model.training
    try:
        with uncompiled(model.model.layers), torch.no_grad():
            model.eval()
            yield
    finally:
        model.train(training)


def _within(seconds: float, engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """The answers, those cut short that are not done in time."""
    until = time.monotonic() + seconds
    ids = [engine.submit(request) for request in requests]
    done: dict[int, Completion] = {}
    while len(done) < len(ids) and time.monotonic() < until:
        done |= {i: delta.completion for i, delta in engine.step() if delta.completion is not None}
    for i in ids:
        if (cut := engine.cancel(i)) is not None:
            done[i] = cut
    return [done[i] for i in ids]


class SampleLog:
    """`samples.jsonl`: a line {"step", "samples"} each tenth of the steps, while that takes at most 2 % of the time
    (a second is free). `step` counts the steps that are done. A sampler that fails is noted as {"step", "error"}, and
    not asked again."""

    def __init__(self, path: Path, sampler: Sampler | None, steps: int) -> None:
        self._path, self._sampler, self._steps = path, sampler, steps
        self._spent = self._last = 0.0

    def keep_until(self, step: int) -> None:
        """Takes out what was sampled after a step: it will be again."""
        if self._sampler is None or not self._path.is_file():
            return
        with suppress(ChatwheelError, OSError, ValueError):
            lines = self._path.read_bytes().splitlines()
            write_atomically(self._path, (line + b"\n" for line in lines if _step_of(line) <= step))

    def after(self, step: int, seconds: float) -> None:
        """Samples if it is due after so many steps and seconds of training."""
        if self._sampler is None or step * TIMES // self._steps == (step - 1) * TIMES // self._steps:
            return
        left = max(FREE_SECONDS, SHARE * seconds) - self._spent
        if self._last > left:
            return
        began = time.monotonic()
        line: dict[str, object] = {"step": step}
        try:
            line["samples"] = list(self._sampler(left))
        except Exception as error:  # whatever it is, it is not worth a run
            line["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            self._sampler = None
        with suppress(OSError, ValueError), self._path.open("ab", buffering=0) as log:
            log.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self._last = time.monotonic() - began
        self._spent += self._last


def _step_of(line: bytes) -> float:
    """The step of a line; of one that a crash cut short, infinity."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
