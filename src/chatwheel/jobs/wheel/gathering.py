"""What people have given and agreed to give: in chats, by `feedback.export`, and in the labelling room, where rankings
are merged by who can be relied on."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Demonstration, Ranking, Rating
from chatwheel.feedback.export import Export
from chatwheel.feedback.room.outcome import Named, demonstrations, merged_rankings
from chatwheel.feedback.room.reading import Judged, consented, judged_tasks
from chatwheel.store.tables import (
    BattleRow,
    ComparisonRow,
    ConversationRow,
    CorrectionRow,
    LabellingAssignmentRow,
    LabellingJudgementRow,
    LabellingQueueRow,
    LabellingTaskRow,
    MessageRow,
    RatingRow,
    ReportRow,
    UserRow,
)

DAYS = 30


@dataclass(frozen=True)
class Gathered:
    """What a turn can learn from. labelled: rankings of the labelling room, which are among `rankings` too."""

    corrections: list[Demonstration] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)
    ratings: list[Rating] = field(default_factory=list)
    labelled: int = 0


def gather(session: Session, *, everybody: bool = False) -> Gathered:
    """All of it; everybody: as in `feedback.export`. Names are drawn anew each time."""
    salt = secrets.token_hex(16)
    source = Export(session, salt, everybody=everybody)
    found = Gathered(list(source.demonstrations()), list(source.rankings()), list(source.ratings()))
    labelled: list[Ranking] = []

    def said_by_all(queue: LabellingQueueRow) -> list[Judged]:
        return consented(session, judged_tasks(session, queue), everybody=everybody)

    for queue in session.scalars(
        select(LabellingQueueRow).order_by(LabellingQueueRow.created_at, LabellingQueueRow.id)
    ):
        if queue.kind == "rank":
            labelled += merged_rankings(said_by_all(queue), Named(salt))
        elif queue.kind == "reply":
            replies = demonstrations(said_by_all(queue), Named(salt))
            found.corrections.extend(Demonstration.model_validate(one.model_dump()) for one in replies)
    return Gathered(found.corrections, found.rankings + labelled, found.ratings, len(labelled))


def stamp(session: Session) -> tuple[Any, ...]:
    """Another one whenever something of what `gather` and `arrived` read has changed: counts and newest times, which
    cost milliseconds where reading it all costs seconds."""
    count, newest, total = func.count, func.max, func.sum
    withdrawn = count(case((LabellingTaskRow.state == "withdrawn", 1)))
    handed_in = count(case((LabellingAssignmentRow.state == "done", 1)))
    queries: list[Any] = [
        select(count(), newest(RatingRow.created_at), total(RatingRow.value)).select_from(RatingRow),
        select(count(), newest(CorrectionRow.created_at)).select_from(CorrectionRow),
        select(count(ComparisonRow.choice), newest(ComparisonRow.chosen_at)),
        select(count(), newest(ReportRow.created_at)).select_from(ReportRow),
        select(count(BattleRow.choice), newest(BattleRow.chosen_at)),
        select(count(ConversationRow.deleted_at)),
        select(count(), withdrawn).select_from(LabellingTaskRow),
        select(handed_in).select_from(LabellingAssignmentRow),
        select(count(), newest(LabellingJudgementRow.id)).select_from(LabellingJudgementRow),
        select(count(UserRow.improve_since), total(UserRow.improve_since), total(UserRow.refused_at)),
    ]
    return tuple(value for query in queries for value in session.execute(query).one())


@dataclass(frozen=True)
class Arrived:
    """What people have said who let models learn from it: of each kind who said it and when, in seconds."""

    said: dict[str, list[tuple[str, float]]]

    def counts(self, since: float | None) -> dict[str, dict[str, int]]:
        """Of each kind and of people: how many in all, and how many after `since`."""
        later = {kind: [who for who, at in rows if since is None or at > since] for kind, rows in self.said.items()}
        found = {kind: {"total": len(rows), "new": len(later[kind])} for kind, rows in self.said.items()}
        everybody = {who for rows in self.said.values() for who, _ in rows}
        found["people"] = {"total": len(everybody), "new": len({who for rows in later.values() for who in rows})}
        return found

    def days(self, now: float | None = None) -> list[dict[str, Any]]:
        """Of the last 30 days of this machine, the oldest first, how much of each kind came in."""
        today = datetime.fromtimestamp(time.time() if now is None else now).date()
        days = [(today - timedelta(days=back)).isoformat() for back in range(DAYS - 1, -1, -1)]
        kinds = [kind for kind in self.said if kind != "reports"]
        seen = {
            kind: Counter(datetime.fromtimestamp(at).date().isoformat() for _, at in self.said[kind]) for kind in kinds
        }
        return [{"day": day, **{kind: seen[kind][day] for kind in kinds}} for day in days]


def arrived(session: Session) -> Arrived:
    """Reads it all, since when somebody has agreed."""
    answers = {
        "ratings": RatingRow.created_at,
        "corrections": CorrectionRow.created_at,
        "reports": ReportRow.created_at,
    }
    queries: dict[str, Select[Any, Any]] = {
        kind: select(ConversationRow.user_id, at)
        .join(MessageRow, MessageRow.conversation_id == ConversationRow.id)
        .join(at.class_, at.class_.message_id == MessageRow.id)
        .join(UserRow, UserRow.id == ConversationRow.user_id)
        .where(UserRow.improve_since <= at, ConversationRow.deleted_at.is_(None))
        for kind, at in answers.items()
    }
    queries["comparisons"] = (
        select(ComparisonRow.user_id, ComparisonRow.chosen_at)
        .join(UserRow, UserRow.id == ComparisonRow.user_id)
        .join(MessageRow, MessageRow.id == ComparisonRow.first_id)
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .where(ComparisonRow.choice.is_not(None), ConversationRow.deleted_at.is_(None))
        .where(UserRow.improve_since <= ComparisonRow.chosen_at)
    )
    queries["rankings"] = (
        select(LabellingJudgementRow.user_id, LabellingJudgementRow.created_at)
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingJudgementRow.task_id)
        .join(LabellingQueueRow, LabellingQueueRow.id == LabellingTaskRow.queue_id)
        .where(LabellingQueueRow.kind == "rank", LabellingTaskRow.state != "withdrawn")
        .where(LabellingJudgementRow.action == "judged", LabellingJudgementRow.user_id.is_not(None))
    )
    order = ("ratings", "comparisons", "corrections", "rankings", "reports")
    return Arrived({kind: [(row[0], row[1]) for row in session.execute(queries[kind])] for kind in order})
