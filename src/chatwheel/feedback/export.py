"""What people said, as records to learn from: only of those who agreed, and only of conversations that they have begun,
and battles of the arena that they have asked for, since then.

    ratings          thumbs: for KTO
    rankings         choices between two answers, in chats and in the arena, and corrections, which are better than what
                     they correct
    demonstrations   corrections

Each record says which model answered, how it was sampled, and who judged: a name that is drawn for the export, as its
id is, by which one person's judgements are told from another's, but nobody is known. What they wrote is as they wrote
it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, TypeVarTuple

from pydantic import ValidationError
from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased

from chatwheel.data.records import Demonstration, Message, Ranking, Rating, Record
from chatwheel.store.conversations import list_messages, prompt_of
from chatwheel.store.personas import brief_of, system_turn
from chatwheel.store.tables import (
    BattleRow,
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
SIDES = {"left": "first", "right": "second", "tie": "tie"}
"""Of the choices; of two bad answers it is not said which one is worse, and both places would be the first."""


@dataclass
class Export:
    """salt: with another one labellers and records have other names. everybody: those who have said nothing of it too,
    for an installation whose people were told so in another way; whoever has refused is left out all the same.
    incomplete: how many judgements were left out, as an answer had broken off or its conversation cannot be read."""

    session: Session
    salt: str
    everybody: bool = False
    incomplete: int = 0
    _read: tuple[str, dict[str, MessageRow]] = field(default=("", {}), repr=False)

    def ratings(self) -> Iterator[Rating]:
        """The oldest first."""
        query = select(RatingRow, MessageRow, UserRow).join(MessageRow, MessageRow.id == RatingRow.message_id)
        query = self._agreed(query, RatingRow.created_at).order_by(RatingRow.created_at, RatingRow.id)
        for rating, answer, user in self.session.execute(query):
            said: dict[str, Any] = {"answer": answer.content, "rating": rating.value}
            said |= {"reasons": rating.reasons or None, "comment": rating.comment}
            yield from self._record(Rating, [answer], user, said)

    def rankings(self) -> Iterator[Ranking]:
        """Choices, then corrections, then battles, each the oldest first."""
        first, second = aliased(MessageRow), aliased(MessageRow)
        query = (
            select(ComparisonRow, first, second, UserRow)
            .join(first, first.id == ComparisonRow.first_id)
            .join(second, second.id == ComparisonRow.second_id)
            .join(ConversationRow, ConversationRow.id == first.conversation_id)
            .join(UserRow, UserRow.id == ComparisonRow.user_id)
            .where(ComparisonRow.choice.in_(RANKS), ConversationRow.deleted_at.is_(None))
        )
        query = self._if_agreed(query, ComparisonRow.chosen_at)
        query = query.order_by(ComparisonRow.chosen_at, ComparisonRow.id)
        for comparison, one, other, user in self.session.execute(query):
            said = {"answers": [one.content, other.content], "ranks": RANKS[comparison.choice or ""], "shown": [0, 1]}
            yield from self._record(Ranking, [one, other], user, said | {"models": [one.model, other.model]})
        for correction, answer, user in self._corrections():
            said = {"answers": [correction.content, answer.content], "ranks": [1, 2]}
            yield from self._record(Ranking, [answer], user, said | {"models": [None, answer.model]})
        yield from self._battles()

    def _battles(self) -> Iterator[Ranking]:
        query = select(BattleRow, UserRow).join(UserRow, UserRow.id == BattleRow.user_id)
        query = self._if_agreed(query.where(BattleRow.choice.in_(SIDES)), BattleRow.created_at)
        for battle, user in self.session.execute(query.order_by(BattleRow.chosen_at, BattleRow.id)):
            answers = [battle.left_answer, battle.right_answer]
            if not all(map(str.strip, answers)):
                self.incomplete += 1
                continue
            yield Ranking.model_validate(
                {
                    "id": f"judged-{self._named(battle.id)}",
                    "source": "arena",
                    "language": battle.language,
                    "messages": [{"role": "user", "content": battle.prompt}],
                    "answers": answers,
                    "ranks": RANKS[SIDES[battle.choice or ""]],
                    "shown": [0, 1],
                    "labeller": f"person-{self._named(user.id)}",
                    "models": [battle.left_model, battle.right_model],
                    "sampling": battle.sampling,
                    "fingerprints": [battle.left_fingerprint, battle.right_fingerprint],
                }
            )

    def demonstrations(self) -> Iterator[Demonstration]:
        """The oldest first; also of answers that had broken off."""
        for correction, answer, user in self._corrections():
            last = [{"role": "assistant", "content": correction.content}]
            yield from self._record(Demonstration, [answer], user, {}, last)

    def _corrections(self) -> Iterator[tuple[CorrectionRow, MessageRow, UserRow]]:
        query = select(CorrectionRow, MessageRow, UserRow).join(MessageRow, MessageRow.id == CorrectionRow.message_id)
        query = self._agreed(query, CorrectionRow.created_at)
        for found in self.session.execute(query.order_by(CorrectionRow.created_at, CorrectionRow.message_id)):
            yield found[0], found[1], found[2]

    def _agreed(self, query: Select[*Ts], said_at: Any) -> Select[*Ts]:
        query = query.join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        query = query.where(ConversationRow.deleted_at.is_(None))
        return self._if_agreed(query.join(UserRow, UserRow.id == ConversationRow.user_id), said_at)

    def _if_agreed(self, query: Select[*Ts], said_at: Any) -> Select[*Ts]:
        return query.where(UserRow.refused_at.is_(None) if self.everybody else UserRow.improve_since <= said_at)

    def _record(
        self,
        kind: type[RecordT],
        answers: Sequence[MessageRow],
        user: UserRow,
        said: Mapping[str, Any],
        last: Sequence[dict[str, str]] = (),
    ) -> Iterator[RecordT]:
        """One of answers to the same question, or none."""
        answer, thread = answers[0], self._thread(answers[0])
        since = 0.0 if self.everybody else user.improve_since or 0.0
        if any(message.created_at < since for message in thread):
            return  # it began before they agreed
        if not last and any(one.status != "complete" or not one.content.strip() for one in answers):
            self.incomplete += 1
            return
        shared = {
            "id": f"judged-{self._named(answer.id)}",
            "source": "feedback",
            "language": self.session.get_one(ConversationRow, answer.conversation_id).language,
            "messages": [*(m.model_dump(include={"role", "content"}) for m in self._seen(answer, thread)), *last],
            "labeller": f"person-{self._named(user.id)}",
            "model": answer.model,
            "sampling": answer.sampling,
            "fingerprint": answer.fingerprint,
        }
        try:
            yield kind.model_validate({**shared, **said})
        except ValidationError:  # such as a conversation that begins with an answer
            self.incomplete += 1

    def _seen(self, answer: MessageRow, thread: list[MessageRow]) -> list[Message]:
        """What the model saw, its system turn too."""
        return [*system_turn(brief_of(self.session, answer.conversation_id)), *prompt_of(thread)]

    def _thread(self, answer: MessageRow) -> list[MessageRow]:
        """From the conversation's first message to the question."""
        if self._read[0] != answer.conversation_id:
            rows = list_messages(self.session, answer.conversation_id)
            self._read = answer.conversation_id, {row.id: row for row in rows}
        path: list[MessageRow] = []
        parent = answer.parent_id
        while parent is not None:
            path.append(self._read[1][parent])
            parent = path[-1].parent_id
        return path[::-1]

    def _named(self, of: str) -> str:
        return hashlib.blake2b(f"{self.salt} {of}".encode(), digest_size=6).hexdigest()
