"""Published shapes of single judged answers -> ratings: one prompt, one answer, a thumb."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chatwheel.data.records import Json, Message, Rating
from chatwheel.data.sources.fields import Skip, WrongFieldError, extras, text
from chatwheel.data.sources.turns import conversation, turns_of


def from_native(value: Json) -> Iterator[Rating]:
    """Chatwheel's own {"messages", "answer", "rating"}."""
    rating = value.get("rating")
    if isinstance(rating, bool) or rating not in (-1, 1):
        raise WrongFieldError(f"field 'rating' should be 1 (thumb up) or -1 (down), found {rating!r}")
    prompt = conversation(turns_of(value.get("messages"), "user")).messages
    yield _rating(prompt, text(value, "answer"), rating, extras(value, "messages", "answer", "rating"))


def from_unpaired(value: Json) -> Iterator[Rating]:
    """{"prompt", "completion", "label"}, each side a string or a list of messages (TRL's unpaired preferences)."""
    label = value.get("label")
    if not isinstance(label, bool):
        raise WrongFieldError(f"field 'label' should be true or false, found {label!r}")
    turns = [*turns_of(value.get("prompt"), "user"), *turns_of(value.get("completion"), "assistant")]
    *prompt, answer = conversation(turns).messages
    if answer.role != "assistant":
        raise Skip("a dialogue ends without an answer")
    yield _rating(prompt, answer.content, 1 if label else -1, extras(value, "prompt", "completion", "label"))


def _rating(prompt: Sequence[Message], answer: str, rating: int, more: Json) -> Rating:
    if not prompt or prompt[-1].role != "user":
        raise Skip("the prompt does not end with the user")
    if not answer.strip():
        raise Skip("an empty answer")
    return Rating.model_validate({**more, "messages": list(prompt), "answer": answer, "rating": rating})
