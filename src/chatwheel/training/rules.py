"""Rewards that can be verified: 1 for an answer that is right and 0 for one that is not, by a rule instead of a model.

What is right stands in the prompt's record, as `reference`: the text, a number, or a JSON schema.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import jsonschema
import torch
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.training.rewards import FunctionReward, Question, Reward, RewardSource, ServerReward

NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+−]?\.\d+")
PUNCTUATION = string.punctuation + "。，、；：？！“”‘’（）《》【】…—"


@dataclass(frozen=True)
class RuleReward:
    """name: a key of RULES."""

    name: str

    def __post_init__(self) -> None:
        """Raises InputError for a rule that is not known."""
        if self.name not in RULES:
            raise InputError(f"reward rule {self.name!r} is not known; known are {', '.join(RULES)}")

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        rule = RULES[self.name]
        right = []
        for question, answer in zip(questions, answers, strict=True):
            if question.reference is None:
                said = str(question.messages[-1]["content"])[:40] if question.messages else "a prompt"
                raise InputError(
                    f"reward rule {self.name}: the prompt {said!r} has no reference; add one to its record"
                )
            right.append(float(rule(answer.text, question.reference)))
        return torch.tensor(right)


def judge_of(source: RewardSource) -> Reward | None:
    """What a recipe names, unless it is a model. Raises InputError for what is not there."""
    if source.function is not None:
        return FunctionReward.load(source.function)
    if source.url is not None:
        return ServerReward(source.url, source.timeout)
    return RuleReward(source.rule) if source.rule is not None else None


def exact(answer: str, reference: str) -> bool:
    """The same text, but for case, punctuation, white space and full-width forms."""
    return _plain(answer) == _plain(reference)


def contains(answer: str, reference: str) -> bool:
    """The reference somewhere in the answer, compared as `exact` does, at the borders of words."""
    return f" {_plain(reference)} " in f" {_plain(answer)} " or (
        not reference.isascii() and _plain(reference) in _plain(answer)  # where words have no borders
    )


def number(answer: str, reference: str) -> bool:
    """The answer's last number is the reference's last one (GSM8K writes it behind "####")."""
    found, wanted = _last_number(answer), _last_number(reference)
    if wanted is None:
        raise InputError(f"reward rule number: the reference {reference[:40]!r} has no number")
    return found == wanted


def json_schema(answer: str, reference: str) -> bool:
    """The answer is JSON, alone or in a code block, that follows the reference, a JSON schema."""
    try:
        schema = json.loads(reference)
        validator = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
    except (ValueError, TypeError, jsonschema.SchemaError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"reward rule json_schema: the reference is no JSON schema ({said})") from None
    text = answer.strip()
    if fenced := re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", text, re.DOTALL):
        text = fenced[1]
    try:
        return bool(validator(schema).is_valid(json.loads(text)))
    except (ValueError, RecursionError):
        return False


RULES: dict[str, Callable[[str, str], bool]] = {
    "exact": exact,
    "contains": contains,
    "number": number,
    "json_schema": json_schema,
}


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.translate(dict.fromkeys(map(ord, PUNCTUATION), " ")).split())


def _last_number(text: str) -> Decimal | None:
    found = NUMBER.findall(unicodedata.normalize("NFKC", text))
    return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None
