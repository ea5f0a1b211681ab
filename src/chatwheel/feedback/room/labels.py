"""What is said of an answer that is rated: flags that are up or down, and scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.errors import InputError

Value = bool | int


class LabelQuestion(BaseModel):
    """One question. meaning: what it asks, in a sentence. A flag is true or false; a scale goes from 1 to `points`, and
    `low` and `high` say what its ends are."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    name: str = Field(min_length=1, max_length=60, pattern=r"^\S(.*\S)?$")
    kind: Literal["flag", "scale"]
    meaning: str = Field(default="", max_length=300)
    points: int = Field(default=5, ge=2, le=9)
    low: str = Field(default="", max_length=60)
    high: str = Field(default="", max_length=60)


USUAL: tuple[LabelQuestion, ...] = (
    LabelQuestion(name="spam", kind="flag", meaning="Nonsense, or put there to annoy"),
    LabelQuestion(name="fails the task", kind="flag", meaning="Does not do what was asked for"),
    LabelQuestion(name="personal data", kind="flag", meaning="Tells who somebody is, or how to reach them"),
    LabelQuestion(name="hateful", kind="flag", meaning="Against people for what they are"),
    LabelQuestion(name="quality", kind="scale", meaning="How well it is done", low="poor", high="excellent"),
    LabelQuestion(name="helpfulness", kind="scale", meaning="How much it helps", low="useless", high="just right"),
    LabelQuestion(name="harmlessness", kind="scale", meaning="What it could do", low="harmful", high="harmless"),
)
"""What Open-Assistant asked, in fewer words."""


def questions(labels: Sequence[Mapping[str, Any]]) -> list[LabelQuestion]:
    """Of a queue's column."""
    return [LabelQuestion.model_validate(dict(one)) for one in labels]


def check_labels(asked: Sequence[LabelQuestion], said: Mapping[str, Any]) -> dict[str, Value]:
    """An answer to each question. Raises InputError that names the label."""
    unknown = sorted(set(said) - {one.name for one in asked})
    if unknown:
        names = ", ".join(one.name for one in asked)
        raise InputError(f"labels: {unknown[0]!r} is not asked for here; there are {names}", param="labels")
    for one in asked:
        value = said.get(one.name)
        if one.kind == "flag" and not isinstance(value, bool):
            raise InputError(f"labels: {one.name!r} should be true or false, found {value!r}", param="labels")
        if one.kind == "scale" and (type(value) is not int or not 1 <= value <= one.points):
            raise InputError(f"labels: {one.name!r} should be from 1 to {one.points}, found {value!r}", param="labels")
    return {one.name: said[one.name] for one in asked}
