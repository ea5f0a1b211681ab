"""Fine-tuning jobs: asked for here, done by workers."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.server.catalog import TUNED
from chatwheel.server.fine_tuning import (
    FileCheckRequest,
    GraderCheckRequest,
    NewJob,
    checkpoint_view,
    event_view,
    job_view,
    parsed,
)
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import listed
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.services import Services, ServicesDep
from chatwheel.store import accounts, files, fine_tuning, limits
from chatwheel.store.accounts import NotFoundError, Principal
from chatwheel.store.fine_tuning import Wanted
from chatwheel.store.loading import tokenizer_of
from chatwheel.store.registry import ModelEntry
from chatwheel.store.tables import FineTuningJobRow

if TYPE_CHECKING:
    from chatwheel.jobs.fine_tuning.method import Method

Json = dict[str, Any]
router = APIRouter(prefix="/v1/fine_tuning/jobs", dependencies=[Depends(needs("fine_tuning"))])
graders = APIRouter(prefix="/v1/fine_tuning/alpha/graders", dependencies=[Depends(needs("fine_tuning"))])
checks = APIRouter(prefix="/v1/files", dependencies=[Depends(needs("files"))])
models = APIRouter(prefix="/v1/models", dependencies=[Depends(needs("fine_tuning"))])
After = Annotated[str | None, Query(max_length=40)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("")
async def create_job(body: NewJob, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """A job that a worker takes up at once, if none is busy."""
    method = await anyio.to_thread.run_sync(body.parsed_method)
    entry = await services.catalog.find_answering(who, body.model)
    for model in sorted(method.grader.models()) if method.grader is not None else ():  # those too it must be allowed
        await services.catalog.find_answering(who, model)

    def save(session: Session) -> FineTuningJobRow:
        limits.check_budgets(session, who.allowances, time.time())
        for param, file_id in (("training_file", body.training_file), ("validation_file", body.validation_file)):
            if file_id is not None:
                _check_file(session, who, file_id, param)
        row = fine_tuning.create_job(
            session,
            who,
            model=entry.name,
            training_file=body.training_file,
            validation_file=body.validation_file,
            method=method.model_dump(mode="json", exclude_none=True),
            suffix=body.suffix,
            seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
            details=body.metadata,
        )
        accounts.record(session, who, "fine_tuning.job.created", row.id, address=address, model=entry.name)
        return row

    return job_view(await services.write(save))


@router.get("")
def list_jobs(who: PrincipalDep, services: ServicesDep, after: After = None, limit: Limit = 20) -> Json:
    """The project's, the newest first."""
    with services.database.read() as session:
        rows, more = fine_tuning.list_jobs(session, who.project_id, after=after, limit=limit)
        return listed([job_view(row) for row in rows], has_more=more)


@router.get("/{fine_tuning_job_id}")
def get_job(fine_tuning_job_id: str, who: PrincipalDep, services: ServicesDep) -> Json:
    """One of them."""
    with services.database.read() as session:
        return job_view(fine_tuning.get_job(session, who.project_id, fine_tuning_job_id))


@router.post("/{fine_tuning_job_id}/cancel")
def cancel_job(fine_tuning_job_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """It ends; its checkpoints stay."""
    return _ask(services, who, fine_tuning_job_id, "cancel", address)


@router.post("/{fine_tuning_job_id}/pause")
def pause_job(fine_tuning_job_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """It waits until it is resumed."""
    return _ask(services, who, fine_tuning_job_id, "pause", address)


@router.post("/{fine_tuning_job_id}/resume")
def resume_job(fine_tuning_job_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """It goes on from its last save."""
    return _ask(services, who, fine_tuning_job_id, "run", address)


@router.get("/{fine_tuning_job_id}/events")
def list_events(
    fine_tuning_job_id: str, who: PrincipalDep, services: ServicesDep, after: After = None, limit: Limit = 20
) -> Json:
    """What it tells, the newest first."""
    with services.database.read() as session:
        row = fine_tuning.get_job(session, who.project_id, fine_tuning_job_id)
        events, more = fine_tuning.list_events(session, row.id, after=after, limit=limit)
        return listed([event_view(event) for event in events], has_more=more)


@router.get("/{fine_tuning_job_id}/forecast.svg", response_class=Response)
def get_forecast(fine_tuning_job_id: str, who: PrincipalDep, services: ServicesDep) -> Response:
    """What twice the examples would bring, as a picture: ours."""
    from chatwheel.evaluation.forecast import Forecast
    from chatwheel.evaluation.forecast_chart import picture

    with services.database.read() as session:
        row = fine_tuning.get_job(session, who.project_id, fine_tuning_job_id)
    if row.forecast is None:
        raise NotFoundError("This job has no forecast: it is made where `forecast` was asked for, at the job's end.")
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    headers = {"content-security-policy": policy}
    return Response(picture(Forecast.from_json(row.forecast)), media_type="image/svg+xml", headers=headers)


@router.get("/{fine_tuning_job_id}/checkpoints")
def list_checkpoints(
    fine_tuning_job_id: str, who: PrincipalDep, services: ServicesDep, after: After = None, limit: Limit = 10
) -> Json:
    """Its models, the last one first; each can be asked by its name."""
    with services.database.read() as session:
        row = fine_tuning.get_job(session, who.project_id, fine_tuning_job_id)
        found, more = fine_tuning.list_checkpoints(session, row.id, after=after, limit=limit)
        return listed([checkpoint_view(checkpoint) for checkpoint in found], has_more=more)


@graders.post("/validate")
async def validate_grader(body: GraderCheckRequest, who: PrincipalDep, services: ServicesDep) -> Json:
    """Whether a job would take a grader: it is given back, with its defaults. Models that it asks must be there too."""
    grader = await anyio.to_thread.run_sync(body.parsed)
    for model in sorted(grader.models()):
        await services.catalog.find_answering(who, model)
    return {"grader": grader.model_dump(mode="json", exclude_none=True)}


@checks.post("/{file_id}/check")
async def check_file(file_id: str, body: FileCheckRequest, who: PrincipalDep, services: ServicesDep) -> Json:
    """What a job would say of a file, before there is one: ours. model: whose tokens are counted."""
    method = await anyio.to_thread.run_sync(_method, body.method)
    entry = None if body.model is None else await services.catalog.find_answering(who, body.model)

    def look() -> Json:
        with services.database.read() as session:
            row = files.get_file(session, who.project_id, file_id)
        return _report(services, row.sha256, method, entry)

    return await anyio.to_thread.run_sync(look, limiter=services.file_checks)


@models.delete("/{model_id:path}")
def delete_model(model_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """Forgets a tuned model of the project; others are the installation's, and stay."""
    if not model_id.startswith(TUNED):
        raise NotFoundError(f"{model_id!r} is none of your tuned models.", code="model_not_found", param="model")
    with services.database.write() as session:
        unused = fine_tuning.delete_model(session, who.project_id, model_id, services.settings.tuned.absolute())
        accounts.record(session, who, "model.deleted", model_id, address=address)
    for directory in unused:  # who speaks through it has it in memory, and goes on to the answer's end
        fine_tuning.forget_model(directory)
    return {"id": model_id, "object": "model", "deleted": True}


def _ask(services: Services, who: Principal, job_id: str, wanted: Wanted, address: str | None) -> Json:
    with services.database.write() as session:
        row = fine_tuning.ask(session, who.project_id, job_id, wanted)
        accounts.record(session, who, f"fine_tuning.job.{wanted}", row.id, address=address)
        session.flush()
        view = job_view(row)
    if row.status == "cancelled":  # nobody worked on it, who would have tidied up
        fine_tuning.forget_work(services.settings.tuned / row.id)
    return view


def _check_file(session: Session, who: Principal, file_id: str, param: str) -> None:
    try:
        row = files.get_file(session, who.project_id, file_id)
    except NotFoundError:
        raise InputError(f"{param}: there is no file {file_id!r}", param=param, code="file_not_found") from None
    if row.purpose != "fine-tune":
        raise InputError(f"{param}: {file_id} is for {row.purpose!r}; upload it for 'fine-tune'", param=param)


def _method(value: Json | str | None) -> Method | None:
    if value is None:
        return None
    return parsed({"type": value} if isinstance(value, str) else value)


def _report(services: Services, sha256: str, method: Method | None, entry: ModelEntry | None) -> Json:
    from chatwheel.jobs.fine_tuning.file_check import check
    from chatwheel.jobs.fine_tuning.training import context_of

    grader = method.grader if method is not None else None
    return check(
        services.blobs.path(sha256),
        method.kind if method is not None else None,
        tokenizer=tokenizer_of(entry.directory) if entry is not None else None,
        context=context_of(entry.directory) if entry is not None else None,
        check_example=None if grader is None else grader.missing,
    ).to_json()
