"""Jobs and tuned models, on both databases; `tests/jobs/fine_tuning` has the worker."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from chatwheel.jobs.fine_tuning.worker import model_name
from chatwheel.store import accounts, fine_tuning, metering, prices
from chatwheel.store.accounts import ConflictError
from chatwheel.store.prices import Tokens
from chatwheel.store.tables import FineTuningJobRow, TunedModelRow, UsageRow


def claimed(session: Session, model: str = "base") -> FineTuningJobRow:
    """A job that a worker works on."""
    who = accounts.local_principal(session)
    row = fine_tuning.create_job(
        session, who, model=model, training_file="file-1", validation_file=None, method={}, suffix=None, seed=0
    )
    assert fine_tuning.claim(session, "inst-1") is row
    return row


def succeeded(session: Session, name: str, model: str = "base") -> FineTuningJobRow:
    row = claimed(session, model)
    row.trained_tokens = 10
    fine_tuning.succeed(session, row.id, "inst-1", name=name, directory=f"{row.id}/step-1", result_files=[])
    return row


def test_a_model_tuned_twice_has_its_first_base_s_price(session: Session) -> None:
    prices.set_price(session, "base", input=1, output=2, training=3)
    assert succeeded(session, "ft:one").cost == 30
    assert succeeded(session, "ft:two", "ft:one").cost == 30
    assert session.get_one(TunedModelRow, "ft:two").base == "base"
    # A server that died in the middle of an answer of it.
    who = accounts.local_principal(session)
    number, _ = metering.begin(session, who, request_id="r", endpoint="chat", model="ft:two", instance="inst-2")
    metering.count(session, number, Tokens(10, 0, 4))
    assert metering.settle(session, time.time() + 60) == 1
    row = session.get_one(UsageRow, number)
    session.refresh(row)
    assert row.cost == 18


def test_a_model_s_name_fits_its_row_however_often_it_is_tuned(session: Session) -> None:
    accounts.change_project(session, accounts.local_principal(session).project_id, name="x" * 200)
    model = "base"
    for _ in range(4):
        job = claimed(session, model)
        job.suffix = "s" * 64
        model = model_name(session, job)
        assert model == f"ft:base:{'x' * 40}:{'s' * 64}:{job.id.removeprefix('ftjob-')[:12]}"
        fine_tuning.succeed(session, job.id, "inst-1", name=model, directory="d", result_files=[])


def test_a_checkpoint_stays_while_its_job_goes_on(session: Session, tmp_path: Path) -> None:
    job = claimed(session)
    fine_tuning.add_checkpoint(
        session, job.id, "inst-1", step=1, steps=2, name="ft:one:ckpt-step-1", directory=f"{job.id}/step-1", metrics={}
    )
    with pytest.raises(ConflictError, match=job.id):
        fine_tuning.delete_model(session, job.project_id, "ft:one:ckpt-step-1", tmp_path)
    fine_tuning.ask(session, job.project_id, job.id, "cancel")
    assert fine_tuning.stop(session, job.id, "inst-1") == "cancel"
    gone = fine_tuning.delete_model(session, job.project_id, "ft:one:ckpt-step-1", tmp_path)
    assert gone == [tmp_path / job.id / "step-1"]


def test_a_job_that_is_resumed_before_its_worker_has_stopped_goes_on(session: Session) -> None:
    job = claimed(session)
    fine_tuning.ask(session, job.project_id, job.id, "pause")
    assert fine_tuning.beat(session, job.id, "inst-1") == "pause"  # and while it stops
    fine_tuning.ask(session, job.project_id, job.id, "run")
    assert fine_tuning.stop(session, job.id, "inst-1") == "run"
    assert fine_tuning.claim(session, "inst-2") is job


def test_a_job_that_is_being_cancelled_is_not_paused(session: Session) -> None:
    job = claimed(session)
    fine_tuning.ask(session, job.project_id, job.id, "cancel")
    with pytest.raises(ConflictError, match="being cancelled"):
        fine_tuning.ask(session, job.project_id, job.id, "pause")
    assert fine_tuning.beat(session, job.id, "inst-1") == "cancel"


@pytest.mark.parametrize("directory", ["../elsewhere", "ftjob-1/../..", "", ".", "/etc"])
def test_a_row_s_directory_elsewhere_is_left_alone(directory: str, session: Session, tmp_path: Path) -> None:
    """A row may have come with somebody's backup."""
    project = accounts.local_principal(session).project_id
    session.add(TunedModelRow(name="ft:one", project_id=project, base="base", directory=directory))
    session.flush()
    assert fine_tuning.delete_model(session, project, "ft:one", tmp_path / "tuned") == []
