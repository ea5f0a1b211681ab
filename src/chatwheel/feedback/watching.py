"""Whether people like a promoted model less than the one before it: then it is taken back.

    with database.write() as session:
        watched = watch(session)          # after each minute, on any server

While a candidate answers a part, thumbs of both models that came in since it began are held against each other. Once
it answers all, its thumbs are held against the share of thumbs up that the model before it had. Both tests may be
looked at as often as one likes (`sequential`). Nobody is taken back who came in the place of one that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.feedback.sequential import BelowBaseline, FallingRatings
from chatwheel.feedback.significance import share_interval
from chatwheel.store.accounts import record
from chatwheel.store.database import lock
from chatwheel.store.deployments import Deployed, before, deployed, rollback
from chatwheel.store.tables import ConversationRow, DeploymentRow, MessageRow, RatingRow

LEVEL = 0.05
"""How likely a model that is as good is ever taken back, each time that it is promoted."""
LEAST, MOST = 20, 2000
"""Thumbs of the model before from which on its share of thumbs up is known, and that are counted."""
QUANTILE = 1.96


@dataclass(frozen=True)
class Watched:
    """What was found, in words, and whether the model was taken back for it."""

    model: str
    words: str
    taken_back: bool


def watch(session: Session, level: float = LEVEL) -> Watched | None:
    """Looks once; None where there is nothing to compare with. Of what is seen at the same time on several servers, one
    acts."""
    now = deployed(session)
    found = judged(session, now, level)
    watched = now.candidate or now.current
    if found is None or watched is None:
        return None
    words, alarm = found
    if alarm:
        lock(session, ["deployments"])
        again = deployed(session)
        alarm = (again.candidate or again.current or watched).id == watched.id  # else somebody has acted meanwhile
    if alarm:
        rollback(session, note={"ratings": words})
        record(session, None, "model.rolled_back", watched.model, ratings=words)
    return Watched(watched.model, words, taken_back=alarm)


def judged(session: Session, now: Deployed, level: float = LEVEL) -> tuple[str, bool] | None:
    """What the ratings say, in words, and whether that is an alarm; None where there is nothing to compare with."""
    if now.current is None:
        return None
    if now.candidate is not None:
        return _beside(session, now.current, now.candidate, level)
    earlier = None if "after" in now.current.note else before(session, now.current)
    return _after(session, now.current, earlier.model, level) if earlier is not None else None


def _beside(session: Session, current: DeploymentRow, candidate: DeploymentRow, level: float) -> tuple[str, bool]:
    test = FallingRatings(level=level)
    models = (current.model, candidate.model)
    for model, value in _thumbs(session, models, since=candidate.started_at):
        test.add("new" if model == candidate.model else "old", value)
    return test.words(), test.alarm


def _after(session: Session, current: DeploymentRow, earlier: str, level: float) -> tuple[str, bool] | None:
    past = [value for _, value in _thumbs(session, [earlier], until=current.started_at)][-MOST:]
    if len(past) < LEAST:
        return None
    mean = sum(past) / len(past)
    # The lower end of what it may have been: a past of few thumbs is no reason to take a model back.
    baseline = share_interval(mean, len(past), QUANTILE)[0]
    if baseline <= 0:
        return None
    test = BelowBaseline(baseline, level=level)
    thumbs = [value for _, value in _thumbs(session, [current.model], since=current.started_at)]
    for value in thumbs:
        test.add(value)
    verdict = "worse" if test.alarm else "not shown to be worse"
    share = f"{sum(thumbs) / len(thumbs):.2f} ({len(thumbs)})" if thumbs else "no ratings yet"
    return f"{verdict}: {share} after {mean:.2f} ({len(past)}); p = {test.p:.2g} at any time", test.alarm


def _thumbs(
    session: Session, models: Sequence[str], *, since: float | None = None, until: float | None = None
) -> list[tuple[str, float]]:
    """(model, 1 or 0) in the order in which they were given; since: of conversations that began then or later, as in
    older ones another model has answered. until: given before that."""
    query = (
        select(MessageRow.model, RatingRow.value)
        .join(RatingRow, RatingRow.message_id == MessageRow.id)
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .where(MessageRow.model.in_(models), ConversationRow.deleted_at.is_(None))
        .order_by(RatingRow.created_at, RatingRow.id)
    )
    if since is not None:
        query = query.where(ConversationRow.created_at >= since)
    if until is not None:
        query = query.where(RatingRow.created_at < until)
    return [(model or "", float(value > 0)) for model, value in session.execute(query)]
