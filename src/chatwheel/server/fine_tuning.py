"""The JSON of fine-tuning jobs, as OpenAI has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chatwheel.errors import InputError
from chatwheel.store.tables import CheckpointRow, FineTuningJobRow, JobEventRow

if TYPE_CHECKING:
    from chatwheel.jobs.fine_tuning.graders import Grader
    from chatwheel.jobs.fine_tuning.method import Method

Json = dict[str, Any]


def parsed(value: Any) -> Method:
    """Raises InputError that names the field."""
    # Imported here: it takes PyTorch along, and the page should be up before.
    from chatwheel.jobs.fine_tuning.method import parse_method

    return parse_method(value)


class NewJob(BaseModel):
    """POST /v1/fine_tuning/jobs. training_file, validation_file: ids of files for "fine-tune". method: how it learns;
    supervised, with all numbers "auto", unless given. hyperparameters: the old place of those of a supervised method.
    suffix: a part of the new model's name. seed: the same one gives the same weights; by chance unless given.
    integrations: are not had here; an empty list is accepted. forecast: ours: see `Method`."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(min_length=1, max_length=1000)
    training_file: str = Field(min_length=1, max_length=100)
    validation_file: str | None = Field(None, min_length=1, max_length=100)
    method: Json | None = None
    hyperparameters: Json | None = None
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    seed: int | None = Field(None, ge=0, lt=2**31)
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = None
    integrations: list[Json] | None = None
    forecast: bool | None = None

    @field_validator("metadata")
    @classmethod
    def _few(cls, metadata: dict[str, str] | None) -> dict[str, str] | None:
        if len(metadata or {}) > 16:
            raise ValueError("at most 16 keys")
        return metadata

    @field_validator("integrations")
    @classmethod
    def _none(cls, integrations: list[Json] | None) -> list[Json] | None:
        if integrations:
            raise ValueError("are not had here; curves are in the job's events and on the page")
        return integrations

    def parsed_method(self) -> Method:
        """Raises InputError that names the field."""
        if self.method is not None and self.hyperparameters is not None:
            raise InputError("Give hyperparameters in the method, not both there and beside.", param="hyperparameters")
        value = self.method
        if value is None:
            value = {"type": "supervised", "supervised": {"hyperparameters": self.hyperparameters or {}}}
        method = parsed({**value, **({"forecast": True} if self.forecast else {})})
        if method.forecast and self.validation_file is None:
            raise InputError("A forecast takes a validation_file to measure on.", param="validation_file")
        return method


class FileCheckRequest(BaseModel):
    """POST /v1/files/{file_id}/check. model: whose tokens are counted."""

    model_config = ConfigDict(strict=True, extra="forbid")
    method: Json | str | None = None
    model: str | None = Field(None, min_length=1, max_length=1000)


class GraderCheckRequest(BaseModel):
    """POST /v1/fine_tuning/alpha/graders/validate. grader: as in a job's method."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    grader: Json

    def parsed(self) -> Grader:
        """Raises InputError that names the field."""
        # Imported here, as in `parsed`.
        from chatwheel.jobs.fine_tuning.graders import parse_grader

        return parse_grader(self.grader)


def job_view(row: FineTuningJobRow) -> Json:
    """OpenAI's job object, and `forecast`, which is ours."""
    from chatwheel.jobs.fine_tuning.method import Method

    method = Method.model_validate(row.method)  # a grader was read when the job was made: its program can be long
    shown = method.shown(row.hyperparameters or {})
    return {
        "object": "fine_tuning.job",
        "id": row.id,
        "created_at": int(row.created_at),
        "finished_at": _seconds(row.finished_at),
        "estimated_finish": _seconds(row.estimated_finish),
        "model": row.model,
        "fine_tuned_model": row.fine_tuned_model,
        "organization_id": row.project_id,
        "status": row.status,
        "training_file": row.training_file,
        "validation_file": row.validation_file,
        "result_files": row.result_files,
        "trained_tokens": row.trained_tokens if row.status == "succeeded" else None,
        "hyperparameters": shown[method.type]["hyperparameters"],
        "method": shown,
        "seed": row.seed,
        "metadata": row.details,
        "error": row.error or {},
        "integrations": [],
        "user_provided_suffix": row.suffix,
        "forecast": row.forecast,
    }


def event_view(row: JobEventRow) -> Json:
    """OpenAI's event object."""
    return {
        "object": "fine_tuning.job.event",
        "id": row.id,
        "created_at": int(row.created_at),
        "level": row.level,
        "message": row.message,
        "type": row.type,
        "data": row.data or {},
    }


def checkpoint_view(row: CheckpointRow) -> Json:
    """OpenAI's checkpoint object."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": row.id,
        "created_at": int(row.created_at),
        "fine_tuned_model_checkpoint": row.model,
        "fine_tuning_job_id": row.job_id,
        "metrics": row.metrics,
        "step_number": row.step_number,
    }


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
