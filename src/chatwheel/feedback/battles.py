"""Battles of the arena as they are kept: put down when both answers are there, decided once, read for the ratings."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from chatwheel.data.sources.language import language_of
from chatwheel.feedback.arena import Battle, Outcome
from chatwheel.feedback.topics import topic_of
from chatwheel.store.accounts import ConflictError, NotFoundError
from chatwheel.store.conversations import without_nul
from chatwheel.store.tables import BattleChoice, BattleRow

OUTCOMES: dict[str, Outcome] = {"left": "left", "right": "right", "tie": "tie", "both_bad": "both bad"}


@dataclass(frozen=True)
class Asked:
    """A prompt of the arena's, and what its battle will count for. digest: see `BattleRow`."""

    prompt: str
    digest: str
    language: str | None
    topic: str
    at: float

    @staticmethod
    def of(prompt: str, language: str | None = None) -> Asked:
        """language: told from the prompt (English or Chinese) unless it is given."""
        prompt = without_nul(prompt).strip()
        digest = hashlib.sha256(" ".join(prompt.split()).encode()).hexdigest()
        return Asked(prompt, digest, language or language_of(prompt), topic_of(prompt), time.time())


@dataclass(frozen=True)
class Fighter:
    """A model and what it said."""

    model: str
    fingerprint: str
    answer: str


def keep(
    session: Session,
    user_id: str,
    battle_id: str,
    asked: Asked,
    left: Fighter,
    right: Fighter,
    sampling: Mapping[str, Any],
) -> BattleRow:
    """Puts a battle down whose answers are both there."""
    row = BattleRow(
        id=battle_id,
        user_id=user_id,
        prompt=asked.prompt,
        digest=asked.digest,
        language=asked.language,
        topic=asked.topic,
        left_model=left.model,
        right_model=right.model,
        left_answer=without_nul(left.answer),
        right_answer=without_nul(right.answer),
        left_fingerprint=left.fingerprint,
        right_fingerprint=right.fingerprint,
        sampling=dict(sampling),
        created_at=asked.at,
    )
    session.add(row)
    session.flush()
    return row


def get_battle(session: Session, user_id: str, battle_id: str) -> BattleRow:
    """A user's own. Raises NotFoundError."""
    row = session.get(BattleRow, battle_id)
    if row is None or row.user_id != user_id:
        raise NotFoundError(f"battle {battle_id!r} not found; it may have been deleted, or broken off")
    return row


def list_battles(session: Session, user_id: str, limit: int = 100, before: float | None = None) -> Sequence[BattleRow]:
    """A user's, the newest first; `before` (a `created_at`) goes on where the last list ended."""
    query = select(BattleRow).where(BattleRow.user_id == user_id)
    if before is not None:
        query = query.where(BattleRow.created_at < before)
    return session.scalars(query.order_by(BattleRow.created_at.desc(), BattleRow.id).limit(limit)).all()


def choose(session: Session, user_id: str, battle_id: str, choice: BattleChoice) -> BattleRow:
    """Decides a battle of the user's, once: afterwards its names are known. Raises NotFoundError, ConflictError."""
    row = get_battle(session, user_id, battle_id)
    undecided = update(BattleRow).where(BattleRow.id == row.id, BattleRow.choice.is_(None))
    done = session.execute(undecided.values(choice=choice, chosen_at=time.time()).returning(BattleRow.id)).all()
    if not done:  # of two who come at once, one is the first
        raise ConflictError("this battle is decided already, and its names are known; ask once more for another one")
    session.refresh(row)
    return row


def fought(session: Session, told: Callable[[str], bool], latest: int | None = None) -> list[Battle]:
    """The battles that are decided, the last first. told: which models' names may be; battles with others are left out.
    latest: that many are looked at, at most."""
    columns = (
        BattleRow.left_model,
        BattleRow.right_model,
        BattleRow.choice,
        BattleRow.digest,
        BattleRow.topic,
        BattleRow.language,
    )
    query = select(*columns).where(BattleRow.chosen_at.is_not(None)).order_by(BattleRow.chosen_at.desc())
    return [
        Battle(left=left, right=right, outcome=OUTCOMES[choice], prompt=digest, topic=topic, language=language)
        for left, right, choice, digest, topic, language in session.execute(query.limit(latest))
        if choice is not None and told(left) and told(right)
    ]
