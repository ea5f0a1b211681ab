"""The request and the answer of POST /v1/embeddings, field by field as OpenAI has them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from chatwheel.errors import InputError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.server.sampling import TokenId

MAX_INPUTS = 2048
Tokens = Annotated[list[TokenId], Field(min_length=1)]


class EmbeddingRequest(BaseModel):
    """The body. dimensions: so many of the first numbers, as a vector of length 1 again."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str = Field(min_length=1, max_length=1000)
    input: str | Annotated[list[str], Field(min_length=1)] | Tokens | Annotated[list[Tokens], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None

    def check(self) -> None:
        """What no single field can tell. Raises InputError that names the field."""
        if len(self.inputs()) > MAX_INPUTS:
            raise InputError(f"'input' has {len(self.inputs())} texts; at most {MAX_INPUTS} at a time.", param="input")
        for place, one in enumerate(self.inputs()):
            if not one:
                param = "input" if isinstance(self.input, str) else f"input[{place}]"
                raise InputError(f"'{param}' is empty; an embedding is of some text.", param=param)

    def inputs(self) -> Sequence[str | Sequence[int]]:
        """Each input."""
        if isinstance(self.input, str):
            return [self.input]
        return [self.input] if isinstance(self.input[0], int) else self.input

    def read(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Each input as the model reads it."""
        return [tokenizer.encode_text(one) if isinstance(one, str) else list(one) for one in self.inputs()]

    def vector(self, embedding: Sequence[float]) -> list[float] | str:
        """A vector as it was asked for: numbers, or the base64 of little-endian fp32. Raises InputError if it has fewer
        numbers than were asked for."""
        found = np.asarray(embedding, np.float32)
        if self.dimensions is not None and self.dimensions > len(found):
            raise InputError(
                f"This model's embeddings have {len(found)} dimensions; ask for at most so many.", param="dimensions"
            )
        if self.dimensions is not None and self.dimensions < len(found):
            found = found[: self.dimensions]
            found = found / max(float(np.linalg.norm(found)), 1e-12)
        if self.encoding_format == "base64":
            return base64.b64encode(found.astype("<f4").tobytes()).decode("ascii")
        return [float(number) for number in found]


def embedding_list(model: str, vectors: Sequence[list[float] | str], usage: dict[str, Any]) -> dict[str, Any]:
    """The answer."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": model, "usage": usage}
