"""The JSON of the page's own resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.engine.requests import SamplingParams
from chatwheel.store.tables import ConversationRow, MessageRow, RatingRow

MAX_COMMENT = 2000
ANSWER_TOKENS = 1024  # on the page, a model that finds no end is ended here


class Body(BaseModel):
    """What a client sends: exact types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class NewConversation(Body):
    """POST /api/conversations."""

    model: str = Field(min_length=1, max_length=1000)
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


class RatingView(BaseModel):
    """A rating."""

    model_config = ConfigDict(from_attributes=True)
    value: int
    comment: str | None


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


class ConversationView(BaseModel):
    """A line of the sidebar."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    title: str
    model: str
    language: str | None
    created_at: float
    updated_at: float


class ConversationWithMessages(ConversationView):
    """A whole conversation; the messages form a tree by `parent_id`, the oldest first."""

    messages: list[MessageView] = []


class ConversationList(BaseModel):
    """The newest first."""

    data: list[ConversationView]


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
    conversation: ConversationRow, messages: Iterable[MessageRow], ratings: Sequence[RatingRow]
) -> ConversationWithMessages:
    """A conversation as the page gets it."""
    by_message = {rating.message_id: RatingView.model_validate(rating) for rating in ratings}
    view = ConversationWithMessages.model_validate(
        ConversationView.model_validate(conversation).model_dump(), strict=False
    )
    view.messages = [
        MessageView.model_validate(message).model_copy(update={"rating": by_message.get(message.id)})
        for message in messages
    ]
    return view
