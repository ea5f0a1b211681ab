"""What a queue has come to, as records to learn from: rankings that are merged by who can be relied on, or decided;
demonstrations, prompts, ratings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatwheel.data.records import Conversation, Prompt, Ranking
from chatwheel.feedback.labeller_report import LabellerReport
from chatwheel.feedback.merging import merge, trust
from chatwheel.feedback.room.reading import Judged, rankings_of
from chatwheel.feedback.room.report import known_labellers

FEW = 20
"""Comparisons of a labeller from which on what they told of them counts; with fewer they are read as usual."""
SURE = 2.0
"""Standard errors."""
DECIDED = 1.0
"""The weight of what an adjudicator has decided."""


@dataclass(frozen=True)
class Named:
    """Labellers by names that are drawn with a salt: one's judgements are told from another's, and nobody is known."""

    salt: str

    def of(self, labeller: str) -> str:
        """The other name; of imported judgements it is the one that they came with."""
        if labeller.startswith("imported:"):
            return labeller.removeprefix("imported:")
        return f"person-{hashlib.blake2b(f'{self.salt} {labeller}'.encode(), digest_size=6).hexdigest()}"


def is_known(report: LabellerReport) -> bool:
    """Whether what was told of a labeller is more than chance: whoever is not known is read as usual, not left out."""
    return report.n >= FEW and (report.verdict != "ok" or report.sensitivity >= SURE * report.sensitivity_error)


def merged_rankings(judged: Sequence[Judged], named: Named) -> list[Ranking]:
    """One ranking a prompt, in the order of the tasks, with its weight: of those that say something, the others being
    of no use to who learns. What was decided is as it was decided, and weighs 1."""
    open_ones = [one for one in judged if one.decision is None and one.by]
    known = known_labellers(open_ones)
    trusted = {} if known.model is None else trust(known.model, known.reports)
    trusted = {one.labeller: trusted[one.labeller] for one in known.reports if is_known(one)}
    rankings = rankings_of(open_ones)
    found = [(one.task.place, _decided(one, named)) for one in judged if one.decision is not None]
    if known.comparisons is not None:
        places = {repr(one.task.messages): one.task.place for one in reversed(open_ones)}
        models = {
            (repr(one.task.messages), answer.content): answer.model for one in open_ones for answer in one.answers
        }
        for ranking in merge(rankings, trusted):
            prompt = repr([m.model_dump(include={"role", "content"}) for m in ranking.messages])
            by = sorted(map(named.of, (ranking.model_extra or {}).get("labellers", [])))
            wrote = [models.get((prompt, answer)) for answer in ranking.answers]
            more: dict[str, Any] = {"labellers": by, "labeller": by[0] if len(by) == 1 else None}
            more |= {"models": wrote} if any(wrote) else {}
            found.append((places[prompt], Ranking.model_validate(ranking.model_dump() | more)))
    return [ranking for _, ranking in sorted(found, key=lambda one: one[0]) if ranking.weight and ranking.pairs()]


def own_rankings(judged: Sequence[Judged], named: Named) -> list[Ranking]:
    """Each labeller's, as they were given."""
    found = []
    for one in judged:
        for labeller, row in one.by.items():
            values = one.ranking(named.of(labeller), row).model_dump(exclude_none=True)
            found.append(Ranking.model_validate(values | _models(one)))
    return found


def demonstrations(judged: Sequence[Judged], named: Named) -> list[Conversation]:
    """What was written as the assistant's reply."""
    return [
        Conversation.model_validate(
            {
                "messages": [*one.task.messages, {"role": "assistant", "content": text}],
                "labeller": named.of(labeller),
                "source": one.task.source or "labelling",
                "language": one.task.language,
            }
        )
        for one, labeller, text in written(judged)
    ]


def prompts(judged: Sequence[Judged], named: Named) -> list[Prompt]:
    """What was written as a prompt."""
    return [
        Prompt.model_validate(
            {
                "messages": [{"role": "user", "content": text}],
                "labeller": named.of(labeller),
                "source": one.task.source or "labelling",
                "language": one.task.language,
            }
        )
        for one, labeller, text in written(judged)
    ]


def written(judged: Sequence[Judged]) -> list[tuple[Judged, str, str]]:
    """Task, labeller and text; where it was decided what it should have been, that text of the adjudicator's."""
    found = []
    for one in judged:
        rows = [(one.decision.user_id or "", one.decision)] if one.decision is not None else list(one.by.items())
        found += [(one, who, row.text) for who, row in rows if row.text]
    return found


def _decided(one: Judged, named: Named) -> Ranking:
    assert one.decision is not None
    values: dict[str, Any] = {
        "messages": one.task.messages,
        "answers": [answer.content for answer in one.answers],
        "ranks": one.decision.ranks,
        "labellers": sorted(map(named.of, one.by)),
        "decided": True,
        "weight": DECIDED,
        "source": one.task.source,
        "language": one.task.language,
    }
    return Ranking.model_validate(values | _models(one))


def _models(one: Judged) -> dict[str, Any]:
    models = [answer.model for answer in one.answers]
    return {"models": models} if any(models) else {}
