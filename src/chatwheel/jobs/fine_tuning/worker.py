"""Works on fine-tuning jobs, one after the other, in a process of its own: a crash of it takes no answer along.

It holds a job by a lease (`store.fine_tuning`) that a thread moves on while it trains. Ended in order (SIGTERM) it lets
the job go; killed, it leaves a lease that ends, and whoever takes the job over goes on from its last save.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.orm import Session

from chatwheel.atomic import move_directory
from chatwheel.errors import ChatwheelError, InputError, ModelNotFoundError, StorageError
from chatwheel.settings import Settings
from chatwheel.store import files, fine_tuning, metering
from chatwheel.store.accounts import Principal
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
from chatwheel.store.fine_tuning import LostJobError, Wanted
from chatwheel.store.registry import Registry
from chatwheel.store.tables import FineTuningJobRow, ProjectRow, new_id

if TYPE_CHECKING:  # PyTorch is opened by the first job: until then a worker takes little memory
    from chatwheel.evaluation.forecast import Forecast
    from chatwheel.jobs.fine_tuning.file_check import FileReport
    from chatwheel.jobs.fine_tuning.training import Job, Made
    from chatwheel.training.loop import Progress

logger = logging.getLogger(__name__)
T = TypeVar("T")
POLL_SECONDS = 0.5
RETRY_SECONDS = 5.0
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 3600.0
MOST_METRICS = 500
"""Events of a job's steps: of a longer one each so many steps have one."""


class StoppedError(Exception):
    """The job's owner, or whoever runs the worker, wants it to stop here."""

    def __init__(self, wanted: Wanted | None) -> None:
        super().__init__(wanted)
        self.wanted = wanted


@dataclass
class Worker:
    """A process's part. stop: set to end in order."""

    settings: Settings
    database: Database
    stop: threading.Event = field(default_factory=threading.Event)
    id: str = field(default_factory=lambda: new_id("inst"))

    @property
    def place(self) -> str:
        """Where it runs."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def run(self) -> None:
        """Until it is stopped."""
        next_look = next_sweep = 0.0
        while not self.stop.is_set():
            try:
                if time.monotonic() >= next_look:
                    self._write(lambda session: metering.seen(session, self.id, "worker", self.place))
                    self._write(fine_tuning.drop_stopped)
                    next_look = time.monotonic() + 5.0
                if time.monotonic() >= next_sweep:
                    fine_tuning.sweep_work(self.database, self.settings.tuned)
                    next_sweep = time.monotonic() + SWEEP_SECONDS
                if self.work_once():
                    continue
            except ChatwheelError as error:  # a full disk, a database that is away: it may be back
                logger.warning("the worker could not go on: %s", error.message)
                self.stop.wait(RETRY_SECONDS)
            self.stop.wait(POLL_SECONDS)
        with suppress(ChatwheelError):
            self._write(lambda session: metering.deregister(session, self.id))

    def work_once(self) -> bool:
        """Does a job, if one waits."""
        row = self._write(self._claim)
        if row is None:
            return False
        logger.info("job %s begins", row.id)
        hold = _Hold(self, row.id)
        with hold.beating():
            try:
                made = self._train(row, hold)
            except LostJobError:
                logger.warning("job %s is another worker's now", row.id)
                self._forget_lost(row)
            except StoppedError as stopped:
                self._stopped(row, stopped.wanted)
            except OSError as error:  # also where another worker has taken what one worked on
                self._failed(row, StorageError(f"{error.filename or self.settings.home}: {error.strerror or error}"))
            except (ChatwheelError, MemoryError) as error:
                self._failed(row, error)
            except Exception as error:
                logger.exception("job %s failed", row.id)
                self._failed(row, error)
            else:
                self._end(row, made)
        return True

    def _claim(self, session: Session) -> FineTuningJobRow | None:
        while (row := fine_tuning.claim(session, self.id)) is not None:
            try:
                fine_tuning.take_work(self.settings.tuned / row.id, row.claims)
            except StorageError as error:  # not raised here, where it would keep the job the first for everybody
                logger.warning("job %s waits: %s", row.id, error.message)
                fine_tuning.rest(session, row.id, self.id, error.message)
            else:
                return row
        return None

    def _end(self, row: FineTuningJobRow, made: Made) -> None:
        try:
            self._succeeded(row, made)
        except StorageError as error:  # what was learnt is there: whoever comes next only has to write it down
            self._failed(row, error)

    def _train(self, row: FineTuningJobRow, hold: _Hold) -> Made:
        from chatwheel.jobs.fine_tuning.training import train

        job = self._job(row)
        job.directory.mkdir(parents=True, exist_ok=True)
        return train(job, _Told(self, row, job, hold))

    def _job(self, row: FineTuningJobRow) -> Job:
        from chatwheel.jobs.fine_tuning.asking import Asker
        from chatwheel.jobs.fine_tuning.method import parse_method
        from chatwheel.jobs.fine_tuning.training import Job

        with self.database.read() as session:
            training = self._file(session, row, row.training_file, "training_file")
            validation = (
                None
                if row.validation_file is None
                else self._file(session, row, row.validation_file, "validation_file")
            )
            base = self._base(session, row)
        return Job(
            id=row.id,
            base=base,
            base_name=row.model,
            training=training,
            validation=validation,
            method=parse_method(row.method),
            seed=row.seed,
            directory=self.settings.tuned / row.id,
            work=fine_tuning.work_of(self.settings.tuned / row.id, row.claims),
            ask=Asker(lambda name: self._asked(row, name)),
        )

    def _file(self, session: Session, row: FineTuningJobRow, file_id: str, param: str) -> Path:
        try:
            found = files.get_file(session, row.project_id, file_id)
        except ChatwheelError:
            raise InputError(f"{param}: the file {file_id} has been deleted", param=param) from None
        path = BlobStore(self.settings.files).path(found.sha256)
        if not path.is_file():
            raise InputError(f"{param}: the bytes of {file_id} are not in {self.settings.files}", param=param)
        return path

    def _asked(self, row: FineTuningJobRow, model: str) -> Path:
        """The directory of a model that grades: a client's name, which is only compared, never used as a path."""
        with self.database.read() as session:
            tuned = fine_tuning.tuned_model(session, row.project_id, model)
        if tuned is not None:
            return self.settings.tuned / tuned.directory
        for entry in Registry(self.settings.models).list():
            if entry.name == model and entry.kind == "causal":
                return entry.directory
        raise InputError(f"grader: there is no model {model!r} here", param="method.reinforcement.grader.model")

    def _base(self, session: Session, row: FineTuningJobRow) -> Path:
        """The directory of what is tuned; a server has made sure that it serves a model of that name."""
        tuned = fine_tuning.tuned_model(session, row.project_id, row.model)
        if tuned is not None:
            return self.settings.tuned / tuned.directory
        try:
            return Registry(self.settings.models, hub=True).resolve(row.model)
        except ModelNotFoundError as error:
            raise InputError(f"model: {error.message}", param="model") from None

    def _succeeded(self, row: FineTuningJobRow, made: Made) -> None:
        """The result file, the model and the job's end, in one transaction: from then on the model answers."""
        blobs = BlobStore(self.settings.files)
        blob = blobs.put([made.results])
        who = Principal(row.user_id, row.project_id, row.key_id)

        def end(session: Session) -> None:
            fine_tuning.held(session, row.id, self.id)
            result = files.add_file(
                session, who, blob, filename="step_metrics.csv", purpose="fine-tune-results", blobs=blobs
            )
            fine_tuning.succeed(
                session,
                row.id,
                self.id,
                name=model_name(session, row),
                directory=self._relative(made.directory),
                result_files=[result.id],
            )

        try:
            self._write(end)
        except LostJobError:
            logger.warning("job %s has ended in another worker's hands", row.id)
            self._forget_lost(row)
            return
        logger.info("job %s has succeeded", row.id)
        self._forget_work(row)

    def _failed(self, row: FineTuningJobRow, error: BaseException) -> None:
        from chatwheel.jobs.fine_tuning.training import FileError

        if isinstance(error, StorageError):  # not the job's fault: whoever comes next may have more room
            logger.warning("job %s waits: %s", row.id, error.message)
            try:
                self._write(lambda session: fine_tuning.let_go(session, row.id, self.id))
            except LostJobError:
                self._forget_lost(row)
                return
            except ChatwheelError as other:
                logger.warning("job %s could not be let go: %s", row.id, other.message)
            self.stop.wait(10.0)
            return
        message = (
            error.message if isinstance(error, ChatwheelError) else "the job failed; the worker's log has the details"
        )
        code = (error.code if isinstance(error, ChatwheelError) else None) or "job_failed"
        param = error.param if isinstance(error, ChatwheelError) else None

        def end(session: Session) -> None:
            if isinstance(error, FileError):
                for fault in error.report.errors[:10]:
                    fine_tuning.add_event(session, row.id, f"{error.param}, {fault}", level="error")
            fine_tuning.fail(session, row.id, self.id, message, code=code, param=param)

        try:
            self._write(end)
        except LostJobError:
            self._forget_lost(row)
        else:
            self._forget_work(row)

    def _stopped(self, row: FineTuningJobRow, wanted: Wanted | None) -> None:
        def end(session: Session) -> Wanted:
            if wanted is not None:
                return fine_tuning.stop(session, row.id, self.id)
            fine_tuning.let_go(session, row.id, self.id)
            return "run"

        try:
            ended = self._write(end)
        except LostJobError:
            self._forget_lost(row)
        else:
            if ended == "cancel":
                self._forget_work(row)

    def _forget_work(self, row: FineTuningJobRow) -> None:
        shutil.rmtree(fine_tuning.work_of(self.settings.tuned / row.id, row.claims), ignore_errors=True)

    def _forget_lost(self, row: FineTuningJobRow) -> None:
        """What was written before one knew that the job is another's: its own, unless somebody goes on from there."""
        with suppress(ChatwheelError):
            with self.database.read() as session:
                over = fine_tuning.is_over(session, row.id, row.claims)
            if over:
                self._forget_work(row)

    def _relative(self, directory: Path) -> str:
        return directory.relative_to(self.settings.tuned).as_posix()

    def _write(self, work: Callable[[Session], T]) -> T:
        return self.database.transact(work)


class _Hold:
    """Keeps a job's lease while it is worked on, and knows what its owner wants."""

    def __init__(self, worker: Worker, job_id: str) -> None:
        self._worker, self._job_id = worker, job_id
        self._wanted: Wanted = "run"
        self._lost = False
        self._done = threading.Event()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """From a thread, so that a long step does not lose the job."""
        thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def check(self) -> None:
        """Raises LostJobError or StoppedError where the job is to go no further."""
        if self._lost:
            raise LostJobError(f"job {self._job_id} is another worker's, or has ended")
        if self._wanted != "run":
            raise StoppedError(self._wanted)
        if self._worker.stop.is_set():
            raise StoppedError(None)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                self._wanted = self._worker._write(
                    lambda session: fine_tuning.beat(session, self._job_id, self._worker.id)
                )
            except LostJobError:
                self._lost = True
                return
            except ChatwheelError as error:  # the database may be back before the lease ends
                logger.warning("job %s: its lease could not be moved on: %s", self._job_id, error.message)


class _Told:
    """Writes down what a job tells."""

    def __init__(self, worker: Worker, row: FineTuningJobRow, job: Job, hold: _Hold) -> None:
        self._worker, self._row, self._job, self._hold = worker, row, job, hold
        with worker.database.read() as session:  # what is done again after a crash was told before
            self._told = fine_tuning.last_step(session, row.id)

    def checked(self, report: FileReport, param: str) -> None:
        """Notes what is unusual of a file."""
        self._hold.check()

        def note(session: Session) -> None:
            fine_tuning.held(session, self._row.id, self._worker.id)
            for warning in report.warnings:
                fine_tuning.add_event(session, self._row.id, f"{param}: {warning}", level="warn")

        if self._row.attempts == 1 and report.warnings:
            self._worker._write(note)

    def began(self, numbers: dict[str, Any], trained_tokens: int) -> None:
        """The job runs."""
        self._hold.check()
        self._worker._write(
            lambda session: fine_tuning.begin(
                session,
                self._row.id,
                self._worker.id,
                hyperparameters=numbers,
                trained_tokens=trained_tokens,
                now=time.time(),
            )
        )

    def step(self, progress: Progress, metrics: dict[str, float]) -> None:
        """Its curve, and when it will be done."""
        self._hold.check()
        stride = -(-progress.steps // MOST_METRICS)
        if progress.step <= self._told or (progress.step % stride and progress.step != progress.steps):
            return

        def write(session: Session) -> None:
            row = fine_tuning.held(session, self._row.id, self._worker.id)
            row.estimated_finish = time.time() + progress.remaining
            row.attempts = 1  # it came further than whoever was taken down before: the job is not the reason
            loss = metrics.get("train_loss", progress.metrics.get("loss", 0.0))
            fine_tuning.add_event(
                session,
                self._row.id,
                f"Step {progress.step}/{progress.steps}: training loss={loss:.3f}",
                data={**metrics, "total_steps": progress.steps},
                kind="metrics",
            )

        self._worker._write(write)

    def checkpoint(self, step: int, steps: int, made: Path, directory: Path, metrics: dict[str, float]) -> None:
        """A model that can be asked from now on. It gets its place while the job's row is locked, and is this worker's:
        one that has lost the job puts nothing in the place of another's."""

        def write(session: Session) -> None:
            fine_tuning.held(session, self._row.id, self._worker.id)
            if not directory.is_dir():
                move_directory(made, directory)
            fine_tuning.add_checkpoint(
                session,
                self._row.id,
                self._worker.id,
                step=step,
                steps=steps,
                name=f"{model_name(session, self._row)}:ckpt-step-{step}",
                directory=self._worker._relative(directory),
                metrics={"step": step, **metrics},
            )

        self._worker._write(write)

    def alive(self) -> None:
        """Stops what is to be stopped."""
        self._hold.check()

    def forecast(self, forecast: Forecast) -> None:
        """As an event, and as JSON with the job."""

        def write(session: Session) -> None:
            row = fine_tuning.held(session, self._row.id, self._worker.id)
            row.forecast = forecast.to_json()
            fine_tuning.add_event(session, row.id, forecast.sentence, data={"forecast": row.forecast})

        self._worker._write(write)

    def note(self, message: str) -> None:
        """A warning."""

        def write(session: Session) -> None:
            fine_tuning.held(session, self._row.id, self._worker.id)
            fine_tuning.add_event(session, self._row.id, message, level="warn")

        self._worker._write(write)


def model_name(session: Session, row: FineTuningJobRow) -> str:
    """`ft:base:project:suffix:id`, as OpenAI names models; it grows no longer however often a model is tuned."""
    project = session.get_one(ProjectRow, row.project_id)
    organization = "".join(letter if letter.isalnum() else "-" for letter in project.name.lower())[:40].strip("-")
    base = fine_tuning.root_of(session, row.model)
    return f"ft:{base}:{organization or 'project'}:{row.suffix or ''}:{row.id.removeprefix('ftjob-')[:12]}"
