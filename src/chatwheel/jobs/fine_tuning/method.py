"""How a job learns, as clients of OpenAI's API say it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chatwheel.errors import InputError
from chatwheel.jobs.fine_tuning.defaults import Auto, Hyperparameters
from chatwheel.jobs.fine_tuning.examples import Kind
from chatwheel.jobs.fine_tuning.graders import Grader, parse_grader


class DPOHyperparameters(Hyperparameters):
    """beta: how dear it is to move away from the base model."""

    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    """compute_multiplier: times the answers that are sampled to each prompt. reasoning_effort, eval_interval and
    eval_samples are accepted as "auto" only."""

    compute_multiplier: Auto | Annotated[float, Field(gt=0, le=8)] = "auto"
    eval_interval: Auto = "auto"
    eval_samples: Auto = "auto"
    reasoning_effort: Literal["default"] = "default"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Supervised(_Strict):
    """From demonstrations."""

    hyperparameters: Hyperparameters = Hyperparameters()


class DPO(_Strict):
    """From pairs of answers."""

    hyperparameters: DPOHyperparameters = DPOHyperparameters()


class Reinforcement(_Strict):
    """From graded answers of its own."""

    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()


class Method(_Strict):
    """One of three. forecast: ours: also train on 1/8, 1/4 and 1/2 of the examples, and say what twice as many would
    bring; it takes about twice the time, and a validation file."""

    type: Literal["supervised", "dpo", "reinforcement"] = "supervised"
    supervised: Supervised | None = None
    dpo: DPO | None = None
    reinforcement: Reinforcement | None = None
    forecast: bool = False

    @model_validator(mode="after")
    def _one_of_them(self) -> Method:
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"{name}: the method's type is {self.type}; take {name} out")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("reinforcement: is missing; it names the grader")
        if self.forecast and self.type != "supervised":
            raise ValueError("forecast: is of supervised jobs; take it out")
        return self

    @property
    def kind(self) -> Kind:
        """What its file holds."""
        kinds: dict[str, Kind] = {"dpo": "preference", "reinforcement": "reinforcement"}
        return kinds.get(self.type, "supervised")

    @property
    def hyperparameters(self) -> Hyperparameters:
        """As they were asked for."""
        part: Supervised | DPO | Reinforcement | None = getattr(self, self.type)
        if part is not None:
            return part.hyperparameters
        return DPOHyperparameters() if self.type == "dpo" else Hyperparameters()

    @property
    def grader(self) -> Grader | None:
        """Who judges in reinforcement."""
        return None if self.reinforcement is None else parse_grader(self.reinforcement.grader)

    def shown(self, numbers: dict[str, Any]) -> dict[str, Any]:
        """As a job shows it, with numbers in place of "auto" once they are known."""
        part = {"hyperparameters": {**self.hyperparameters.model_dump(), **numbers}}
        if self.reinforcement is not None:
            part["grader"] = self.reinforcement.grader
        return {"type": self.type, self.type: part}


def parse_method(value: Any) -> Method:
    """Raises InputError that names the field."""
    try:
        method = Method.model_validate(value, strict=False)
    except ValidationError as error:
        raise _named(error) from None
    if method.reinforcement is not None:
        parse_grader(method.reinforcement.grader, "method.reinforcement.grader")
    return method


def _named(error: ValidationError) -> InputError:
    """One that says which field, what is expected and what was given. Where "auto" or a number may stand, the number's
    fault is the telling one, which pydantic names last."""
    faults = error.errors()
    field = _field(faults[0]["loc"])
    fault = [one for one in faults if _field(one["loc"]) == field][-1]
    where = ".".join(map(str, ("method", *field)))
    reason = str(fault["msg"]).removeprefix("Value error, ")
    if len(field) < len(faults[0]["loc"]):
        reason = f"expected 'auto' or {reason.removeprefix('Input should be ')}, got {fault['input']!r:.80}"
    return InputError(f"{where}: {reason}", param=where)


def _field(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without the names that pydantic gives to the branches of a union."""
    return tuple(
        part for part in location if isinstance(part, int) or not re.search(r"\[|^constrained-|^int$|^float$", part)
    )
