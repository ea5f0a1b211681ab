"""The queue of fine-tuning jobs, what they tell, and the models they make. Functions work in the caller's transaction.

A worker takes a job for as long as its lease lasts, and moves the end of it on while it lives: whoever finds a lease
that has ended may take the job over. What a worker writes counts only while the job is its own (`LostJobError`), so a
job never runs twice to its end. A worker that slept through the end of its lease may write on for a moment without
knowing: each claim has a number and works in a directory of that number, which the next one renames.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chatwheel.errors import ChatwheelError, StorageError
from chatwheel.model.layout import ADAPTER_CONFIG, is_adapter, read_object
from chatwheel.store.accounts import ConflictError, NotFoundError, Principal
from chatwheel.store.database import Database
from chatwheel.store.metering import record, tokens_recorded
from chatwheel.store.prices import Tokens, price_of
from chatwheel.store.tables import CheckpointRow, FineTuningJobRow, JobEventRow, ProjectRow, TunedModelRow, UserRow

LEASE_SECONDS = 20.0
MOST_ATTEMPTS = 5
"""A job that takes its worker down so often without having come further is the reason for it."""
ENDED = ("succeeded", "failed", "cancelled")
Wanted = Literal["run", "pause", "cancel"]
Level = Literal["info", "warn", "error"]


class LostJobError(ChatwheelError):
    """Another worker has the job, or it has ended: what was going to be written is not."""

    status = 409


# -- what its owner asks


def create_job(
    session: Session,
    who: Principal,
    *,
    model: str,
    training_file: str,
    validation_file: str | None,
    method: dict[str, Any],
    suffix: str | None,
    seed: int,
    details: dict[str, str] | None = None,
) -> FineTuningJobRow:
    """A job that waits for a worker."""
    row = FineTuningJobRow(
        project_id=who.project_id,
        user_id=who.user_id,
        key_id=who.key_id,
        model=model,
        training_file=training_file,
        validation_file=validation_file,
        method=method,
        suffix=suffix,
        seed=seed,
        details=details or {},
    )
    session.add(row)
    session.flush()
    add_event(session, row.id, f"Created fine-tuning job: {row.id}")
    add_event(session, row.id, f"Validating training file: {training_file}")
    return row


def get_job(session: Session, project_id: str, job_id: str, *, lock: bool = False) -> FineTuningJobRow:
    """One of a project's. Raises NotFoundError."""
    row = session.get(FineTuningJobRow, job_id, with_for_update=lock, populate_existing=lock)
    if row is None or row.project_id != project_id:
        raise NotFoundError(
            f"Could not find fine tune: {job_id}", code="fine_tune_not_found", param="fine_tuning_job_id"
        )
    return row


def list_jobs(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[FineTuningJobRow], bool]:
    """A project's, the newest first, and whether there are more. `after` (an id) goes on behind that one."""
    query = select(FineTuningJobRow).where(FineTuningJobRow.project_id == project_id)
    if after is not None:
        last = get_job(session, project_id, after)
        query = query.where(
            (FineTuningJobRow.created_at < last.created_at)
            | ((FineTuningJobRow.created_at == last.created_at) & (FineTuningJobRow.id > last.id))
        )
    query = query.order_by(FineTuningJobRow.created_at.desc(), FineTuningJobRow.id).limit(limit + 1)
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def ask(session: Session, project_id: str, job_id: str, wanted: Wanted) -> FineTuningJobRow:
    """Pauses, goes on with, or cancels a job: at once where nobody works on it, else its worker sees it within a second
    or two. Raises NotFoundError, and ConflictError where its state does not allow that."""
    row = get_job(session, project_id, job_id, lock=True)
    if row.wanted == "cancel" and wanted == "pause" and row.status not in ENDED:
        raise ConflictError("This job is being cancelled.", code="invalid_state")
    if row.status in ENDED and not (row.status == "cancelled" and wanted == "cancel"):
        raise ConflictError(f"This job has {row.status}; it can't be {_DONE[wanted]} any more.", code="invalid_state")
    if wanted == "run" and row.status != "paused" and row.wanted != "pause":
        raise ConflictError(f"This job is {row.status}, not paused.", code="invalid_state")
    row.wanted = wanted
    if wanted == "run":
        row.status = "queued" if row.status == "paused" else row.status
        add_event(session, row.id, "Job resumed")
    elif row.worker is None and row.status not in ENDED:
        _stop(session, row, wanted, time.time())
    return row


_DONE = {"run": "resumed", "pause": "paused", "cancel": "cancelled"}


def _stop(session: Session, row: FineTuningJobRow, wanted: str, now: float) -> None:
    row.worker = row.lease_until = row.estimated_finish = None
    if wanted == "cancel":
        row.status, row.finished_at = "cancelled", now
        add_event(session, row.id, "Job cancelled")
    else:
        row.status = "paused"
        add_event(session, row.id, "Job paused")


# -- what a worker does


def claim(session: Session, worker: str, now: float | None = None) -> FineTuningJobRow | None:
    """The oldest job that nobody works on, now this worker's; None if there is none. A job that has taken too many
    workers down is failed instead."""
    now = time.time() if now is None else now
    query = (
        select(FineTuningJobRow)
        .where(
            FineTuningJobRow.status.in_(("validating_files", "queued", "running")),
            FineTuningJobRow.wanted == "run",
            (FineTuningJobRow.lease_until.is_(None)) | (FineTuningJobRow.lease_until < now),
            # Of whom the door would let in: the others' wait.
            FineTuningJobRow.project_id.in_(select(ProjectRow.id).where(ProjectRow.archived_at.is_(None))),
            FineTuningJobRow.user_id.in_(select(UserRow.id).where(UserRow.disabled_at.is_(None))),
        )
        .order_by(FineTuningJobRow.created_at, FineTuningJobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    while (row := session.scalar(query)) is not None:
        if row.worker is not None:
            add_event(session, row.id, "Its worker is gone; another one goes on from its last save", level="warn")
        if row.attempts >= MOST_ATTEMPTS:
            row.worker = worker
            reason = f"its worker ended {row.attempts} times in the middle, or could not begin"
            fail(session, row.id, worker, reason, code="worker_crashed")
            session.flush()
            continue
        row.worker, row.lease_until, row.attempts = worker, now + LEASE_SECONDS, row.attempts + 1
        row.claims += 1
        session.flush()
        return row
    return None


WORK = "work"


def work_of(directory: Path, claims: int) -> Path:
    """Where a job's state is while the worker of a claim has it. directory: the job's own."""
    return directory / (f"{WORK}-{claims}" if claims else WORK)  # without a number: of versions before 0003


def take_work(directory: Path, claims: int) -> None:
    """What the claim before has left becomes this one's, in the transaction of the claim: from then on nothing that
    another worker writes can get between. Raises StorageError where it cannot be had: the job is to `rest` then.

    If the transaction then fails, the next claim has the same number, and finds its directory there. One that comes
    into being under an older number later is a lost worker's, and nobody's state.
    """
    mine, before = work_of(directory, claims), work_of(directory, claims - 1)
    try:
        if before.is_dir() and not mine.is_dir():
            before.rename(mine)
    except OSError as error:
        raise StorageError(f"{before}: cannot be taken over ({error.strerror})") from error


def rest(session: Session, job_id: str, worker: str, reason: str) -> None:
    """Undoes a claim whose work cannot be taken over, for as long as a lease: others' jobs come first. It counts as an
    attempt, and the next claim has the same number."""
    row = held(session, job_id, worker)
    row.worker, row.lease_until = None, time.time() + LEASE_SECONDS
    row.claims -= 1
    add_event(session, job_id, f"It could not be begun, and is tried again later: {reason}", level="warn")


def forget_work(directory: Path) -> None:
    """Removes the state of a job that has ended, of whichever claims. Blocks."""
    for place in (*directory.glob(WORK), *directory.glob(f"{WORK}-*")):
        shutil.rmtree(place, ignore_errors=True)


def sweep_work(database: Database, tuned: Path) -> int:
    """Forgets what is left of jobs that have ended: cancelled or failed while nobody worked on them, or whose worker
    was killed right then; and of models that were forgotten by a server that was killed right then. How many. Blocks,
    in no transaction while it removes."""
    found = sorted({place.parent for place in tuned.glob(f"*/{WORK}*")})
    with database.read() as session:
        rows = [session.get(FineTuningJobRow, directory.name) for directory in found]
    ended = [directory for directory, row in zip(found, rows, strict=True) if row is not None and row.status in ENDED]
    for directory in ended:
        forget_work(directory)
    gone = [place for place in tuned.glob("*/.*") if GONE.fullmatch(place.name)]
    for place in gone:
        shutil.rmtree(place, ignore_errors=True)
    return len(ended) + len(gone)


def forget_model(directory: Path) -> None:
    """Removes a model's directory: at one moment, for who is about to load it; what is in it bit by bit. Blocks."""
    gone = directory.with_name(f".{directory.name}-{secrets.token_hex(4)}")
    try:
        directory.rename(gone)
    except OSError:
        gone = directory
    shutil.rmtree(gone, ignore_errors=True)


GONE = re.compile(r"\.step-\d+-[0-9a-f]{8}")
"""What `forget_model` calls a model's directory (see `jobs.fine_tuning.training.Job`) while it goes."""


def is_over(session: Session, job_id: str, claims: int) -> bool:
    """Whether nobody goes on from what the worker of a claim has left."""
    row = session.get(FineTuningJobRow, job_id)
    return row is None or row.claims != claims or row.status in ENDED


def drop_stopped(session: Session, now: float | None = None) -> None:
    """Stops what its owner has asked to be stopped and whose worker is gone."""
    now = time.time() if now is None else now
    query = select(FineTuningJobRow).where(
        FineTuningJobRow.status.not_in((*ENDED, "paused")),
        FineTuningJobRow.wanted != "run",
        (FineTuningJobRow.worker.is_(None)) | (FineTuningJobRow.lease_until < now),
    )
    for row in session.scalars(query.with_for_update(skip_locked=True)):
        _stop(session, row, row.wanted, now)


def beat(session: Session, job_id: str, worker: str, now: float | None = None) -> Wanted:
    """The worker lives: its lease goes on. What the job's owner wants. Raises LostJobError."""
    now = time.time() if now is None else now
    row = held(session, job_id, worker)
    row.lease_until = now + LEASE_SECONDS
    return row.wanted  # type: ignore[return-value]


def held(session: Session, job_id: str, worker: str) -> FineTuningJobRow:
    """A job that is this worker's. Raises LostJobError."""
    row = session.get(FineTuningJobRow, job_id, with_for_update=True, populate_existing=True)
    if row is None or row.worker != worker:
        raise LostJobError(f"job {job_id} is another worker's, or has ended")
    return row


def begin(
    session: Session, job_id: str, worker: str, *, hyperparameters: dict[str, Any], trained_tokens: int, now: float
) -> None:
    """Its files are right: training begins, or goes on. trained_tokens: that it will have learnt from."""
    row = held(session, job_id, worker)
    if row.started_at is None:
        row.started_at = now
        add_event(session, row.id, "Files validated, moving job to queued state")
        add_event(session, row.id, "Fine-tuning job started")
    row.status, row.hyperparameters, row.trained_tokens = "running", hyperparameters, trained_tokens


def stop(session: Session, job_id: str, worker: str, now: float | None = None) -> Wanted:
    """As its owner wants by now, which it gives: who has resumed it meanwhile wants it to go on."""
    row = held(session, job_id, worker)
    if row.wanted == "run":
        let_go(session, job_id, worker)
    else:
        _stop(session, row, row.wanted, time.time() if now is None else now)
    return row.wanted  # type: ignore[return-value]


def let_go(session: Session, job_id: str, worker: str) -> None:
    """The worker ends in order: another one may go on at once, and it does not count as an attempt."""
    row = held(session, job_id, worker)
    row.worker = row.lease_until = None
    row.attempts -= 1


def fail(
    session: Session,
    job_id: str,
    worker: str,
    message: str,
    *,
    code: str = "invalid_training_file",
    param: str | None = None,
) -> None:
    """Ends a job that cannot succeed."""
    row = held(session, job_id, worker)
    row.status, row.finished_at, row.estimated_finish = "failed", time.time(), None
    row.worker = row.lease_until = None
    row.error = {"code": code, "message": message, "param": param}
    add_event(session, row.id, message, level="error")


def succeed(
    session: Session, job_id: str, worker: str, *, name: str, directory: str, result_files: Sequence[str]
) -> None:
    """Ends a job with its model, which can be asked from this moment on, by every server."""
    row = held(session, job_id, worker)
    add_model(session, row, name, directory)
    _charge(session, row, 1.0)
    row.status, row.finished_at, row.estimated_finish = "succeeded", time.time(), None
    row.fine_tuned_model, row.result_files = name, list(result_files)
    row.worker = row.lease_until = None
    add_event(session, row.id, f"New fine-tuned model created: {name}")
    add_event(session, row.id, "The job has successfully completed")


def _charge(session: Session, row: FineTuningJobRow, share: float) -> None:
    """What a job has learnt from by now is paid for, what was paid before left out: a row of usage for each part."""
    price = price_of(session, row.model, root_of(session, row.model))
    tokens = round((row.trained_tokens or 0) * share) - tokens_recorded(session, row.id)
    if tokens > 0:
        cost = tokens * (price.training if price is not None else 0)
        who = Principal(row.user_id, row.project_id, row.key_id)
        record(
            session,
            request_id=row.id,
            who=who,
            endpoint="fine_tuning",
            model=row.model,
            tokens=Tokens(input=tokens),
            cost=cost,
        )
        row.cost += cost


def add_checkpoint(
    session: Session,
    job_id: str,
    worker: str,
    *,
    step: int,
    steps: int,
    name: str,
    directory: str,
    metrics: dict[str, float],
) -> None:
    """A model of an epoch's end, which can be asked by its name and is paid for. Once more, after a crash, is no
    error. steps: of the whole job."""
    row = held(session, job_id, worker)
    known = select(CheckpointRow.id).where(CheckpointRow.job_id == job_id, CheckpointRow.step_number == step)
    if session.scalar(known) is None:
        session.add(CheckpointRow(job_id=job_id, step_number=step, model=name, metrics=metrics))
        add_model(session, row, name, directory)
        add_event(session, job_id, f"Checkpoint created at step {step}: {name}")
        _charge(session, row, step / steps)


def add_model(session: Session, job: FineTuningJobRow, name: str, directory: str) -> None:
    """A model of the job's project."""
    if session.get(TunedModelRow, name) is None:
        base = root_of(session, job.model)
        session.add(TunedModelRow(name=name, project_id=job.project_id, job_id=job.id, base=base, directory=directory))


def root_of(session: Session, model: str) -> str:
    """The installation's model that one was tuned from, over however many jobs: whose price it has without its own."""
    row = session.get(TunedModelRow, model)
    return model if row is None else row.base


# -- what it tells


def add_event(
    session: Session,
    job_id: str,
    message: str,
    *,
    level: Level = "info",
    data: dict[str, Any] | None = None,
    kind: Literal["message", "metrics"] = "message",
) -> None:
    """A line for its owner to read."""
    session.add(JobEventRow(job_id=job_id, message=message, level=level, type=kind, data=data))
    session.flush()


def last_step(session: Session, job_id: str) -> int:
    """The last step of which there is an event; 0 if there is none."""
    query = select(JobEventRow.data).where(JobEventRow.job_id == job_id, JobEventRow.type == "metrics")
    data = session.scalar(query.order_by(JobEventRow.number.desc()).limit(1))
    return int(data["step"]) if data else 0


def list_events(
    session: Session, job_id: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[JobEventRow], bool]:
    """The newest first, and whether there are older ones. `after` (an id) goes on behind that one."""
    query = select(JobEventRow).where(JobEventRow.job_id == job_id)
    if after is not None:
        last = session.scalar(select(JobEventRow.number).where(JobEventRow.id == after, JobEventRow.job_id == job_id))
        if last is None:
            raise NotFoundError(f"there is no event {after!r} of this job", param="after")
        query = query.where(JobEventRow.number < last)
    rows = session.scalars(query.order_by(JobEventRow.number.desc()).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def list_checkpoints(
    session: Session, job_id: str, *, after: str | None = None, limit: int = 10
) -> tuple[Sequence[CheckpointRow], bool]:
    """The newest first, and whether there are older ones."""
    query = select(CheckpointRow).where(CheckpointRow.job_id == job_id)
    if after is not None:
        last = session.scalar(
            select(CheckpointRow.step_number).where(CheckpointRow.id == after, CheckpointRow.job_id == job_id)
        )
        if last is None:
            raise NotFoundError(f"there is no checkpoint {after!r} of this job", param="after")
        query = query.where(CheckpointRow.step_number < last)
    rows = session.scalars(query.order_by(CheckpointRow.step_number.desc()).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


# -- the models


def tuned_model(session: Session, project_id: str, name: str) -> TunedModelRow | None:
    """One of a project's."""
    row = session.get(TunedModelRow, name)
    return row if row is not None and row.project_id == project_id else None


def tuned_models(session: Session, project_id: str) -> Sequence[TunedModelRow]:
    """A project's, by name."""
    query = select(TunedModelRow).where(TunedModelRow.project_id == project_id)
    return session.scalars(query.order_by(TunedModelRow.name)).all()


def delete_model(session: Session, project_id: str, name: str, tuned: Path) -> list[Path]:
    """Forgets a model; the directories below `tuned` that are to be removed when this is saved: its own and those that
    it stood on, as far as no other name leads to them and no other model stands on them. Raises NotFoundError, and
    ConflictError while a job learns from it, or the job that makes it (of which it is a checkpoint) goes on."""
    row = tuned_model(session, project_id, name)
    if row is None:
        raise NotFoundError(f"The model {name!r} does not exist here.", code="model_not_found", param="model")
    query = select(FineTuningJobRow.id).where(
        FineTuningJobRow.project_id == project_id,
        FineTuningJobRow.model == name,
        FineTuningJobRow.status.not_in(ENDED),
    )
    if (job := session.scalar(query.limit(1))) is not None:
        raise ConflictError(
            f"The job {job} learns from it; wait for it, or cancel it.", code="model_in_use", param="model"
        )
    maker = session.get(FineTuningJobRow, row.job_id, with_for_update=True) if row.job_id is not None else None
    if maker is not None and maker.status not in ENDED:  # its end reads the directories of its checkpoints
        raise ConflictError(
            f"It is a checkpoint of the job {maker.id}; wait for it, or cancel it.", code="model_in_use", param="model"
        )
    session.execute(delete(TunedModelRow).where(TunedModelRow.name == name))
    session.flush()
    needed = {place for other in tuned_models(session, project_id) for place in _stands_on(tuned, other.directory)}
    return [place for place in _stands_on(tuned, row.directory) if place not in needed]


def _stands_on(tuned: Path, directory: str) -> list[Path]:
    """A model's directory, and those of the tuned models that it was tuned from. They are going to be removed: what a
    row or a file names outside of `tuned` is none of them, whatever way it is written."""
    place, found = Path(os.path.normpath(tuned / directory)), []
    while tuned in place.parents and place not in found:
        found.append(place)
        if not is_adapter(place):
            break
        place = Path(os.path.normpath(str(read_object(place / ADAPTER_CONFIG).get("base_model_name_or_path"))))
    return found
