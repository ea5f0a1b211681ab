"""The worker: jobs that succeed, stop, fail, are killed and are fought over, on a tiny real model."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from chatwheel.errors import InputError
from chatwheel.evaluation.forecast import Forecast
from chatwheel.evaluation.forecast_chart import picture
from chatwheel.jobs.fine_tuning import training as training_of_jobs
from chatwheel.jobs.fine_tuning.worker import Worker
from chatwheel.model.checkpoint import save_model
from chatwheel.model.transformer import CausalLM
from chatwheel.settings import Settings
from chatwheel.store import accounts, backup, files, fine_tuning, limits, prices, usage
from chatwheel.store.accounts import Principal
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
from chatwheel.store.loading import open_model
from chatwheel.store.tables import FineTuningJobRow
from chatwheel.training import states
from chatwheel.training.loop import Loop
from tests.tiny import causal, tokenizer

MODEL = "tiny/sft"
SUPERVISED = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}}
LONG = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 1}}}


@dataclass(frozen=True)
class Shop:
    """An installation with a model, and somebody who has it tuned."""

    settings: Settings
    database: Database
    who: Principal

    def upload(self, lines: list[Any] | bytes) -> str:
        content = lines if isinstance(lines, bytes) else "".join(json.dumps(line) + "\n" for line in lines).encode()
        blob = BlobStore(self.settings.files).put([content])
        with self.database.write() as session:
            return files.add_file(session, self.who, blob, filename="train.jsonl", purpose="fine-tune").id

    def job(self, training: str, method: dict[str, Any] = SUPERVISED, *, seed: int = 7, **more: Any) -> str:
        with self.database.write() as session:
            row = fine_tuning.create_job(
                session,
                self.who,
                model=more.pop("model", MODEL),
                training_file=training,
                validation_file=more.pop("validation", None),
                method=method,
                suffix="demo",
                seed=seed,
            )
            return row.id

    def row(self, job: str) -> FineTuningJobRow:
        with self.database.read() as session:
            return session.get_one(FineTuningJobRow, job)

    def events(self, job: str) -> list[Any]:
        with self.database.read() as session:
            return list(fine_tuning.list_events(session, job, limit=1000)[0][::-1])

    def ask(self, job: str, wanted: Any) -> None:
        with self.database.write() as session:
            fine_tuning.ask(session, self.who.project_id, job, wanted)

    def work(self) -> bool:
        return Worker(self.settings, self.database).work_once()

    def weights(self, job: str) -> str:
        """A digest of the adapter that a job made."""
        with self.database.read() as session:
            name = session.get_one(FineTuningJobRow, job).fine_tuned_model
            row = fine_tuning.tuned_model(session, self.who.project_id, str(name))
        assert row is not None
        file = self.settings.tuned / row.directory / "adapter_model.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()


def examples(count: int = 24) -> list[Any]:
    words = ["one", "two", "three", "four", "five", "six"]
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say {words[i % 6]} and {i}"},
                {"role": "assistant", "content": f"{words[i % 6]} {words[(i + 1) % 6]}"},
            ]
        }
        for i in range(count)
    ]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'chatwheel.db'}")
    save_model(settings.models / MODEL, causal(), tokenizer(), {"stage": "sft"})
    database = Database.open(settings.database_url)
    with database.read() as session:
        who = accounts.local_principal(session)
    yield Shop(settings, database, who)
    database.close()


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_job_from_file_to_model(shop: Shop) -> None:
    with shop.database.write() as session:
        prices.set_price(session, "tiny/*", input=1, output=1, training=3)
    job = shop.job(shop.upload(examples()), validation=shop.upload(examples(6)))
    assert shop.row(job).status == "validating_files"
    assert shop.work()
    row = shop.row(job)
    assert (row.status, row.error) == ("succeeded", None)
    assert row.fine_tuned_model == f"ft:{MODEL}:default:demo:{job.removeprefix('ftjob-')[:12]}"
    assert row.hyperparameters == {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0}
    assert row.trained_tokens
    assert row.cost == 3 * row.trained_tokens
    with shop.database.read() as session:
        checkpoints, _ = fine_tuning.list_checkpoints(session, job)
        names = [model.name for model in fine_tuning.tuned_models(session, shop.who.project_id)]
        result = files.get_file(session, shop.who.project_id, row.result_files[0])
        assert limits.spent(session, shop.who.project_id, limits.month_of(time.time())) == row.cost
        used = usage.usage_rows(session)
        assert sum(one.cost for one in used) == row.cost
        assert [one.endpoint for one in used] == ["fine_tuning"] * 2  # an epoch each
        assert sum(one.input_tokens for one in used) == row.trained_tokens
    assert sorted(names) == sorted([row.fine_tuned_model, *(checkpoint.model for checkpoint in checkpoints)])
    assert len(checkpoints) == 2
    last = checkpoints[0].metrics
    assert last["valid_loss"] < checkpoints[1].metrics["valid_loss"]
    assert 0 <= last["valid_mean_token_accuracy"] <= 1
    table = list(csv.DictReader(io.StringIO(BlobStore(shop.settings.files).path(result.sha256).read_text())))
    assert list(table[0]) == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert table[0]["valid_loss"] == ""
    assert float(table[-1]["valid_loss"]) == pytest.approx(last["valid_loss"], rel=1e-4)
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    events = shop.events(job)
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    assert steps == list(range(1, len(table) + 1))
    assert events[-1].message == "The job has successfully completed"
    assert not (shop.settings.tuned / job / "work").exists()
    with shop.database.read() as session:
        directory = fine_tuning.tuned_model(session, shop.who.project_id, row.fine_tuned_model)
    assert directory is not None
    model, _ = open_model(shop.settings.tuned / directory.directory, CausalLM)
    assert model.config.num_layers == causal().config.num_layers
    assert not shop.work()  # nothing waits


def test_the_same_seed_gives_the_same_weights(shop: Shop) -> None:
    training = shop.upload(examples())
    jobs = [shop.job(training, seed=seed) for seed in (7, 7, 8)]
    while shop.work():
        pass
    same, again, other = map(shop.weights, jobs)
    assert same == again
    assert same != other


def test_a_forecast_says_what_twice_the_examples_would_bring(shop: Shop) -> None:
    job = shop.job(shop.upload(examples(32)), {**SUPERVISED, "forecast": True}, validation=shop.upload(examples(12)))
    assert shop.work()
    row = shop.row(job)
    assert row.status == "succeeded", row.error
    assert row.forecast is not None
    assert "wice the examples" in row.forecast["sentence"]
    assert [point["examples"] for point in row.forecast["measured"]] == [4, 8, 16, 32]
    assert any(event.message == row.forecast["sentence"] for event in shop.events(job))
    again = Forecast.from_json(json.loads(json.dumps(row.forecast)))
    assert again.sentence == row.forecast["sentence"]
    assert picture(again).startswith("<svg")


def test_preferences_are_learnt_from(shop: Shop) -> None:
    lines = [
        {
            "input": {"messages": [{"role": "user", "content": f"Say {i}"}]},
            "preferred_output": [{"role": "assistant", "content": "one two"}],
            "non_preferred_output": [{"role": "assistant", "content": "six five"}],
        }
        for i in range(12)
    ]
    job = shop.job(shop.upload(lines), {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.3}}})
    assert shop.work()
    assert shop.row(job).status == "succeeded", shop.row(job).error
    losses = [event.data["train_loss"] for event in shop.events(job) if event.type == "metrics"]
    assert losses[-1] < losses[0]


def test_graded_answers_are_learnt_from(shop: Shop) -> None:
    lines = [{"messages": [{"role": "user", "content": f"Say {i}"}], "wanted": "e"} for i in range(8)]
    grader = {
        "type": "string_check",
        "name": "has",
        "operation": "ilike",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.wanted }}",
    }
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {"n_epochs": 1}}}
    job = shop.job(shop.upload(lines), method)
    assert shop.work()
    assert shop.row(job).status == "succeeded", shop.row(job).error
    rewards = [event.data.get("train_mean_reward") for event in shop.events(job) if event.type == "metrics"]
    assert rewards
    assert all(0 <= reward <= 1 for reward in rewards)


def test_a_bad_file_fails_the_job_with_its_lines(shop: Shop) -> None:
    lines = examples(12)
    lines[3] = {"messages": [{"role": "user", "content": "no answer"}]}
    job = shop.job(shop.upload(lines))
    assert shop.work()
    row = shop.row(job)
    assert row.status == "failed"
    assert row.error is not None
    assert row.error["code"] == "invalid_training_file"
    assert row.error["param"] == "training_file"
    assert "line 4" in row.error["message"]
    assert any("line 4, messages[0].role" in event.message for event in shop.events(job))


def test_what_is_gone_fails_the_job(shop: Shop) -> None:
    training = shop.upload(examples())
    job = shop.job(training)
    with shop.database.write() as session:
        files.delete_file(session, shop.who.project_id, training)
    other = shop.job(shop.upload(examples(11)), model="tiny/none")
    while shop.work():
        pass
    assert "has been deleted" in (shop.row(job).error or {})["message"]
    assert (shop.row(other).error or {})["param"] == "model"


def test_a_job_that_waits_is_paused_and_cancelled_at_once(shop: Shop) -> None:
    training = shop.upload(examples())
    job, other = shop.job(training), shop.job(training)
    shop.ask(job, "pause")
    shop.ask(other, "cancel")
    assert [shop.row(one).status for one in (job, other)] == ["paused", "cancelled"]
    assert not shop.work()
    shop.ask(job, "run")
    assert shop.work()
    assert shop.row(job).status == "succeeded"
    for one, wanted in ((job, "pause"), (other, "run"), (job, "cancel")):
        with pytest.raises(accounts.ConflictError):
            shop.ask(one, wanted)


def test_a_job_under_way_is_paused_resumed_and_cancelled(shop: Shop) -> None:
    job = shop.job(shop.upload(examples()), LONG)
    thread = threading.Thread(target=shop.work)
    thread.start()
    wait_for(lambda: any(event.type == "metrics" for event in shop.events(job)))
    shop.ask(job, "pause")
    thread.join(30)
    assert shop.row(job).status == "paused"
    assert not shop.work()
    shop.ask(job, "run")
    thread = threading.Thread(target=shop.work)
    thread.start()
    wait_for(lambda: shop.row(job).status == "running")
    shop.ask(job, "cancel")
    thread.join(30)
    assert shop.row(job).status == "cancelled"
    assert not (shop.settings.tuned / job / "work").exists()


WORKER = "from chatwheel.cli.worker import command; import typer; typer.run(command)"


def start(shop: Shop) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, "--home", str(shop.settings.home)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(os.environ))


def test_what_a_cancelled_job_has_made_is_paid_for(shop: Shop) -> None:
    with shop.database.write() as session:
        prices.set_price(session, "tiny/*", input=1, output=1, training=3)
    job = shop.job(shop.upload(examples()), LONG)
    thread = threading.Thread(target=shop.work)
    thread.start()
    wait_for(lambda: shop.row(job).cost > 0, 120)
    shop.ask(job, "cancel")
    thread.join(60)
    row = shop.row(job)
    assert row.status == "cancelled"
    with shop.database.read() as session:
        checkpoints, _ = fine_tuning.list_checkpoints(session, job, limit=100)
        paid = sum(one.input_tokens for one in usage.usage_rows(session))
        assert limits.spent(session, shop.who.project_id, limits.month_of(time.time())) == row.cost == 3 * paid
    assert row.trained_tokens is not None
    assert paid == pytest.approx(row.trained_tokens * len(checkpoints) / 50, rel=0.02)


def test_whoever_may_not_come_in_has_nothing_trained(shop: Shop) -> None:
    with shop.database.write() as session:
        ada = accounts.create_user(session, "Ada")
        project = accounts.create_project(session, "Physics", ada.id)
    ours = replace(shop, who=Principal(ada.id, project.id))
    job = ours.job(ours.upload(examples()))
    with shop.database.write() as session:
        accounts.change_user(session, ada.id, disabled=True)
    assert not shop.work()
    with shop.database.write() as session:
        accounts.change_user(session, ada.id, disabled=False)
        accounts.change_project(session, project.id, archived=True)
    assert not shop.work()
    with shop.database.write() as session:
        accounts.change_project(session, project.id, archived=False)
    assert shop.work()
    assert shop.row(job).status == "succeeded"


def test_a_backup_has_the_models(shop: Shop, tmp_path: Path) -> None:
    job = shop.job(shop.upload(examples()))
    assert shop.work()
    backup.save(shop.settings, tmp_path / "backup.zip")
    there = Settings(home=tmp_path / "there", database_url=f"sqlite:///{tmp_path / 'there.db'}")
    backup.load(there, tmp_path / "backup.zip")
    database = Database.open(there.database_url)
    try:
        assert replace(shop, settings=there, database=database).weights(job) == shop.weights(job)
    finally:
        database.close()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("backup.json", json.dumps({"format": 1, "schema": "0002"}))
        archive.writestr("tuned/../../evil/x", "x")
    with pytest.raises(InputError, match="is no file of a model"):
        backup.load(replace(there, home=tmp_path / "new"), tmp_path / "evil.zip")
    assert not (tmp_path / "evil").exists()


def test_a_worker_that_is_killed_loses_nothing(shop: Shop) -> None:
    training = shop.upload(examples())
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 1}}}
    job = shop.job(training, method)
    worker = start(shop)
    wait_for(lambda: any(event.type == "metrics" for event in shop.events(job)), 120)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    row = shop.row(job)
    assert row.status == "running"
    assert not shop.work()  # its lease has not ended
    with shop.database.write() as session:
        session.get_one(FineTuningJobRow, job).lease_until = time.time() - 1
    assert shop.work()
    assert shop.row(job).status == "succeeded"
    assert shop.row(job).attempts == 1  # the second one came further: the job is not the reason
    steps = [event.data["step"] for event in shop.events(job) if event.type == "metrics"]
    assert steps == sorted(set(steps))

    whole = shop.job(training, method)
    assert shop.work()
    assert shop.weights(whole) == shop.weights(job)


@pytest.mark.parametrize("jobs", [1, pytest.param(17, marks=pytest.mark.slow)])
def test_workers_that_are_killed_at_any_moment_make_one_model(shop: Shop, jobs: int) -> None:
    """Three kills a job, anywhere between taking it and its end, the start of a process included."""
    training = shop.upload(examples())
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 1}}}
    whole = shop.job(training, method)
    assert shop.work()
    for _ in range(jobs):
        job = shop.job(training, method)
        for _ in range(3):
            worker = start(shop)
            wait_for(lambda job=job: shop.row(job).worker is not None or shop.row(job).status == "succeeded", 120)
            time.sleep(random.uniform(0, 3))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            with shop.database.write() as session:
                row = session.get_one(FineTuningJobRow, job)
                if row.worker is not None:
                    row.lease_until = time.time() - 1
        while shop.work():
            pass
        assert shop.row(job).status == "succeeded", shop.row(job).error
        assert shop.weights(job) == shop.weights(whole)
        with shop.database.read() as session:
            names = [row.name for row in fine_tuning.tuned_models(session, shop.who.project_id) if row.job_id == job]
            assert len([name for name in names if "ckpt" not in name]) == 1
            assert len(fine_tuning.list_checkpoints(session, job)[0]) == 3
        ends = [event for event in shop.events(job) if event.message == "The job has successfully completed"]
        assert len(ends) == 1


def test_a_worker_that_is_ended_lets_the_job_go(shop: Shop) -> None:
    job = shop.job(shop.upload(examples()), LONG)
    worker = start(shop)
    wait_for(lambda: any(event.type == "metrics" for event in shop.events(job)), 120)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    row = shop.row(job)
    assert (row.worker, row.attempts, row.status) == (None, 0, "running")
    shop.ask(job, "cancel")
    assert shop.row(job).status == "cancelled"


def test_whoever_has_lost_a_job_writes_nothing_more_of_it(shop: Shop) -> None:
    job = shop.job(shop.upload(examples()), LONG)
    slow = Worker(shop.settings, shop.database)
    thread = threading.Thread(target=slow.work_once)
    thread.start()
    wait_for(lambda: any(event.type == "metrics" for event in shop.events(job)))
    with shop.database.write() as session:  # as if it had slept for longer than its lease
        row = session.get_one(FineTuningJobRow, job)
        row.worker, row.lease_until = "inst-other", time.time() + 100
    thread.join(30)
    assert not thread.is_alive()
    row = shop.row(job)
    assert (row.status, row.worker) == ("running", "inst-other")


def test_a_job_that_takes_its_workers_down_is_given_up(shop: Shop) -> None:
    job = shop.job(shop.upload(examples()))
    for _ in range(fine_tuning.MOST_ATTEMPTS):
        with shop.database.write() as session:
            assert fine_tuning.claim(session, "inst-crash") is not None
            session.get_one(FineTuningJobRow, job).lease_until = time.time() - 1
    assert not shop.work()
    assert (shop.row(job).error or {})["code"] == "worker_crashed"


SAVING = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 8}}}


@pytest.fixture
def saved_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "save_seconds", -1.0)  # type: ignore[misc]


def overtaken(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int, meanwhile: Any) -> list[int]:
    """So often the function has been called; before that call does its work, `meanwhile` happens: as if the process had
    been stopped there (SIGSTOP) for longer than its lease, and then had gone on (SIGCONT)."""
    original, calls = getattr(module, name), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            meanwhile()
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, counted)
    return calls


def lose(shop: Shop, job: str) -> None:
    """Its worker's lease ends."""
    with shop.database.write() as session:
        session.get_one(FineTuningJobRow, job).lease_until = time.time() - 1


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Each file's identity and bytes."""
    files = [file for file in directory.rglob("*") if file.is_file()]
    return {str(file.relative_to(directory)): (file.stat().st_ino, file.read_bytes()) for file in files}


def result_file(shop: Shop, job: str) -> bytes:
    with shop.database.read() as session:
        found = files.get_file(session, shop.who.project_id, shop.row(job).result_files[0])
    return BlobStore(shop.settings.files).path(found.sha256).read_bytes()


@pytest.mark.usefixtures("saved_each_step")
def test_a_worker_that_slept_through_its_lease_harms_no_state(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up in the middle of a save, when another one has come further and lets the job go."""
    training = shop.upload(examples())
    whole = shop.job(training, SAVING)
    assert shop.work()
    job = shop.job(training, SAVING)
    directory = shop.settings.tuned / job
    left: dict[str, tuple[int, bytes]] = {}
    came_further: list[int] = []

    def work_on() -> None:
        lose(shop, job)
        other = Worker(shop.settings, shop.database)
        with monkeypatch.context() as patch:
            calls = overtaken(patch, states, "save", 5, other.stop.set)
            assert other.work_once()
        came_further.extend(calls)
        assert shop.row(job).worker is None
        left.update(contents(directory))

    saves = overtaken(monkeypatch, states, "save", 3, work_on)
    assert Worker(shop.settings, shop.database).work_once()  # it has the job, and loses it
    assert len(saves) == 3 + len(came_further)
    assert shop.row(job).status == "running"
    assert len(came_further) >= 5
    assert left
    assert contents(directory) == left
    assert shop.work()
    assert shop.row(job).status == "succeeded", shop.row(job).error
    assert shop.weights(job) == shop.weights(whole)
    assert result_file(shop, job) == result_file(shop, whole)
    steps = [event.data["step"] for event in shop.events(job) if event.type == "metrics"]
    assert steps == sorted(set(steps))
    assert sorted(place.name for place in directory.iterdir()) == sorted(
        place.name for place in (shop.settings.tuned / whole).iterdir()
    )


@pytest.mark.usefixtures("saved_each_step")
def test_a_worker_that_slept_through_its_lease_replaces_no_model(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up when the model that it was going to save is there, and asked."""
    job = shop.job(shop.upload(examples()), SAVING)
    directory = shop.settings.tuned / job
    left: dict[str, tuple[int, bytes]] = {}

    def finish() -> None:
        lose(shop, job)
        assert shop.work()
        assert shop.row(job).status == "succeeded"
        left.update(contents(directory))

    overtaken(monkeypatch, training_of_jobs, "save_adapter", 1, finish)
    assert Worker(shop.settings, shop.database).work_once()
    assert left
    assert contents(directory) == left
    assert all(place.name.startswith("step-") for place in directory.iterdir())
    assert [event.message for event in shop.events(job)][-1] == "The job has successfully completed"


def test_work_of_the_version_before_is_gone_on_with(shop: Shop) -> None:
    job = shop.job(shop.upload(examples()))
    before = shop.settings.tuned / job / "work"
    before.mkdir(parents=True)
    (before / "mark").write_text("kept")
    with shop.database.write() as session:
        row = fine_tuning.claim(session, "inst-new")
        assert row is not None
        fine_tuning.take_work(shop.settings.tuned / job, row.claims)
    assert (shop.settings.tuned / job / "work-1" / "mark").read_text() == "kept"


def test_what_is_left_of_jobs_that_ended_while_nobody_worked_on_them_is_swept(shop: Shop) -> None:
    training = shop.upload(examples())
    jobs = [shop.job(training) for _ in range(3)]
    for job in jobs:
        for name in ("work", "work-2", "step-3"):
            (shop.settings.tuned / job / name).mkdir(parents=True)
    shop.ask(jobs[0], "cancel")
    shop.ask(jobs[1], "pause")
    stop = threading.Event()
    thread = threading.Thread(target=Worker(shop.settings, shop.database, stop).run)
    with shop.database.write() as session:  # nothing to do for it
        session.get_one(FineTuningJobRow, jobs[2]).status = "failed"
    thread.start()
    wait_for(lambda: not list((shop.settings.tuned / jobs[0]).glob("work*")))
    wait_for(lambda: not list((shop.settings.tuned / jobs[2]).glob("work*")))
    stop.set()
    thread.join(30)
    left = [sorted(place.name for place in (shop.settings.tuned / job).iterdir()) for job in jobs]
    assert left == [["step-3"], ["step-3", "work", "work-2"], ["step-3"]]


def test_a_model_whose_server_was_killed_while_it_removed_it_is_swept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shop.settings.tuned / "ftjob-1"
    for name in ("step-3", "step-30", ".step-mine", "other"):
        (directory / name).mkdir(parents=True)
        (directory / name / "mark").write_text("kept")
    with monkeypatch.context() as patch:
        patch.setattr("chatwheel.store.fine_tuning.shutil.rmtree", lambda *_arguments, **_more: None)
        fine_tuning.forget_model(directory / "step-3")
    assert len(list(directory.glob(".step-3-*/mark"))) == 1
    assert fine_tuning.sweep_work(shop.database, shop.settings.tuned) == 1
    assert sorted(place.parent.name for place in directory.rglob("mark")) == [".step-mine", "other", "step-30"]


def test_nobody_waits_for_a_database_while_work_is_swept(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shop.job(shop.upload(examples()))
    (shop.settings.tuned / job / "work").mkdir(parents=True)
    shop.ask(job, "cancel")
    open_while: list[int] = []
    forget = fine_tuning.forget_work

    def noted(directory: Path) -> None:
        open_while.append(shop.database._engine.pool.checkedout())  # type: ignore[attr-defined]
        forget(directory)

    monkeypatch.setattr(fine_tuning, "forget_work", noted)
    assert fine_tuning.sweep_work(shop.database, shop.settings.tuned) == 1
    assert open_while == [0]
    assert not (shop.settings.tuned / job / "work").exists()


def test_a_job_whose_work_cannot_be_taken_keeps_nobody_waiting(shop: Shop) -> None:
    training = shop.upload(examples())
    jobs = [shop.job(training) for _ in range(2)]
    stuck = shop.settings.tuned / jobs[0]
    (stuck / "work").mkdir(parents=True)
    (stuck / "work" / "mark").write_text("kept")
    (stuck / "work-1").write_text("in its way")
    worker = Worker(shop.settings, shop.database)

    def claimed() -> str | None:
        row = worker._write(worker._claim)
        return None if row is None else row.id

    assert claimed() == jobs[1]
    assert claimed() is None
    row = shop.row(jobs[0])
    assert (row.worker, row.claims, row.attempts, row.status) == (None, 0, 1, "validating_files")
    [event] = [event for event in shop.events(jobs[0]) if event.level == "warn"]
    assert "work: cannot be taken over" in event.message
    (stuck / "work-1").rename(stuck / "aside")
    lose(shop, jobs[0])
    assert claimed() == jobs[0]  # what it had learnt is there
    assert (stuck / "work-1" / "mark").read_text() == "kept"
    (stuck / "work-2").write_text("in its way")
    for attempt in range(2, fine_tuning.MOST_ATTEMPTS + 1):
        assert shop.row(jobs[0]).attempts == attempt
        lose(shop, jobs[0])
        assert claimed() is None
    row = shop.row(jobs[0])
    assert (row.status, (row.error or {})["code"]) == ("failed", "worker_crashed")


def test_a_claim_that_was_not_saved_loses_no_work(shop: Shop) -> None:
    """Its transaction is undone, and the directory has the new name already."""
    job = shop.job(shop.upload(examples()))
    directory = shop.settings.tuned / job
    (directory / "work").mkdir(parents=True)
    (directory / "work" / "mark").write_text("kept")

    def fail() -> None:
        with shop.database.write() as session:
            row = fine_tuning.claim(session, "inst-new")
            assert row is not None
            fine_tuning.take_work(directory, row.claims)
            raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        fail()
    with shop.database.write() as session:
        row = fine_tuning.claim(session, "inst-newer")
        assert row is not None
        assert row.claims == 1
        fine_tuning.take_work(directory, row.claims)
    assert (directory / "work-1" / "mark").read_text() == "kept"
    (directory / "work").mkdir()  # a lost worker's, which nobody takes
    lose(shop, job)
    with shop.database.write() as session:
        row = fine_tuning.claim(session, "inst-newest")
        assert row is not None
        fine_tuning.take_work(directory, row.claims)
    assert (directory / "work-2" / "mark").read_text() == "kept"
