"""Texts with places for values, as OpenAI's graders have them: `{{ item.answer }}`, `{{ sample.output_json.city }}`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chatwheel.data.records import Json

_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH = re.compile(r"\s*(item|sample)((?:\.\w+|\[\d+\])+)\s*")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
OF_SAMPLE = ("output_text", "output_json", "output_tools", "choices")

Step = str | int
Path = tuple[Step, ...]


class NoValueError(LookupError):
    """The answer, or the example, has nothing at that path."""


@dataclass(frozen=True)
class Sample:
    """An answer that is graded."""

    output_text: str

    @cached_property
    def output_json(self) -> Any:
        """The answer read as JSON, alone or in a code block; None if it is none."""
        text = self.output_text.strip()
        if fenced := re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", text, re.DOTALL):
            text = fenced[1]
        try:
            return json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return None

    def to_json(self) -> Json:
        """As a Python grader gets it."""
        message = {"role": "assistant", "content": self.output_text}
        return {
            "output_text": self.output_text,
            "output_json": self.output_json,
            "output_tools": [],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }


def paths(template: str) -> Iterator[tuple[str, Path]]:
    """What a template reads: ("item" or "sample", where). Raises ValueError for a place that is neither."""
    for found in _PLACE.findall(template):
        match = _PATH.fullmatch(found)
        if match is None:
            raise ValueError(f"{{{{{found}}}}} is no place; write {{{{ item.FIELD }}}} or {{{{ sample.output_text }}}}")
        steps: Path = tuple(name or int(number) for name, number in _STEP.findall(match[2]))
        if match[1] == "sample" and steps[0] not in OF_SAMPLE:
            raise ValueError(f"{{{{{found}}}}}: a sample has {', '.join(OF_SAMPLE)}")
        yield match[1], steps


def filled(template: str, sample: Sample, item: Mapping[str, Any]) -> str:
    """The text with its values; what is no text is written as JSON. Raises NoValueError. template: one that `paths` has
    seen. A value that looks like a place stays as it is."""

    def value(found: re.Match[str]) -> str:
        ((root, steps),) = paths(found[0])
        shown = value_at(item if root == "item" else sample.to_json(), steps, root)
        return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)

    return _PLACE.sub(value, template)


def value_at(value: Any, steps: Path, root: str) -> Any:
    """Raises NoValueError."""
    for i, step in enumerate(steps):
        here = isinstance(value, dict) and step in value
        if not here and not (isinstance(step, int) and isinstance(value, list) and step < len(value)):
            raise NoValueError(f"there is no {written(root, steps[: i + 1])}")
        value = value[step]
    return value


def written(root: str, steps: Path) -> str:
    """A path as templates have it."""
    return root + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
