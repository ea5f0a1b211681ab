"""What a recipe says about files: which, how much of each, and what may not come in. `preparation` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt


def _not_evaluation(path: Path) -> Path:
    if "evaluation" in path.parts:
        raise ValueError(f"{path} is evaluation data, which must never be trained on; choose another file")
    return path


class Source(BaseModel):
    """One file of a mixture.

    path: relative to the mixture's root.        format, language, fields: as in `sources.load`.
    weight: how often each record is repeated; 0.5 keeps half of them, 2.5 gives two or three copies.
    prompt_weight: how often each of its different prompts goes to prompts.jsonl; 0 keeps its prompts from PPO.
    max_records: a cap, held-out records included, before the weight; which ones remain depends on the seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Annotated[Path, AfterValidator(_not_evaluation)]
    format: str = "auto"
    language: Literal["en", "zh"] | None = None
    fields: dict[str, str] = {}
    weight: float = Field(default=1.0, gt=0, le=100)
    prompt_weight: float = Field(default=1.0, ge=0, le=100)
    max_records: PositiveInt | None = None


class DocumentSource(Source):
    """Text for pretraining. max_megabytes: a cap on the cleaned text in UTF-8; documents stay whole."""

    max_megabytes: float | None = Field(default=None, gt=0)


class FilesData(BaseModel):
    """The `data` part of a recipe that trains on files.

    root: where the paths begin, relative to the recipe (`located`).
    held_out: the share of documents that training never sees.
    held_out_prompts: the share of first questions, of demonstrations, rankings and ratings alike, that training never
        sees.
    min_document_characters: shorter documents are dropped.
    max_bytes: the longest demonstration, and the longest prompt with an answer of a ranking, in bytes of UTF-8: a
        token of a vocabulary of 8,192 is 3.7 bytes of English or 3.4 of Chinese, so 1,500 fit a context of 512.
    max_prompt_bytes: the longest prompt for PPO; the rest of the context is the answer's.
    passage_bytes: the passages of question-answering prompts are cut to this.
    near_duplicates: documents that share so much of their five-word runs with an earlier one are dropped; 0.8 is usual.
    quality: documents that are hardly prose are dropped (see quality.py); for crawled text.
    languages: records in other languages than these are dropped, and those in them tagged so; told from the text.
    mask_personal_data: e-mail addresses, telephone numbers, cards, keys and the like become marks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["files"] = "files"
    root: Path = Path()
    held_out: float = Field(default=0.02, ge=0, le=0.5)
    held_out_prompts: float = Field(default=0.02, ge=0, le=0.5)
    min_document_characters: int = Field(default=200, ge=1)
    max_bytes: PositiveInt = 1500
    max_prompt_bytes: PositiveInt = 900
    passage_bytes: PositiveInt | None = 600
    near_duplicates: float | None = Field(default=None, ge=0.3, le=1)
    quality: bool = False
    languages: tuple[Annotated[str, Field(pattern="^[a-z]{2,3}$")], ...] | None = Field(default=None, min_length=1)
    mask_personal_data: bool = False
    documents: tuple[DocumentSource, ...] = ()
    demonstrations: tuple[Source, ...] = ()
    rankings: tuple[Source, ...] = ()
    ratings: tuple[Source, ...] = ()

    def located(self, recipe_directory: Path) -> Self:
        """The same with an absolute root; a recipe's paths are relative to the recipe."""
        return self.model_copy(update={"root": (recipe_directory / self.root.expanduser()).resolve()})
