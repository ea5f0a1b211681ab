"""The gate: whether a candidate is better than the model that answers now, in numbers and in words.

    preferred      the judge's choice between the two models' answers to held-out prompts
    praised        the same on prompts whose answers people had rated up: what pleased must not be lost
    examination    right answers to the world's held-out items, of models that were made from the world
    safety         answers that moderation flags

The judge must tell held-out rankings better than chance, and contradict nothing else that people said (witnesses.py).
The candidate passes if it is certainly preferred and in no other check certainly worse; certainly: with 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from chatwheel.data.records import Message
from chatwheel.feedback.sequential import win_rate
from chatwheel.feedback.significance import Interval
from chatwheel.jobs.wheel.judge import Judge, preferences
from chatwheel.jobs.wheel.witnesses import Witness

CheckName = Literal["preferred", "praised", "examination", "safety"]
VerdictName = Literal["better", "not_shown", "worse", "no_judge"]
Reason = Literal["judge", "witnesses", "few"]
LEAST_PAIRS = 30


@dataclass(frozen=True)
class Check:
    """rate: the share of comparisons that the candidate wins, ties being half; interval: of 95 %. Above 0.5 the
    candidate is the better one in it, whatever is compared. details: what else is known."""

    name: CheckName
    rate: float
    interval: Interval
    pairs: int
    words: str
    details: dict[str, Any]

    @property
    def better(self) -> bool:
        """Certainly."""
        return self.interval[0] > 0.5

    @property
    def worse(self) -> bool:
        """Certainly."""
        return self.interval[1] < 0.5


@dataclass(frozen=True)
class Verdict:
    """passed: may be promoted. verdict and words: why. reason: why nobody can judge, of `no_judge`: the judge knows too
    little, what people said otherwise speaks against it, or the comparisons are too few. needed: prompts that would
    tell, of `not_shown`."""

    candidate: str
    current: str
    verdict: VerdictName
    passed: bool
    words: str
    checks: tuple[Check, ...]
    judge: dict[str, Any]
    reason: Reason | None = None
    needed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it; each check says whether it is certainly better or worse."""
        values = asdict(self)
        for check, one in zip(values["checks"], self.checks, strict=True):
            check |= {"better": one.better, "worse": one.worse}
        return values


def preferred(
    name: CheckName,
    judge: Judge,
    prompts: Sequence[Sequence[Message]],
    pairs_of_answers: Iterable[tuple[Sequence[str], Sequence[str]]],
) -> Check | None:
    """pairs_of_answers: (the candidate's, the current model's) answers to all prompts, once for each way of sampling.
    None without prompts."""
    wins: list[float] = []
    keys: list[str] = []
    for ours, theirs in pairs_of_answers:
        wins += preferences(judge, prompts, ours, theirs)
        keys += ["\n".join(f"{m.role} {m.content}" for m in prompt) for prompt in prompts]
    if not wins:
        return None
    found = win_rate(wins, keys)
    what = "held-out prompts" if name == "preferred" else "prompts whose answers people had rated up"
    words = (
        f"of {found.prompts:,} {what} the judge prefers the candidate's answer in {_percent(found.rate)} "
        f"({_range(found.interval)})"
    )
    return Check(name, found.rate, found.interval, found.pairs, words, {"prompts": found.prompts})


def paired(
    name: CheckName, ours: Sequence[float], theirs: Sequence[float], keys: Sequence[str], what: str
) -> Check | None:
    """Of marks of the same items, more being better: the candidate wins where its mark is the higher one."""
    if not ours:
        return None
    wins = [0.5 + 0.5 * ((a > b) - (a < b)) for a, b in zip(ours, theirs, strict=True)]
    found = win_rate(wins, keys)
    means = [sum(marks) / len(marks) for marks in (ours, theirs)]
    words = f"{what}: {_percent(means[0])}, before {_percent(means[1])}"
    details = {"candidate": round(means[0], 4), "current": round(means[1], 4)}
    return Check(name, found.rate, found.interval, found.pairs, words, details)


def decide(
    candidate: str, current: str, checks: Sequence[Check], judge: dict[str, Any], witnesses: Sequence[Witness] = ()
) -> Verdict:
    """judge: how well it tells rankings that it has not seen (`judge.learn_judge`)."""
    judge = judge | {"witnesses": [asdict(one) | {"contradicts": one.contradicts} for one in witnesses]}
    by_name = {check.name: check for check in checks}
    main = by_name.get("preferred")
    worse = [check for check in checks if check.worse]

    def verdict(name: VerdictName, words: str, reason: Reason | None = None, needed: int | None = None) -> Verdict:
        return Verdict(candidate, current, name, name == "better", words, tuple(checks), judge, reason, needed)

    if judge.get("interval", [0.0])[0] <= 0.5:
        accuracy = judge.get("accuracy")
        known = "has no held-out rankings" if accuracy is None else f"tells {_percent(accuracy)} of held-out pairs"
        return verdict("no_judge", f"nobody can judge yet: the judge {known}; more rankings are needed", "judge")
    against = [one.words for one in witnesses if one.contradicts]
    if against:
        return verdict(
            "no_judge",
            "nobody can judge: the rankings say the opposite of what people said otherwise. Of "
            f"{'; of '.join(against)}. Look at who ranked, and how",
            "witnesses",
        )
    if main is None or main.pairs < LEAST_PAIRS:
        few = 0 if main is None else main.pairs
        return verdict(
            "no_judge", f"{few} comparisons on held-out prompts are too few; at least {LEAST_PAIRS} say more", "few"
        )
    if worse:
        return verdict("worse", f"worse: {'; '.join(check.words for check in worse)}")
    if not main.better:
        needed = _needed(main)
        more = f"; it would take some {needed:,} prompts to tell" if needed else ""
        return verdict("not_shown", f"not shown to be better: {main.words}{more}", needed=needed)
    rest = [check.words for check in checks if check is not main]
    return verdict("better", "; ".join([f"better: {main.words}", *rest]))


def _needed(check: Check) -> int | None:
    """Prompts for which the same rate would be certain; None where it is not above a half."""
    lead = check.rate - 0.5
    if lead <= 0.005:
        return None
    half = (check.interval[1] - check.interval[0]) / 2
    return math.ceil(float(check.details.get("prompts", check.pairs)) * (half / lead) ** 2)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _range(interval: Interval) -> str:
    return f"{interval[0] * 100:.0f} to {interval[1] * 100:.0f} %"
