"""A queue's report: how far its labellers agree, who can be relied on, who has which habit, what has to be decided.

Of rankings, Krippendorff's alpha over pairs of answers and Bradley and Terry's model with effects of the labeller
(agreement.py, labellers.py); of labels, alpha of each label and Dawid and Skene's model (dawid_skene.py).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import TypeVar

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback.agreement import Agreement, krippendorff, ranking_agreement
from chatwheel.feedback.dawid_skene import Label, dawid_skene
from chatwheel.feedback.judgements import Comparisons
from chatwheel.feedback.labeller_report import LabellerReport
from chatwheel.feedback.labeller_report import report as report_labellers
from chatwheel.feedback.labellers import LabellerModel, fit_labellers
from chatwheel.feedback.room.labels import LabelQuestion, questions
from chatwheel.feedback.room.reading import Judged, judged_tasks, rankings_of
from chatwheel.store.tables import LabellingJudgementRow, LabellingQueueRow, LabellingTaskRow, UserRow

Key = TypeVar("Key", int, str)
DISPUTED = 0.0
"""The agreement on one task, beyond chance, from which down somebody has to decide: no better than at random."""


@dataclass(frozen=True)
class LabelAgreement:
    """Of one label; `agreement` is None where no two have rated the same answer."""

    name: str
    kind: str
    agreement: Agreement | None


@dataclass(frozen=True)
class LabellerLine:
    """A labeller. name: as people know them. judged, skipped, reported: tasks; seconds: the median of those judged.
    report: of rankings, what can be told of them; accuracy: of rated flags, how often they are right, by the model."""

    labeller: str
    name: str
    judged: int
    skipped: int
    reported: int
    seconds: float | None
    report: LabellerReport | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Dispute:
    """A task that somebody has to decide. agreement: beyond chance, of its labellers."""

    judged: Judged
    agreement: float


@dataclass(frozen=True)
class QueueReport:
    """agreement: of rankings. pairwise: the share of comparisons that two labellers make alike, and how many they
    share. problem: why something is missing, in words. seconds: the median time of a task."""

    agreement: Agreement | None
    labels: list[LabelAgreement]
    labellers: list[LabellerLine]
    pairwise: list[tuple[str, str, float, int]]
    disputes: list[Dispute]
    seconds: float | None
    problem: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known of the labellers of rankings: None while too little is."""

    comparisons: Comparisons | None = None
    model: LabellerModel | None = None
    reports: list[LabellerReport] = field(default_factory=list)
    problem: str | None = None


def known_labellers(judged: Sequence[Judged]) -> Known:
    """From all rankings of a queue."""
    try:
        comparisons = Comparisons.of(rankings_of(judged))
    except InputError as error:
        return Known(problem=error.message)
    try:
        with np.errstate(invalid="ignore"):  # see below
            model = fit_labellers(comparisons)
    except InputError as error:
        return Known(comparisons, problem=error.message)
    if not (np.isfinite(model.sensitivity_error).all() and np.isfinite(model.bias_error).all()):
        # Of a handful of comparisons the information matrix is not that of a maximum.
        return Known(comparisons, problem=f"{len(comparisons.pair)} comparisons are too few to tell labellers apart")
    return Known(comparisons, model, report_labellers(model))


def queue_report(session: Session, queue: LabellingQueueRow) -> QueueReport:
    """All that there is to say of a queue by now. Blocks, for seconds where there are tens of thousands of
    judgements."""
    judged = judged_tasks(session, queue)
    lines = _lines(session, queue, judged)
    seconds = [row.seconds for one in judged for row in one.by.values() if row.seconds is not None]
    took = median(seconds) if seconds else None
    if queue.kind == "rank":
        return _of_rankings(queue, judged, lines, took)
    if queue.kind == "rate":
        return _of_labels(queue, judged, lines, took)
    return QueueReport(None, [], lines, [], [], took)


def _of_rankings(
    queue: LabellingQueueRow, judged: Sequence[Judged], lines: list[LabellerLine], took: float | None
) -> QueueReport:
    known = known_labellers(judged)
    agreement = None
    problem = known.problem
    if known.comparisons is not None:
        try:
            agreement = ranking_agreement(known.comparisons)
        except InputError as error:
            problem = error.message
    reports = {one.labeller: one for one in known.reports}
    lines = [_with(line, report=reports.get(line.labeller)) for line in lines]
    pairwise = [] if known.comparisons is None else _pairwise(known.comparisons)
    return QueueReport(agreement, [], lines, pairwise, disputes(queue, judged), took, problem)


def _with(line: LabellerLine, *, report: LabellerReport | None = None, accuracy: float | None = None) -> LabellerLine:
    basics = (line.labeller, line.name, line.judged, line.skipped, line.reported, line.seconds)
    return LabellerLine(*basics, report, accuracy)


def _of_labels(
    queue: LabellingQueueRow, judged: Sequence[Judged], lines: list[LabellerLine], took: float | None
) -> QueueReport:
    asked = questions(queue.labels)
    found = [LabelAgreement(one.name, one.kind, _label_agreement(one, judged)) for one in asked]
    flags = [
        Label(item=f"{one.task.id} {question.name}", labeller=labeller, label=bool((row.labels or {})[question.name]))
        for question in asked
        if question.kind == "flag"
        for one in judged
        for labeller, row in one.by.items()
        if question.name in (row.labels or {})
    ]
    problem = None
    try:
        model = dawid_skene(flags)
        accuracy = dict(zip(model.labellers, map(float, model.accuracy()), strict=True))
    except InputError as error:
        accuracy, problem = {}, error.message if flags else None
    lines = [_with(line, accuracy=accuracy.get(line.labeller)) for line in lines]
    return QueueReport(None, found, lines, _pairwise_labels(asked, judged), disputes(queue, judged), took, problem)


def _label_agreement(question: LabelQuestion, judged: Sequence[Judged]) -> Agreement | None:
    values = _values(question, judged)
    names = sorted({labeller for said in values for labeller in said})
    matrix = np.full((len(names), len(values)), math.nan)
    for item, said in enumerate(values):
        for labeller, value in said.items():
            matrix[names.index(labeller), item] = value
    try:
        return krippendorff(matrix, "nominal" if question.kind == "flag" else "ordinal")
    except InputError:
        return None


def _values(question: LabelQuestion, judged: Sequence[Judged]) -> list[dict[str, float]]:
    """Of each task, who said what."""
    return [
        {
            who: float(row.labels[question.name])
            for who, row in one.by.items()
            if row.labels and question.name in row.labels
        }
        for one in judged
    ]


def disputes(queue: LabellingQueueRow, judged: Sequence[Judged], below: float = DISPUTED) -> list[Dispute]:
    """The tasks on which labellers agree no better than `below`, which all have judged who were to, and which nobody
    has decided yet; those first that are disputed most.

    The agreement of a task is 1 less its mean squared distance over what chance gives in the whole queue: of a ranking,
    of the outcomes 1, 0 and -1 of two answers; of labels, of the worst label.
    """
    if queue.kind == "rank":
        distances = [_ranking_distance(one) for one in judged]
        decided = [abs(x) for one in judged for said in _outcomes(one).values() for x in said]
        chance = 2 * sum(decided) / len(decided) if decided else 0.0
        agreements = [None if d is None or chance == 0 else 1 - d / chance for d in distances]
    elif queue.kind == "rate":
        agreements = _label_disputes(questions(queue.labels), judged)
    else:
        return []
    found = [
        Dispute(one, agreement)
        for one, agreement in zip(judged, agreements, strict=True)
        if agreement is not None and agreement <= below and one.decision is None and len(one.by) >= queue.labellers
    ]
    return sorted(found, key=lambda one: (one.agreement, one.judged.task.place))


def _outcomes(one: Judged) -> dict[str, list[int]]:
    pairs = list(combinations(range(len(one.answers)), 2))
    return {
        who: [int(np.sign(row.ranks[j] - row.ranks[i])) for i, j in pairs] for who, row in one.by.items() if row.ranks
    }


def _ranking_distance(one: Judged) -> float | None:
    return _distance([list(map(float, said)) for said in _outcomes(one).values()])


def _distance(said: Sequence[Sequence[float]]) -> float | None:
    """The mean squared distance of two labellers' values; None of fewer than two."""
    apart = [(x - y) ** 2 for one, other in combinations(said, 2) for x, y in zip(one, other, strict=True)]
    return sum(apart) / len(apart) if apart else None


def _label_disputes(asked: Sequence[LabelQuestion], judged: Sequence[Judged]) -> list[float | None]:
    worst: list[float | None] = [None] * len(judged)
    for question in asked:
        values = _values(question, judged)
        everything = [value for said in values for value in said.values()]
        chance = 2 * float(np.var(everything)) if everything else 0.0
        for place, said in enumerate(values):
            distance = _distance([[value] for value in said.values()])
            if distance is not None:
                agreement = 1.0 if chance == 0 else 1 - distance / chance
                before = worst[place]
                worst[place] = agreement if before is None else min(before, agreement)
    return worst


def _pairwise(comparisons: Comparisons) -> list[tuple[str, str, float, int]]:
    """Of each two labellers the share of comparisons that are the same, and how many both have made."""
    said: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for pair, labeller, outcome in zip(comparisons.pair, comparisons.labeller, comparisons.outcome, strict=True):
        said[int(pair)][int(labeller)] = float(outcome)
    return _alike(said.values(), dict(enumerate(comparisons.labellers)))


def _pairwise_labels(asked: Sequence[LabelQuestion], judged: Sequence[Judged]) -> list[tuple[str, str, float, int]]:
    said = [values for question in asked for values in _values(question, judged)]
    return _alike(said, {name: name for values in said for name in values})


def _alike(said: Iterable[Mapping[Key, float]], names: Mapping[Key, str]) -> list[tuple[str, str, float, int]]:
    same: defaultdict[tuple[Key, Key], list[bool]] = defaultdict(list)
    for values in said:
        for one, other in combinations(sorted(values), 2):
            same[one, other].append(values[one] == values[other])
    return [(names[a], names[b], sum(found) / len(found), len(found)) for (a, b), found in sorted(same.items())]


def people_of(session: Session, labellers: Collection[str]) -> dict[str, str]:
    """The names of users by their ids."""
    rows = session.scalars(select(UserRow).where(UserRow.id.in_(labellers)))
    return {row.id: row.name for row in rows}


def _lines(session: Session, queue: LabellingQueueRow, judged: Sequence[Judged]) -> list[LabellerLine]:
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    counts: defaultdict[str, int] = defaultdict(int)
    for one in judged:
        for labeller, row in one.by.items():
            counts[labeller] += 1
            if row.seconds is not None:
                seconds[labeller].append(row.seconds)
    query = (
        select(LabellingJudgementRow.user_id, LabellingJudgementRow.action, func.count())
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingJudgementRow.task_id)
        .where(LabellingTaskRow.queue_id == queue.id, LabellingJudgementRow.action.in_(("skipped", "reported")))
        .group_by(LabellingJudgementRow.user_id, LabellingJudgementRow.action)
    )
    others = {(user, action): number for user, action, number in session.execute(query)}
    people = sorted({*counts, *(user for user, _ in others if user is not None)})
    names = people_of(session, people)
    return [
        LabellerLine(
            labeller=who,
            name=names.get(who, who),
            judged=counts[who],
            skipped=others.get((who, "skipped"), 0),
            reported=others.get((who, "reported"), 0),
            seconds=median(seconds[who]) if seconds[who] else None,
        )
        for who in people
    ]
