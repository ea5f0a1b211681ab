"""The request and the answer of POST /v1/moderations, field by field as OpenAI has them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.safety.moderation import Result

Json = dict[str, Any]
ALIASES = ("omni-moderation-latest", "text-moderation-latest", "text-moderation-stable")
"""OpenAI's names, by which clients ask for moderation; the answer says what judged."""
MOST_INPUTS = 2048
"""As of embeddings: an answer of bounded size."""


class ModerationPart(BaseModel):
    """A piece of an input. Only text is judged."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: Any = None


class ModerationRequest(BaseModel):
    """The body. input: a text, several texts (a result each), or the parts of one (one result)."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    input: str | list[str] | list[ModerationPart]
    model: str | None = Field(None, min_length=1, max_length=1000)

    def check_model(self, name: str) -> None:
        """Raises ModelNotFoundError for a model that is neither ours nor one of OpenAI's names."""
        if self.model is not None and self.model not in (*ALIASES, name):
            raise ModelNotFoundError(
                f"The moderation model {self.model!r} does not exist; there are {name}, {', '.join(ALIASES)}.",
                code="model_not_found",
                param="model",
            )

    def texts(self) -> list[str]:
        """What is judged, a result each. Raises InputError for pictures and for lists that are empty or too long."""
        if isinstance(self.input, str):
            return [self.input]
        if not 0 < len(self.input) <= MOST_INPUTS:
            raise InputError(
                f"Invalid value for 'input': expected 1 to {MOST_INPUTS} inputs, got {len(self.input)}.", param="input"
            )
        texts = [part for part in self.input if isinstance(part, str)]
        parts = [_text(number, part) for number, part in enumerate(self.input) if isinstance(part, ModerationPart)]
        return texts or ["\n".join(parts)]


def _text(number: int, part: ModerationPart) -> str:
    where = f"input[{number}]"
    if part.type == "image_url":
        raise InputError(
            f"Invalid value for '{where}.type': 'image_url' is not supported, only text is judged here.",
            param=f"{where}.type",
        )
    if part.text is None:
        raise InputError(f"Missing required parameter: '{where}.text'.", param=f"{where}.text")
    if part.image_url is not None:
        raise InputError(f"Invalid value for '{where}.image_url': a part of type 'text' has none.", param=where)
    return part.text


def answer(model: str, results: Sequence[Result]) -> Json:
    """The body of the answer."""
    return {
        "id": f"modr-{secrets.token_hex(12)}",
        "model": model,
        "results": [
            {
                "flagged": result.flagged,
                "categories": result.categories,
                "category_scores": result.category_scores,
                "category_applied_input_types": {category: ["text"] for category in result.categories},
            }
            for result in results
        ],
    }
