"""What people said, as records to learn from: only of those who agreed, and only what they said since then.

    ratings          thumbs: for KTO
    rankings         choices between two answers, and corrections, which are better than what they correct
    demonstrations   corrections

Each record says which model answered, how it was sampled, and who judged: a name that is drawn for the export, by which
one person's judgements are told from another's, but nobody is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, TypeVarTuple

from pydantic import ValidationError
from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased

from chatwheel.data.records import Demonstration, Ranking, Rating, Record
from chatwheel.store.conversations import thread
from chatwheel.store.tables import (
    ComparisonRow,
    ConversationRow,
    CorrectionRow,
    MessageRow,
    RatingRow,
    UserRow,
)

Kind = Literal["ratings", "rankings", "demonstrations"]
RecordT = TypeVar("RecordT", bound=Record)
Ts = TypeVarTuple("Ts")
RANKS = {"first": [1, 2], "second": [2, 1], "tie": [1, 1]}
"""Of the choices; of two bad answers it is not said which one is worse, and both places would be the first."""


@dataclass(frozen=True)
class Export:
    """salt: with another one labellers have other names. everybody: those who have not agreed too, for an installation
    whose people were told so in another way."""

    session: Session
    salt: str
    everybody: bool = False

    def ratings(self) -> Iterator[Rating]:
        """The oldest first: of whole answers."""
        query = select(RatingRow, MessageRow, UserRow).join(MessageRow, MessageRow.id == RatingRow.message_id)
        query = self._agreed(query, RatingRow.created_at).order_by(RatingRow.created_at, RatingRow.id)
        for rating, answer, user in self.session.execute(query):
            if answer.status == "complete":
                said = {"reasons": rating.reasons or None, "comment": rating.comment}
                values = {"answer": answer.content, "rating": rating.value, **said}
                yield from self._record(Rating, answer, user, values)

    def rankings(self) -> Iterator[Ranking]:
        """Choices, then corrections, each the oldest first."""
        first, second = aliased(MessageRow), aliased(MessageRow)
        query = (
            select(ComparisonRow, first, second, UserRow)
            .join(first, first.id == ComparisonRow.first_id)
            .join(second, second.id == ComparisonRow.second_id)
            .join(UserRow, UserRow.id == ComparisonRow.user_id)
            .where(ComparisonRow.choice.in_(RANKS))
        )
        query = self._if_agreed(query, ComparisonRow.chosen_at)
        for comparison, one, other, user in self.session.execute(
            query.order_by(ComparisonRow.chosen_at, ComparisonRow.id)
        ):
            said = {"answers": [one.content, other.content], "ranks": RANKS[comparison.choice or ""], "shown": [0, 1]}
            yield from self._record(Ranking, one, user, said | {"models": [one.model, other.model]})
        for correction, answer, user in self._corrections():
            if answer.content.strip():
                said = {"answers": [correction.content, answer.content], "ranks": [1, 2]}
                yield from self._record(Ranking, answer, user, said | {"models": [None, answer.model]})

    def demonstrations(self) -> Iterator[Demonstration]:
        """The oldest first."""
        for correction, answer, user in self._corrections():
            last = [{"role": "assistant", "content": correction.content}]
            yield from self._record(Demonstration, answer, user, {}, last)

    def _corrections(self) -> Iterator[tuple[CorrectionRow, MessageRow, UserRow]]:
        query = select(CorrectionRow, MessageRow, UserRow).join(MessageRow, MessageRow.id == CorrectionRow.message_id)
        query = self._agreed(query, CorrectionRow.created_at)
        for found in self.session.execute(query.order_by(CorrectionRow.created_at, CorrectionRow.message_id)):
            yield found[0], found[1], found[2]

    def _agreed(self, query: Select[*Ts], said_at: Any) -> Select[*Ts]:
        query = query.join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        return self._if_agreed(query.join(UserRow, UserRow.id == ConversationRow.user_id), said_at)

    def _if_agreed(self, query: Select[*Ts], said_at: Any) -> Select[*Ts]:
        return query if self.everybody else query.where(UserRow.improve_since <= said_at)

    def _record(
        self,
        kind: type[RecordT],
        answer: MessageRow,
        user: UserRow,
        said: Mapping[str, Any],
        last: Sequence[dict[str, str]] = (),
    ) -> Iterator[RecordT]:
        """One, or none where a failed model has left a conversation without an answer in the middle."""
        prompt = [{"role": m.role, "content": m.content} for m in thread(self.session, answer)[:-1]]
        conversation = self.session.get_one(ConversationRow, answer.conversation_id)
        named = hashlib.blake2b(f"{self.salt} {user.id}".encode(), digest_size=6).hexdigest()
        shared = {
            "id": answer.id,
            "source": "feedback",
            "language": conversation.language,
            "messages": [*prompt, *last],
            "labeller": f"person-{named}",
            "model": answer.model,
            "sampling": answer.sampling,
            "fingerprint": answer.fingerprint,
        }
        with suppress(ValidationError):
            yield kind.model_validate({**shared, **said})
