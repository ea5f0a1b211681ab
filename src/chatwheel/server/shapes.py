"""The JSON of the page's own resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.engine.requests import SamplingParams
from chatwheel.store.search import Found
from chatwheel.store.tables import (
    BriefRow,
    Choice,
    ComparisonRow,
    ConversationRow,
    CorrectionRow,
    MessageRow,
    RatingReason,
    RatingRow,
    ReportReason,
    ReportRow,
)

MAX_COMMENT = 2000
ANSWER_TOKENS = 1024  # on the page, a model that finds no end is ended here


class Body(BaseModel):
    """What a client sends: exact types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class NewConversation(Body):
    """POST /api/conversations. persona: the id of one of one's own, whose prompt and sampling it begins with."""

    model: str = Field(min_length=1, max_length=1000)
    persona: str | None = Field(None, min_length=1, max_length=40)
    language: str | None = Field(None, max_length=16)


class ConversationChange(Body):
    """PATCH /api/conversations/{id}."""

    title: str = Field(min_length=1, max_length=200)


class Sampling(Body):
    """How to answer: greedy, with the conversation's model, unless asked otherwise."""

    model: str | None = Field(None, min_length=1, max_length=1000)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(ANSWER_TOKENS, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)

    def params(self) -> SamplingParams:
        """For the engine."""
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed
        )


class NewMessage(Sampling):
    """POST /api/conversations/{id}/messages. parent_id: the answer it follows; null begins a new branch at the
    start; left out, it goes on after the newest message."""

    content: str = Field(min_length=1)
    parent_id: str | None = None


class NewRating(Body):
    """PUT /api/messages/{id}/rating; 0 takes the rating back."""

    value: Literal[-1, 0, 1]
    comment: str | None = Field(None, max_length=MAX_COMMENT)
    reasons: list[RatingReason] = Field(default_factory=list, max_length=20)


class Alternative(Sampling):
    """POST /api/messages/{id}/alternative: by the same model, unless another one is named."""

    temperature: float = Field(1.0, ge=0, le=2)


class NewChoice(Body):
    """PUT /api/comparisons/{id}."""

    choice: Choice


class NewCorrection(Body):
    """PUT /api/messages/{id}/correction."""

    content: str = Field(min_length=1, max_length=100_000)


class NewReport(Body):
    """POST /api/messages/{id}/report."""

    reason: ReportReason
    comment: str | None = Field(None, max_length=MAX_COMMENT)


class Consent(Body):
    """PUT /api/consent. improve: whether models may learn from one's chats."""

    improve: bool


class RatingView(BaseModel):
    """A rating."""

    model_config = ConfigDict(from_attributes=True)
    value: int
    comment: str | None
    reasons: list[str] = []


class ComparisonView(BaseModel):
    """Two answers in the order in which they are shown, and which one was said to be better. models: who wrote them,
    once somebody has chosen."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    first_id: str
    second_id: str
    choice: str | None
    models: list[str | None] | None = None


class CorrectionView(BaseModel):
    """What an answer should have been."""

    model_config = ConfigDict(from_attributes=True)
    content: str
    created_at: float


class ReportView(BaseModel):
    """An answer that somebody reported, without the conversation around it."""

    message_id: str
    reason: str
    comment: str | None
    created_at: float
    handled_at: float | None
    answer: str
    model: str | None

    @staticmethod
    def of(report: ReportRow, answer: MessageRow) -> ReportView:
        """As an admin sees it."""
        return ReportView(
            message_id=report.message_id,
            reason=report.reason,
            comment=report.comment,
            created_at=report.created_at,
            handled_at=report.handled_at,
            answer=answer.content,
            model=answer.model,
        )


class ReportList(BaseModel):
    """Some of them."""

    data: list[ReportView]


class MessageView(BaseModel):
    """A message with its rating."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    parent_id: str | None
    role: str
    content: str
    model: str | None
    status: str
    created_at: float
    rating: RatingView | None = None
    correction: str | None = None


class ConversationView(BaseModel):
    """A line of the sidebar."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    title: str
    model: str
    language: str | None
    created_at: float
    updated_at: float


class BriefView(BaseModel):
    """What a conversation began with: a persona's name, and the system prompt with the user's instruction."""

    model_config = ConfigDict(from_attributes=True)
    persona: str | None
    system_prompt: str


class ConversationWithMessages(ConversationView):
    """A whole conversation; the messages form a tree by `parent_id`, the oldest first."""

    brief: BriefView | None = None

    messages: list[MessageView] = []
    comparisons: list[ComparisonView] = []


class ConversationList(BaseModel):
    """The newest first."""

    data: list[ConversationView]


class SearchHit(BaseModel):
    """A message that was found, or a conversation by its title (then there is no message). snippet: the text around
    what was found, in parts: plain, found, plain, found, ..., plain. It is text, not HTML."""

    conversation: ConversationView
    message_id: str | None
    role: str | None
    snippet: list[str]

    @staticmethod
    def of(found: Found) -> SearchHit:
        """As the page gets it."""
        return SearchHit(
            conversation=ConversationView.model_validate(found.conversation),
            message_id=found.message.id if found.message else None,
            role=found.message.role if found.message else None,
            snippet=list(found.snippet),
        )


class SearchHits(BaseModel):
    """The newest first."""

    data: list[SearchHit]


class ModelView(BaseModel):
    """A model that can answer. stage: base, sft, ppo, dpo, kto or other; label: what to call it; group: its run."""

    id: str
    label: str
    stage: str
    group: str
    created: int


class ModelList(BaseModel):
    """default: the model that a new conversation starts with. report: where the run's report is, if there is one."""

    data: list[ModelView]
    default: str | None
    report: str | None
    version: str


class Ticket(BaseModel):
    """A link that works for a minute without the key."""

    url: str


def with_messages(
    conversation: ConversationRow,
    messages: Iterable[MessageRow],
    ratings: Sequence[RatingRow],
    corrections: Sequence[CorrectionRow],
    comparisons: Sequence[ComparisonRow],
    brief: BriefRow | None = None,
) -> ConversationWithMessages:
    """A conversation as the page gets it."""
    by_message = {rating.message_id: RatingView.model_validate(rating) for rating in ratings}
    corrected = {correction.message_id: correction.content for correction in corrections}
    view = ConversationWithMessages.model_validate(
        ConversationView.model_validate(conversation).model_dump(), strict=False
    )
    view.brief = BriefView.model_validate(brief) if brief else None
    undecided = {one for row in comparisons if row.choice is None for one in (row.first_id, row.second_id)}
    for message in messages:
        changes: dict[str, object] = {"rating": by_message.get(message.id), "correction": corrected.get(message.id)}
        if message.id in undecided:  # who wrote it is told when somebody has chosen
            changes["model"] = None
        view.messages.append(MessageView.model_validate(message).model_copy(update=changes))
    view.comparisons = [ComparisonView.model_validate(comparison) for comparison in comparisons]
    return view
