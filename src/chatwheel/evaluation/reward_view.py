"""What a report says of a run's reward model. Whatever a run does not have, or has otherwise, is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from chatwheel.evaluation.charts import real
from chatwheel.evaluation.reliability import Bin, draw_reliability

Describe = Callable[[str], tuple[str, str]]
"""A behaviour or a language as people name it, and a note."""
HEADINGS = {
    "source": "By source",
    "labeller": "By labeller",
    "behaviour": "By behaviour",
    "language": "By language",
}
FORMS = {
    "opening": ("A glad opening", "“Sure!”, “当然！” before the answer"),
    "closing": ("A kind closing", "“I hope this helps!”, “希望这对你有帮助！” behind it"),
    "list": ("A list", "each line as a point"),
    "bold": ("Bold", "the whole answer between two pairs of asterisks"),
    "emoji": ("An emoji", "a smile behind it"),
    "newline": ("A line break", "behind it: nothing that anybody sees"),
}


class Numbers(dict[str, float]):
    """Those that are numbers; any other is None."""

    def __missing__(self, key: str) -> None:
        return None


@dataclass(frozen=True)
class GroupRow:
    """Pairs of one source, labeller, ...: how many, the share in order and its 95 % interval."""

    title: str
    note: str
    pairs: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class FormRow:
    """What a change of form does: the mean in standard deviations of the reward, its 95 % interval, the share that it
    raises."""

    title: str
    note: str
    effect: float
    low: float
    high: float
    raised: float | None


@dataclass(frozen=True)
class RewardView:
    """The section's parts; what is empty has nothing to show."""

    interval: tuple[float, float] | None
    prompts: float | None
    chart: Markup | None
    calibration: Numbers
    groups: list[tuple[str, list[GroupRow]]]
    length: Numbers
    excess: tuple[float, float] | None
    forms: list[FormRow]
    ensemble: Numbers
    members: list[float]

    @property
    def empty(self) -> bool:
        return not (self.chart or self.groups or self.length or self.forms or self.ensemble)


def reward_view(result: Mapping[str, Any], describe: Describe) -> RewardView:
    """Of what the stage returned."""
    calibration, ensemble = _mapping(result.get("calibration")), _mapping(result.get("ensemble"))
    length = _mapping(result.get("length"))
    image = draw_reliability(_bins(calibration.get("bins")))
    return RewardView(
        interval=_interval(result.get("pair_accuracy_interval")),
        prompts=real(result.get("prompts")),
        chart=Markup(image) if image else None,
        calibration=_reals(calibration),
        groups=_groups(_mapping(result.get("groups")), describe),
        length=_reals(length),
        excess=_interval(length.get("excess_interval")) if real(length.get("excess")) is not None else None,
        forms=_forms(_mapping(result.get("form"))),
        ensemble=_reals(ensemble),
        members=[x for value in _list(ensemble.get("member_pair_accuracy")) if (x := real(value)) is not None],
    )


def _groups(groups: Mapping[str, Any], describe: Describe) -> list[tuple[str, list[GroupRow]]]:
    found = []
    for field, heading in HEADINGS.items():
        rows = []
        for name, one in _mapping(groups.get(field)).items():
            values, ends = _reals(_mapping(one)), _interval(_mapping(one).get("interval"))
            if ends is not None and "accuracy" in values and "pairs" in values:
                title, note = (name, "") if field in ("source", "labeller") else describe(name)
                rows.append(GroupRow(title, note, int(values["pairs"]), values["accuracy"], *ends))
        if rows:
            found.append((heading, rows))
    return found


def _forms(forms: Mapping[str, Any]) -> list[FormRow]:
    rows = []
    for name, one in forms.items():
        values, ends = _reals(_mapping(one)), _interval(_mapping(one).get("interval"))
        if ends is not None and "effect" in values:
            title, note = FORMS.get(name, (name, ""))
            rows.append(FormRow(title, note, values["effect"], *ends, values.get("raised")))
    return rows


def _bins(value: Any) -> list[Bin]:
    bins = []
    for one in _list(value):
        values = _reals(_mapping(one))
        if {"predicted", "preferred", "pairs"} <= values.keys() and values["pairs"] >= 1:
            bins.append(Bin(_share(values["predicted"]), _share(values["preferred"]), int(values["pairs"])))
    return bins


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _interval(value: Any) -> tuple[float, float] | None:
    ends = [real(end) for end in _list(value)]
    return (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _reals(values: Mapping[str, Any]) -> Numbers:
    return Numbers({key: number for key, value in values.items() if (number := real(value)) is not None})
