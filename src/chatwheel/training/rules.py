"""Rewards that can be verified: 1 for an answer that is right and 0 for one that is not, by a rule instead of a model.

What is right stands in the prompt's record, as `reference`: the text, a number, a JSON schema, or tests of code.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import jsonschema
import referencing
import referencing.exceptions
import torch
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.sandbox.process import check_available
from chatwheel.training.rewards import FunctionReward, Question, Reward, RewardSource, ServerReward
from chatwheel.training.unit_tests import unit_tests

NUMBER = re.compile(
    r"(?:(?<!\w)[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?|(?:(?<!\w)[-+])?\.\d+", re.ASCII
)
PUNCTUATION = re.escape(string.punctuation + "。，、；：？！“”‘’（）《》【】…—")
# A sign before a number and what parts its digits belong to it.
NOISE = re.compile(rf"(?!(?<=\d)[.,](?=\d))(?!(?<!\w)[-+](?=\d))[{PUNCTUATION}]")
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f]")
"""Scripts that put no spaces between words: kana, Han, Thai."""


@dataclass(frozen=True)
class RuleReward:
    """name: a key of RULES or WHOLE."""

    name: str

    def __post_init__(self) -> None:
        """Raises InputError for a rule that is not known, or that cannot be applied here."""
        if self.name not in RULES and self.name not in WHOLE:
            raise InputError(f"reward rule {self.name!r} is not known; known are {', '.join([*RULES, *WHOLE])}")
        if self.name == "unit_tests":
            check_available()

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        references = [self._reference(question) for question in questions]
        texts = [answer.text for answer in answers]
        if self.name in WHOLE:
            right = WHOLE[self.name](texts, references)
        else:
            right = [RULES[self.name](text, reference) for text, reference in zip(texts, references, strict=True)]
        return torch.tensor(right, dtype=torch.float32)

    def _reference(self, question: Question) -> str:
        if question.reference is None:
            said = str(question.messages[-1]["content"])[:40] if question.messages else "a prompt"
            raise InputError(f"reward rule {self.name}: the prompt {said!r} has no reference; add one to its record")
        return question.reference


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
    found, wanted = _plain(answer), _plain(reference)
    if not wanted:
        raise InputError(f"reward rule contains: the reference {reference[:40]!r} says nothing")
    return f" {wanted} " in f" {found} " or (bool(UNSPACED.search(wanted)) and wanted in found)


def number(answer: str, reference: str) -> bool:
    """The answer's last number is the reference's last one (GSM8K writes it behind "####"); 1/2 is a number too."""
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
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    try:
        # An empty registry: a schema's references lead nowhere but into itself, not to files and servers.
        return bool(validator(schema, registry=referencing.Registry()).is_valid(value))
    except RecursionError:
        return False
    except referencing.exceptions.Unresolvable as error:
        raise InputError(f"reward rule json_schema: the reference's {error} is not in it") from None


RULES: dict[str, Callable[[str, str], bool]] = {
    "exact": exact,
    "contains": contains,
    "number": number,
    "json_schema": json_schema,
}
WHOLE: dict[str, Callable[[Sequence[str], Sequence[str]], list[bool]]] = {"unit_tests": unit_tests}
"""Rules that judge a rollout's answers together."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("−", "-").casefold()
    return " ".join(NOISE.sub(" ", text).split())


LONGEST = 1000


def _last_number(text: str) -> Fraction | None:
    # Full-width digits and signs are narrowed, but a small 2 above the line stays what it is.
    text = text.translate({0xFEE0 + i: i for i in range(0x21, 0x7F)}).replace("−", "-")
    for found in reversed(NUMBER.findall(text)):
        above, _, below = found.replace(",", "").replace(" ", "").partition("/")
        if len(found) > LONGEST:  # no number that anybody means, and more digits than Python reads
            continue
        if not below or int(below):
            return Fraction(above) / (int(below) if below else 1)
    return None
