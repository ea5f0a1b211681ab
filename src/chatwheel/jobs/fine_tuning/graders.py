"""OpenAI's graders: who says in reinforcement how good an answer is, as JSON.

    grader = parse_grader({"type": "string_check", "name": "right", "operation": "eq",
                           "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}"})
    (grade,) = grader.grade([Sample("Paris")], [{"answer": "Paris"}])      # Grade(score=1.0)
    reward = GraderReward(grader)                                        # a judge of training/policy_gradient

`item` is a line of the training file, `sample` the answer. Where an answer cannot be graded, because it is no JSON or
because the grader failed on it, its score is 0 and the grade says why.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from torch import Tensor

from chatwheel.data.records import Json
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.jobs.fine_tuning.formula import FUNCTIONS, Formula, FormulaError
from chatwheel.jobs.fine_tuning.similarity import MEASURES, NOT_HERE
from chatwheel.jobs.fine_tuning.templates import NoValueError, Path, Sample, filled, paths, value_at, written
from chatwheel.sandbox.process import Limits, Outcome, check_available, run
from chatwheel.training.rewards import Question, checked

LIMITS = Limits(seconds=60, cpu_seconds=5)
"""Of one call of a Python grader."""
AT_A_TIME = 4
"""Calls at a time for each processor."""
MOST_SOURCE = 256_000
MOST_GRADERS = 10
_HARNESS = """
import json, sys
out, sys.stdout = sys.stdout, sys.stderr
given = json.loads(sys.stdin.buffer.read())
space = {"__name__": "grader"}
exec(compile(given["source"], "<grader>", "exec"), space)
value = space["grade"](given["sample"], given["item"])
out.write(json.dumps(float(value)))
out.flush()
"""


@dataclass(frozen=True)
class Grade:
    """score: 0 where there is none. error: why. blames: whether it is for the answer, which the policy may learn from,
    or for the grader, which its owner must mend."""

    score: float
    error: str | None = None
    blames: Literal["answer", "grader"] | None = None


class Sampling(BaseModel):
    """How a model that grades answers. Names are OpenAI's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None
    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: str | None = None


class Ask(Protocol):
    """Asks a model, by its name, many conversations at once; gives the text of each answer. May raise InputError."""

    def __call__(self, model: str, conversations: Sequence[list[Json]], sampling: Sampling) -> Sequence[str]:
        """conversations: lists of {"role", "content"}."""
        ...


def _template(text: str) -> str:
    for _ in paths(text):
        pass
    return text


Template = Annotated[str, AfterValidator(_template)]
"""A text with places for values, each of which is known to be one."""


class _Grader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    name: str = Field(min_length=1)

    def templates(self) -> Iterator[str]:
        """The texts that it fills in."""
        yield from ()

    def fields(self) -> set[Path]:
        """What it reads of an example, by path."""
        return {steps for template in self.templates() for root, steps in paths(template) if root == "item"}

    def missing(self, item: Mapping[str, Any]) -> str | None:
        """The sentence that says what an example lacks to be graded, or None."""
        for steps in sorted(self.fields(), key=str):
            try:
                value_at(item, steps, "item")
            except NoValueError:
                return f"the grader {self.name!r} reads {written('item', steps)}, which the example does not have"
        return None

    @property
    def asks_models(self) -> bool:
        """Grading needs an `Ask`."""
        return bool(self.models())

    def models(self) -> set[str]:
        """The names of those that it asks."""
        return set()

    def grade(self, samples: Sequence[Sample], items: Sequence[Json], ask: Ask | None = None) -> list[Grade]:  # noqa: ARG002
        """A grade for each answer to each example."""
        return [self._graded(sample, item) for sample, item in zip(samples, items, strict=True)]

    def _graded(self, sample: Sample, item: Json) -> Grade:
        try:
            return Grade(self.score(sample, item))
        except NoValueError as error:
            return _no_value(error)

    def score(self, sample: Sample, item: Json) -> float:
        """Of one answer. Raises NoValueError."""
        raise NotImplementedError


def _no_value(error: NoValueError) -> Grade:
    return Grade(0.0, str(error), "grader" if str(error).startswith("there is no item") else "answer")


class StringCheck(_Grader):
    """1 if the input is the reference (eq), is not (ne), contains it (like), or does but for case (ilike); else 0."""

    type: Literal["string_check"]
    operation: Literal["eq", "ne", "like", "ilike"]
    input: Template
    reference: Template

    def templates(self) -> Iterator[str]:
        yield from (self.input, self.reference)

    def score(self, sample: Sample, item: Json) -> float:
        found, wanted = filled(self.input, sample, item), filled(self.reference, sample, item)
        if self.operation == "ilike":
            return float(wanted.casefold() in found.casefold())
        right = {"eq": found == wanted, "ne": found != wanted, "like": wanted in found}
        return float(right[self.operation])


class TextSimilarity(_Grader):
    """How alike two texts are, 0 to 1 (`similarity.py`). pass_threshold: of OpenAI's evaluations; the score stays what
    it is."""

    type: Literal["text_similarity"]
    evaluation_metric: str
    input: Template
    reference: Template
    pass_threshold: float | None = Field(default=None, ge=0, le=1)

    @field_validator("evaluation_metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in NOT_HERE:
            raise ValueError(f"{name} {NOT_HERE[name]} and is not offered; take one of {', '.join(MEASURES)}")
        if name not in MEASURES:
            raise ValueError(f"{name!r} is not known; known are {', '.join(MEASURES)}")
        return name

    def templates(self) -> Iterator[str]:
        yield from (self.input, self.reference)

    def score(self, sample: Sample, item: Json) -> float:
        measure = MEASURES[self.evaluation_metric]
        return measure(filled(self.input, sample, item), filled(self.reference, sample, item))


class PythonGrader(_Grader):
    """`grade(sample, item)` of a program, run in the sandbox, a process for each answer. image_tag: of OpenAI's images,
    and without effect: here it is this Python and its standard library."""

    type: Literal["python"]
    source: str = Field(max_length=MOST_SOURCE)
    image_tag: str | None = None

    @field_validator("source")
    @classmethod
    def _has_grade(cls, source: str) -> str:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
            raise ValueError(f"not Python: {getattr(error, 'msg', None) or error}{line}") from None
        if not any(isinstance(node, ast.FunctionDef) and node.name == "grade" for node in tree.body):
            raise ValueError("defines no function grade(sample, item)")
        return source

    def grade(self, samples: Sequence[Sample], items: Sequence[Json], ask: Ask | None = None) -> list[Grade]:  # noqa: ARG002
        """Many at a time. Raises InputError where there is no sandbox."""
        check_available()
        with ThreadPoolExecutor(AT_A_TIME * (os.cpu_count() or 1)) as pool:
            return list(pool.map(self._graded, samples, items))

    def _graded(self, sample: Sample, item: Json) -> Grade:
        given = json.dumps({"source": self.source, "sample": sample.to_json(), "item": item}).encode()
        return _outcome(run(_HARNESS, stdin=given, limits=LIMITS))


def _outcome(outcome: Outcome) -> Grade:
    if outcome.ended != "by itself":
        return Grade(0.0, f"the program {outcome.ended}", "grader")
    if not outcome.succeeded:
        said = outcome.stderr.decode(errors="replace").strip().splitlines() or [f"ended with {outcome.exit}"]
        return Grade(0.0, said[-1][:200], "grader")
    try:
        score = float(outcome.stdout)
    except ValueError:
        return Grade(0.0, "the program ended before grade(sample, item) did", "grader")
    return Grade(score) if math.isfinite(score) else Grade(0.0, f"grade(sample, item) gave {score}", "grader")


class TemplateMessage(BaseModel):
    """A turn of what a model that grades is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: Template
    type: Literal["message"] | None = None


class _ModelGrader(_Grader):
    model: str = Field(min_length=1)
    input: list[TemplateMessage] = Field(min_length=1)
    sampling_params: Sampling = Sampling()

    def templates(self) -> Iterator[str]:
        for message in self.input:
            yield message.content

    def models(self) -> set[str]:
        return {self.model}

    def grade(self, samples: Sequence[Sample], items: Sequence[Json], ask: Ask | None = None) -> list[Grade]:
        """Asks for all that can be asked at once. Raises InputError without somebody to ask."""
        if ask is None:
            raise InputError(f"grader {self.name!r} asks the model {self.model!r}, and there is nobody to ask here")
        grades: dict[int, Grade] = {}
        asked: dict[int, list[Json]] = {}
        for i, (sample, item) in enumerate(zip(samples, items, strict=True)):
            try:
                asked[i] = [{"role": _role(m), "content": filled(m.content, sample, item)} for m in self.input]
            except NoValueError as error:
                grades[i] = _no_value(error)
        texts = ask(self.model, list(asked.values()), self.sampling_params) if asked else []
        if len(texts) != len(asked):
            raise InputError(f"grader {self.name!r}: {self.model} gave {len(texts)} answers to {len(asked)} questions")
        grades |= {i: self.read(text) for i, text in zip(asked, texts, strict=True)}
        return [grades[i] for i in range(len(samples))]

    def read(self, text: str) -> Grade:
        """The grade in a model's answer."""
        raise NotImplementedError


def _role(message: TemplateMessage) -> str:
    return "system" if message.role == "developer" else message.role


_NUMBER = re.compile(r"([-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?)(?:\s*/\s*\d+)?")


class ScoreModel(_ModelGrader):
    """The number that a model answers with: `result` or `score` of a JSON object, else the last one of the text ("4/5"
    is 4). range: what it is clipped to."""

    type: Literal["score_model"]
    range: tuple[float, float] = (0.0, 1.0)

    @field_validator("range")
    @classmethod
    def _in_order(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not ends[0] < ends[1]:
            raise ValueError("expected [lowest, highest]")
        return ends

    def read(self, text: str) -> Grade:
        said = Sample(text).output_json
        if isinstance(said, dict):
            said = next((said[name] for name in ("result", "score") if name in said), None)
        if isinstance(said, bool) or not isinstance(said, int | float):
            found = _NUMBER.findall(text)
            if not found:
                return Grade(0.0, f"{self.model} answered without a number: {text[:60]!r}", "grader")
            said = float(found[-1])
        low, high = self.range
        return Grade(min(high, max(low, said)))


class LabelModel(_ModelGrader):
    """1 if the label that a model answers with is one of `passing_labels`, else 0. It must answer with one of `labels`,
    alone or as the last that its answer names."""

    type: Literal["label_model"]
    labels: list[str] = Field(min_length=1)
    passing_labels: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_labels(self) -> LabelModel:
        unknown = [label for label in self.passing_labels if label not in self.labels]
        if unknown:
            raise ValueError(f"passing_labels: {unknown[0]!r} is not among labels")
        return self

    def read(self, text: str) -> Grade:
        exact = next((label for label in self.labels if label.casefold() == text.strip().casefold()), None)
        places = [(m.end(), len(label), label) for label in self.labels for m in re.finditer(_whole(label), text)]
        found = exact if exact is not None else max(places, default=(0, 0, None))[2]
        if found is None:
            return Grade(0.0, f"{self.model} named none of the labels: {text[:60]!r}", "grader")
        return Grade(float(found in self.passing_labels))


def _whole(label: str) -> re.Pattern[str]:
    """A label as a word of its own."""
    return re.compile(rf"(?<!\w){re.escape(label)}(?!\w)", re.IGNORECASE)


Part = Annotated[StringCheck | TextSimilarity | PythonGrader | ScoreModel | LabelModel, Field(discriminator="type")]


class MultiGrader(_Grader):
    """A formula over other graders' scores. A grader that fails on an answer counts as 0 in it."""

    type: Literal["multi"]
    graders: dict[str, Part] = Field(min_length=1, max_length=MOST_GRADERS)
    calculate_output: str

    @model_validator(mode="after")
    def _names_are_known(self) -> MultiGrader:
        wrong = next((name for name in self.graders if not name.isidentifier() or name in FUNCTIONS), None)
        if wrong is not None:
            raise ValueError(f"graders: {wrong!r} cannot be a name in a formula; take letters, digits and _")
        try:
            unknown = sorted(Formula.parse(self.calculate_output).names - self.graders.keys())
        except FormulaError as error:
            raise ValueError(f"calculate_output: {error}") from None
        if unknown:
            known = ", ".join(self.graders)
            raise ValueError(f"calculate_output: {unknown[0]!r} is no grader; there are {known}")
        return self

    def fields(self) -> set[Path]:
        return set().union(*(grader.fields() for grader in self.graders.values()))

    def models(self) -> set[str]:
        return set().union(*(grader.models() for grader in self.graders.values()))

    def grade(self, samples: Sequence[Sample], items: Sequence[Json], ask: Ask | None = None) -> list[Grade]:
        """Each grader on all answers, then the formula on each."""
        formula = Formula.parse(self.calculate_output)
        columns = {name: grader.grade(samples, items, ask) for name, grader in self.graders.items()}
        return [_combined(formula, {name: grades[i] for name, grades in columns.items()}) for i in range(len(samples))]


def _combined(formula: Formula, parts: Mapping[str, Grade]) -> Grade:
    failed = sorted((grade.blames == "answer", name) for name, grade in parts.items() if grade.error)
    error = f"{failed[0][1]}: {parts[failed[0][1]].error}" if failed else None
    blames = parts[failed[0][1]].blames if failed else None
    try:
        return Grade(formula({name: grade.score for name, grade in parts.items()}), error, blames)
    except FormulaError as without:
        return Grade(0.0, error or str(without), blames or "grader")


Grader = StringCheck | TextSimilarity | PythonGrader | ScoreModel | LabelModel | MultiGrader
_GRADER: TypeAdapter[Grader] = TypeAdapter(Annotated[Grader, Field(discriminator="type")])
TYPES = ("string_check", "text_similarity", "python", "score_model", "label_model", "multi")


def parse_grader(value: Any, where: str = "grader") -> Grader:
    """A grader as clients send it. where: the path that errors begin with. Raises InputError with the field as its
    `param`."""
    try:
        # From JSON, where lists are tuples too and objects are models.
        return _GRADER.validate_json(json.dumps(value))
    except ValidationError as error:  # a ValueError too
        first = error.errors(include_url=False)[0]
    except (TypeError, ValueError, RecursionError):
        raise InputError(f"{where}: expected JSON", param=where) from None
    path = _field_path(first["loc"], where)
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path += ".type"
        found = f"{first['ctx']['tag']!r} is not known; " if first["type"] == "union_tag_invalid" else ""
        said = f"{found}expected one of {', '.join(TYPES)}"
    else:
        said = str(first["msg"]).removeprefix("Value error, ")
        said = {"missing": "is required", "extra_forbidden": "is not known here; take it out"}.get(first["type"], said)
    raise InputError(f"{path}: {said}", param=path)


def _field_path(loc: Sequence[int | str], where: str) -> str:
    """Without the unions' tags, which pydantic puts first and behind the names of a multi grader's parts."""
    steps = list(loc[1:])
    if len(steps) > 2 and loc[0] == "multi" and steps[0] == "graders":
        del steps[2]
    return where + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


@dataclass
class GraderReward:
    """A grader as a judge of `training/policy_gradient`: each prompt's `reference` is its line of the file as JSON, as
    `examples.to_record` writes it.

    means: of the scores and of the failures' share, the last time, for metrics. last_error: why the last one failed.
    """

    grader: Grader
    ask: Ask | None = None
    means: dict[str, float] = field(default_factory=dict)
    last_error: str | None = None

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        """Raises InputError if the grader fails on every answer, so that nobody trains on zeros."""
        items = [_item(question) for question in questions]
        grades = self.grader.grade([Sample(answer.text) for answer in answers], items, self.ask)
        failed = [grade for grade in grades if grade.error is not None]
        if failed:
            self.last_error = failed[-1].error
        if grades and all(grade.blames == "grader" for grade in grades):
            raise InputError(f"grader {self.grader.name!r} fails on every answer: {grades[0].error}")
        scores = checked([grade.score for grade in grades], len(answers), self.grader.name)
        self.means = {"score": float(scores.mean()), "failures": len(failed) / max(1, len(grades))}
        return scores


def _item(question: Question) -> Json:
    try:
        item = json.loads(question.reference or "")
    except ValueError:
        item = None
    if not isinstance(item, dict):
        raise InputError("a grader needs each prompt's line of the file as its reference; read it with read_examples")
    return item
