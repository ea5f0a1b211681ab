"""Who judges answers while a policy learns: a reward model, a Python function, a server, a rule, or several of them.

Whatever they give is checked: a number for each answer, each of them finite. What they get wrong ends the run with one
line, and the run can go on from its last save once it is mended.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.transformer import ScalarModel
from chatwheel.training.reward import score


class RewardSource(BaseModel):
    """One of those who judge: a reward `model` ("reward" is the run's own, else a name or a directory); a Python
    `function`, FILE.py:FUNCTION or MODULE:FUNCTION; a server's `url`, which has `timeout` seconds; a `rule` that
    compares with the prompt's reference; or a `grader` of a fine-tuning job. weight: of what it gives in the sum.

    model: a reward model, "reward" for the run's own, else a name or a directory. function: FILE.py:FUNCTION or
    MODULE:FUNCTION, called with lists of prompts (messages) and answers (texts), and `references` if it takes them;
    gives a number for each. url: a server that is sent {"prompts", "answers", "references"} and answers {"rewards"}.
    rule: exact, contains, number, json_schema or unit_tests, beside the prompt's reference. timeout: seconds that a
    server has. grader: OpenAI's JSON of one, beside a prompt's line of the file, which is its reference as JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str | None = None
    function: str | None = None
    url: str | None = None
    rule: str | None = None
    grader: dict[str, Any] | None = None
    weight: float = Field(default=1.0, allow_inf_nan=False)
    timeout: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> RewardSource:
        given = [name for name in ("model", "function", "url", "rule", "grader") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a reward has one of model, function, url, rule and grader, not {' and '.join(given) or 'none'}"
            )
        return self

    @property
    def name(self) -> str:
        """For metrics and errors."""
        if self.grader is not None:
            return str(self.grader.get("name", "grader"))
        return next(str(value) for value in (self.model, self.function, self.url, self.rule) if value is not None)

    def judges_as(self, other: RewardSource) -> bool:
        """Whether it is the same judge, whatever its weight and its patience."""
        return all(getattr(self, kind) == getattr(other, kind) for kind in ("model", "function", "url", "rule"))


OWN = "reward"
"""The name by which a recipe means the run's own reward model."""
TRIES, PAUSE = 3, 1.0
"""How often a server is asked before its silence ends the run, and the seconds in between, which double."""


@dataclass(frozen=True)
class Question:
    """A prompt. ids: as the chat template makes it. messages: as people read it. reference: what a right answer is
    compared with, where the data says it."""

    ids: tuple[int, ...]
    messages: tuple[Mapping[str, Any], ...] = ()
    reference: str | None = None


class Reward(Protocol):
    """Judges whole answers."""

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        """One number an answer, in fp32. Raises InputError for what its owner must mend."""
        ...


@dataclass(frozen=True, kw_only=True)
class RewardModelReward:
    """A reward model's score, demonstrations at 0 and one standard deviation at 1, clipped to +-10."""

    model: ScalarModel
    mean: float
    std: float
    row_length: int
    dtype: torch.dtype
    end_id: int

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        # An answer that was cut off is judged as if it had ended there; PPO punishes the cut itself.
        sequences = [
            [*question.ids, *(answer.token_ids if ended(answer, self.end_id) else (*_text(answer), self.end_id))]
            for question, answer in zip(questions, answers, strict=True)
        ]
        raw = score(self.model, sequences, self.row_length, self.dtype)
        # A reward model that has learnt nothing gives all demonstrations the same score.
        return ((raw - self.mean) / max(self.std, 1e-6)).clamp(-10, 10)


def ended(answer: Completion, end_id: int) -> bool:
    """True if the answer ends its turn as a chat does: not cut off, and not by the end of a text."""
    return answer.finish_reason == "stop" and answer.token_ids[-1] == end_id


def _text(answer: Completion) -> tuple[int, ...]:
    """The tokens of an unfinished answer, without the end of a text."""
    return answer.token_ids[:-1] if answer.finish_reason == "stop" else answer.token_ids


@dataclass(frozen=True)
class FunctionReward:
    """A Python function `reward(prompts, answers)`: lists of messages (`{"role", "content"}`) and texts go in, numbers
    come out. One that takes `references` is given those too; a coroutine function is awaited. name: for errors.

    It is code that runs with the rights of whoever runs the recipe: take recipes with functions from nobody else.
    """

    function: Callable[..., Any]
    name: str

    @staticmethod
    def load(place: str) -> FunctionReward:
        """`file.py:function`, or `package.module:function`. Raises InputError."""
        where, colon, function = place.rpartition(":")
        if not colon or not where or not function.isidentifier():
            raise InputError(f"reward {place!r}: expected FILE.py:FUNCTION or MODULE:FUNCTION")
        found = getattr(_module(where, place), function, None)
        if not callable(found):
            raise InputError(f"reward {place}: there is no function {function!r}")
        return FunctionReward(found, place)

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        given: dict[str, Any] = {}
        if "references" in _parameters(self.function):
            given["references"] = [question.reference for question in questions]
        prompts = [[dict(message) for message in question.messages] for question in questions]
        try:
            values = self.function(prompts, [answer.text for answer in answers], **given)
            if inspect.isawaitable(values):
                values = asyncio.run(_awaited(values))
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"reward {self.name}: {said} ({Path(place.filename).name}, line {place.lineno})"
            ) from error
        return checked(values, len(answers), self.name)


@dataclass(frozen=True)
class ServerReward:
    """An HTTP service: POST of `{"prompts": [[{"role", "content"}, ...], ...], "answers": [...], "references": [...]}`
    gets `{"rewards": [...]}`. timeout: seconds that it has."""

    url: str
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Raises InputError for what is no address."""
        try:
            parts = urlsplit(self.url)
            _ = parts.port  # raises where it is no number
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            known = False
        if not known:
            raise InputError(f"reward {self.url!r}: expected an address that begins with http:// or https://")

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        body = {
            "prompts": [[dict(message) for message in question.messages] for question in questions],
            "answers": [answer.text for answer in answers],
            "references": [question.reference for question in questions],
        }
        found = self._post(body)
        if not isinstance(found, dict) or "rewards" not in found:
            raise InputError(f'reward {self.url}: answered without "rewards"; it must be {{"rewards": [...]}}')
        return checked(found["rewards"], len(answers), self.url)

    def _post(self, body: dict[str, Any]) -> Any:
        said = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                response = httpx.post(self.url, json=body, timeout=self.timeout)
            except httpx.TimeoutException:
                said = f"no answer within {self.timeout:g} s"
            except httpx.HTTPError as error:
                said = " ".join(str(error).split()) or type(error).__name__
            else:
                if response.is_success:
                    try:
                        return response.json()
                    except ValueError:
                        raise InputError(f"reward {self.url}: answered something that is not JSON") from None
                said = f"HTTP {response.status_code}"
                if response.status_code < 500 and response.status_code != 429:
                    break  # asking again changes nothing
        raise InputError(f"reward {self.url}: {said}; see to the server, then the same command goes on")


@dataclass
class WeightedReward:
    """A sum of others. parts: each with its name, its judge and its weight. values: what each part gave, before its
    weight, the last time."""

    parts: Sequence[tuple[str, Reward, float]]
    values: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        total = torch.zeros(len(answers))
        for name, judge, weight in self.parts:
            values = judge(questions, answers).float().cpu()
            self.values[name] = values
            total += weight * values
        return total


@dataclass
class EnsembleReward(WeightedReward):
    """The mean of reward models less `caution` times their standard deviation: what they do not agree on counts less,
    so that a policy gains little where one of them errs (Coste et al., 2023, "Reward model ensembles help mitigate
    overoptimization", take off the variance). From caution = sqrt(members - 1) on it is at most the worst of them.
    values: also the deviation."""

    caution: float = 1.0

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        values_MN = torch.stack([judge(questions, answers).float().cpu() for _, judge, _ in self.parts])
        deviation_N = values_MN.std(0, correction=0)
        names = [name for name, _, _ in self.parts]
        self.values = dict(zip(names, values_MN, strict=True)) | {"disagreement": deviation_N}
        return values_MN.mean(0) - self.caution * deviation_N


def checked(values: Any, count: int, name: str) -> Tensor:
    """Rewards as a vector. Raises InputError unless they are so many finite numbers."""
    if isinstance(values, Tensor):
        values = values.tolist()
    try:
        numbers = [] if isinstance(values, str | bytes | dict) else [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"reward {name}: expected {count} numbers, found {_shown(values)}") from None
    if len(numbers) != count:
        raise InputError(f"reward {name}: gave {len(numbers)} numbers for {count} answers")
    wrong = next((i for i, number in enumerate(numbers) if not math.isfinite(number)), None)
    if wrong is not None:
        raise InputError(f"reward {name}: gave {numbers[wrong]} for answer {wrong + 1} of {count}; it must be finite")
    return torch.tensor(numbers, dtype=torch.float32)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


async def _awaited(values: Any) -> Any:
    return await values


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _module(where: str, place: str) -> ModuleType:
    path = Path(where).expanduser()
    if path.suffix == ".py":
        if not path.is_file():
            raise InputError(f"reward {place}: no such file")
        spec = importlib.util.spec_from_file_location(f"chatwheel_reward_{path.stem}", path)
    else:
        try:
            spec = importlib.util.find_spec(where)
        except (ImportError, ValueError):
            spec = None
    if spec is None or spec.loader is None:
        raise InputError(f"reward {place}: no such module")
    if path.suffix != ".py" and where in sys.modules:
        return sys.modules[where]
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"reward {place}: {said}") from error
    return module
