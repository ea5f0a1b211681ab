"""Fine-tuning as a customer does it: the official client, a server process, its worker, a tiny real model."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from chatwheel.model.checkpoint import save_model
from chatwheel.settings import Settings
from chatwheel.store import accounts
from chatwheel.store.database import Database
from tests.server.process import Served, serving, wait_for
from tests.tiny import causal, scalar, tokenizer

BASE, REWARD = "tiny/sft", "tiny/reward"
ANSWERS_AFTER, SWAPPED_AFTER = 1.0, 0.2
"""Seconds that we aim at, from a job's success to the first answer, and for a new adapter beside the same base. What is
asserted is so many times that: other work shares the processor with the tests."""
MARGIN = 5


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


SHORT = supervised(n_epochs=2, batch_size=8)
LONG = supervised(n_epochs=50, batch_size=1)
GRADER = {
    "type": "string_check",
    "name": "has",
    "operation": "ilike",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.wanted }}",
}


def conversations(count: int = 16, answer: str = "It is Rome.") -> list[Any]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is number {i}?"},
                {"role": "assistant", "content": answer},
            ]
        }
        for i in range(count)
    ]


def lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def upload(client: OpenAI, records: list[Any], purpose: Any = "fine-tune") -> str:
    return client.files.create(file=("train.jsonl", lines(records)), purpose=purpose).id


def ask(client: OpenAI, model: str, text: str = "What is number 3?", **more: Any) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], **({"temperature": 0, "max_tokens": 12} | more)
    )
    assert answer.model == model
    return answer.choices[0].message.content or ""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_model(home / "models" / BASE, causal(), tokenizer(), {"stage": "sft"})
    save_model(home / "models" / REWARD, scalar(), tokenizer(), {"stage": "reward"})
    return home


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[Served]:
    with serving(home) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def training(client: OpenAI) -> str:
    return upload(client, conversations())


def test_from_a_file_to_a_model_that_answers(client: OpenAI, training: str) -> None:
    uploaded = client.files.retrieve(training)
    assert (uploaded.purpose, uploaded.filename, uploaded.object) == ("fine-tune", "train.jsonl", "file")
    assert client.files.content(training).read() == lines(conversations())
    validation = upload(client, conversations(4))
    ask(client, BASE)  # the base is in memory
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training,
        validation_file=validation,
        method=SHORT,  # type: ignore[arg-type]
        suffix="shop-1.0",
        seed=5,
        metadata={"team": "sales"},
    )
    assert job.object == "fine_tuning.job"
    assert (job.status, job.fine_tuned_model, job.finished_at) == ("validating_files", None, None)
    assert (job.seed, job.metadata, job.training_file) == (5, {"team": "sales"}, training)
    done = wait_for(client, job.id)
    assert done.status == "succeeded", done.error
    began = time.perf_counter()
    answer = ask(client, done.fine_tuned_model)
    assert time.perf_counter() - began < MARGIN * ANSWERS_AFTER
    assert answer == ask(client, done.fine_tuned_model)

    assert done.fine_tuned_model.startswith(f"ft:{BASE}:default:shop-1.0:")
    assert done.finished_at >= done.created_at
    assert done.estimated_finish is None
    assert done.method.supervised.hyperparameters.n_epochs == 2
    assert done.hyperparameters.batch_size == 8
    assert done.hyperparameters.learning_rate_multiplier == 1
    assert done.trained_tokens > 0
    assert not done.error.code
    (result,) = done.result_files
    assert client.files.retrieve(result).purpose == "fine-tune-results"
    table = list(csv.DictReader(io.StringIO(client.files.content(result).text)))
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))  # page after page
    assert events[0].message == "The job has successfully completed"
    assert events[-1].message == f"Created fine-tuning job: {job.id}"
    assert {event.object for event in events} == {"fine_tuning.job.event"}
    steps = [event.data["step"] for event in events if event.type == "metrics"]  # type: ignore[index]
    assert steps == list(range(len(table), 0, -1))

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [len(table), len(table) // 2]
    assert checkpoints[0].metrics.valid_loss < checkpoints[1].metrics.valid_loss  # type: ignore[operator]
    assert checkpoints[0].metrics.full_valid_mean_token_accuracy is not None
    first, last = checkpoints[1].fine_tuned_model_checkpoint, checkpoints[0].fine_tuned_model_checkpoint
    assert ask(client, last) == answer
    began = time.perf_counter()
    ask(client, first)
    cold = time.perf_counter() - began
    began = time.perf_counter()
    ask(client, first)
    assert cold - (time.perf_counter() - began) < MARGIN * SWAPPED_AFTER

    assert {done.fine_tuned_model, first, last, BASE} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(done.fine_tuned_model).owned_by == "project"
    assert job.id in [one.id for one in client.fine_tuning.jobs.list(limit=1)]
    pieces = client.chat.completions.create(
        model=done.fine_tuned_model,
        messages=[{"role": "user", "content": "What is number 3?"}],
        temperature=0,
        max_tokens=12,
        stream=True,
    )
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == answer


def test_a_tuned_model_is_tuned_further_and_deleted(client: OpenAI, training: str, home: Path) -> None:
    first = wait_for(client, client.fine_tuning.jobs.create(model=BASE, training_file=training, method=SHORT).id)  # type: ignore[arg-type]
    job = client.fine_tuning.jobs.create(model=first.fine_tuned_model, training_file=training, method=SHORT)  # type: ignore[arg-type]
    second = wait_for(client, job.id)
    assert second.status == "succeeded", second.error
    assert ask(client, second.fine_tuned_model)
    names = [
        second.fine_tuned_model,
        *(one.fine_tuned_model_checkpoint for one in client.fine_tuning.jobs.checkpoints.list(job.id)),
    ]
    directory = home / "tuned" / job.id
    assert any(directory.iterdir())
    for name in names:
        assert client.models.delete(name).deleted
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, name)
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            client.models.delete(name)
    assert not any(directory.iterdir())
    assert ask(client, first.fine_tuned_model)  # which it stood on


def test_what_others_stand_on_stays_when_it_is_deleted(client: OpenAI, training: str, home: Path) -> None:
    first = wait_for(client, client.fine_tuning.jobs.create(model=BASE, training_file=training, method=SHORT).id)  # type: ignore[arg-type]
    second = wait_for(
        client,
        client.fine_tuning.jobs.create(model=first.fine_tuned_model, training_file=training, method=SHORT).id,  # type: ignore[arg-type]
    )
    before = ask(client, second.fine_tuned_model)
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(first.id):
        client.models.delete(checkpoint.fine_tuned_model_checkpoint)
    client.models.delete(first.fine_tuned_model)
    assert ask(client, second.fine_tuned_model) == before
    assert any((home / "tuned" / first.id).iterdir())
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(second.id):
        client.models.delete(checkpoint.fine_tuned_model_checkpoint)
    client.models.delete(second.fine_tuned_model)
    assert not any((home / "tuned" / first.id).iterdir())


def test_who_speaks_when_a_model_is_deleted_speaks_on(client: OpenAI, training: str) -> None:
    """The answer is the one that it would have been; whoever comes later is told that the model does not exist."""
    done = wait_for(client, client.fine_tuning.jobs.create(model=BASE, training_file=training, method=SHORT).id)  # type: ignore[arg-type]
    name = done.fine_tuned_model
    body: dict[str, Any] = {"max_tokens": 150, "extra_body": {"ignore_eos": True}}
    whole = ask(client, name, **body)
    pieces = client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "What is number 3?"}],
        temperature=0,
        stream=True,
        **body,
    )
    first = next(iter(pieces))
    assert client.models.delete(name).deleted
    rest = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert (first.choices[0].delta.content or "") + rest == whole
    with pytest.raises(openai.NotFoundError):
        ask(client, name)


def test_what_a_job_learns_from_is_not_deleted(client: OpenAI, training: str) -> None:
    first = wait_for(client, client.fine_tuning.jobs.create(model=BASE, training_file=training, method=SHORT).id)  # type: ignore[arg-type]
    job = client.fine_tuning.jobs.create(model=first.fine_tuned_model, training_file=training, method=LONG)  # type: ignore[arg-type]
    with pytest.raises(openai.ConflictError) as caught:
        client.models.delete(first.fine_tuned_model)
    assert caught.value.code == "model_in_use"
    assert job.id in caught.value.message
    client.fine_tuning.jobs.cancel(job.id)
    wait_for(client, job.id, "cancelled")
    assert client.models.delete(first.fine_tuned_model).deleted


def test_preferences(client: OpenAI) -> None:
    pairs = [
        {
            "input": {"messages": [{"role": "user", "content": f"Say {i}"}]},
            "preferred_output": [{"role": "assistant", "content": "It is Rome."}],
            "non_preferred_output": [{"role": "assistant", "content": "Paris of course!"}],
        }
        for i in range(12)
    ]
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=upload(client, pairs),
        validation_file=upload(client, pairs[:4]),
        method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "beta": 0.3}}},
    )
    done = wait_for(client, job.id)
    assert done.status == "succeeded", done.error
    assert done.method.dpo.hyperparameters.beta == 0.3
    losses = [e.data["train_loss"] for e in client.fine_tuning.jobs.list_events(job.id) if e.type == "metrics"]  # type: ignore[index]
    assert losses[0] < losses[-1]  # the newest first
    assert ask(client, done.fine_tuned_model)


def test_reinforcement(client: OpenAI) -> None:
    prompts = [{"messages": [{"role": "user", "content": f"Say {i}"}], "wanted": "e"} for i in range(8)]
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=upload(client, prompts),
        method={
            "type": "reinforcement",
            "reinforcement": {"grader": GRADER, "hyperparameters": {"n_epochs": 1, "compute_multiplier": 0.25}},  # type: ignore[typeddict-item]
        },
    )
    done = wait_for(client, job.id)
    assert done.status == "succeeded", done.error
    assert done.method.reinforcement.grader.reference == "{{ item.wanted }}"
    told = [e.data for e in client.fine_tuning.jobs.list_events(job.id) if e.type == "metrics"]
    assert told
    for step in told:
        assert 0 <= step["train_mean_reward"] <= 1  # type: ignore[index]
        assert step["train_mean_answer_tokens"] >= 1  # type: ignore[index]
    assert told[-1]["train_kl"] == pytest.approx(0, abs=1e-3)  # type: ignore[index]  # it begins as the base
    table = list(csv.DictReader(io.StringIO(client.files.content(done.result_files[0]).text)))
    rewards = [float(row["train_mean_reward"]) for row in table]
    assert rewards == pytest.approx([step["train_mean_reward"] for step in reversed(told)], abs=1e-5)  # type: ignore[index]
    assert ask(client, done.fine_tuned_model)


def test_a_grader_is_validated_before_there_is_a_job(client: OpenAI) -> None:
    validate = client.fine_tuning.alpha.graders.validate
    assert validate(grader=GRADER).grader.to_dict() == GRADER  # type: ignore[arg-type, union-attr]
    asks = {
        "type": "score_model",
        "name": "judge",
        "model": BASE,
        "input": [{"role": "user", "content": "Grade {{ sample.output_text }}"}],
    }
    found = validate(grader=asks).grader  # type: ignore[arg-type]
    assert (found.model, found.range) == (BASE, [0, 1])  # type: ignore[union-attr]
    wrong: list[tuple[dict[str, Any], str]] = [
        (GRADER | {"operation": "like?"}, "grader.operation"),
        (GRADER | {"input": "{{ answer }}"}, "grader.input"),
        ({"type": "magic", "name": "x"}, "grader.type"),
        ({"type": "python", "name": "p", "source": "def grade(sample, item:"}, "grader.source"),
        ({"type": "multi", "name": "m", "graders": {"a": {"type": "python"}}, "calculate_output": "a"}, "graders.a"),
    ]
    for grader, param in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            validate(grader=grader)  # type: ignore[arg-type]
        assert param in str(caught.value.param), caught.value
        assert str(caught.value.param) in caught.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        validate(grader=asks | {"model": "ft:another:project"})  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"


def test_pausing_resuming_and_cancelling(client: OpenAI, training: str, home: Path) -> None:
    jobs = client.fine_tuning.jobs
    job = jobs.create(model=BASE, training_file=training, method=LONG).id  # type: ignore[arg-type]
    waiting = jobs.create(model=BASE, training_file=training, method=LONG).id  # type: ignore[arg-type]
    assert jobs.cancel(waiting).status == "cancelled"  # nobody has begun with it
    wait_for(client, job, "running")
    jobs.pause(job)
    wait_for(client, job, "paused")
    assert list((home / "tuned" / job).glob("work-*"))
    other = jobs.create(model=BASE, training_file=training, method=LONG).id  # type: ignore[arg-type]
    wait_for(client, other, "running")
    jobs.pause(other)
    wait_for(client, other, "paused")
    assert list((home / "tuned" / other).glob("work-*"))
    assert jobs.cancel(other).status == "cancelled"
    assert not list((home / "tuned" / other).glob("work*"))
    assert jobs.resume(job).status == "queued"
    wait_for(client, job, "running")
    deadline = time.monotonic() + 60
    while not jobs.retrieve(job).estimated_finish:  # after the first step it is known how long one takes
        assert time.monotonic() < deadline
        time.sleep(0.05)
    jobs.cancel(job)
    wait_for(client, job, "cancelled")
    assert jobs.cancel(job).status == "cancelled"
    for wrong in (jobs.pause, jobs.resume):
        with pytest.raises(openai.ConflictError) as caught:
            wrong(job)
        assert caught.value.code == "invalid_state"
    messages = [event.message for event in jobs.list_events(job, limit=100)]
    for said in ("Job paused", "Job resumed", "Job cancelled"):
        assert said in messages


BAD_JOBS: list[tuple[dict[str, Any], int, str | None, str | None]] = [
    ({"model": "gpt-5"}, 404, "model", "model_not_found"),
    ({"model": "ft:tiny/sft:default::none"}, 404, "model", "model_not_found"),
    ({"model": REWARD}, 400, "model", "model_cannot_answer"),
    ({"model": ""}, 400, "model", None),
    ({"training_file": "file-none"}, 400, "training_file", "file_not_found"),
    ({"validation_file": "file-none"}, 400, "validation_file", "file_not_found"),
    ({"suffix": "x" * 65}, 400, "suffix", None),
    ({"suffix": "a b"}, 400, "suffix", None),
    ({"seed": -1}, 400, "seed", None),
    ({"seed": 2**31}, 400, "seed", None),
    ({"seed": True}, 400, "seed", None),
    ({"metadata": {f"key-{i}": "v" for i in range(17)}}, 400, "metadata", None),
    ({"metadata": {"k": "v" * 513}}, 400, "metadata.k", None),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, 400, "integrations", None),
    ({"extra_body": {"colour": "red"}}, 400, "colour", None),
    ({"extra_body": {"forecast": True}}, 400, "validation_file", None),
    ({"method": {"type": "distillation"}}, 400, "method.type", None),
    ({"method": {"type": "dpo", "supervised": {}}}, 400, "method", None),
    ({"method": {"type": "reinforcement"}}, 400, "method", None),
    ({"method": supervised(n_epochs=0)}, 400, "method.supervised.hyperparameters.n_epochs", None),
    ({"method": supervised(n_epochs=51)}, 400, "method.supervised.hyperparameters.n_epochs", None),
    ({"method": supervised(n_epochs="many")}, 400, "method.supervised.hyperparameters.n_epochs", None),
    ({"method": supervised(n_epochs=1.5)}, 400, "method.supervised.hyperparameters.n_epochs", None),
    ({"method": supervised(batch_size=257)}, 400, "method.supervised.hyperparameters.batch_size", None),
    (
        {"method": supervised(learning_rate_multiplier=0)},
        400,
        "method.supervised.hyperparameters.learning_rate_multiplier",
        None,
    ),
    ({"method": supervised(beta=0.1)}, 400, "method.supervised.hyperparameters.beta", None),
    (
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.5}}}},
        400,
        "method.dpo.hyperparameters.beta",
        None,
    ),
    (
        {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python"}}}},
        400,
        "method.reinforcement.grader.name",
        None,
    ),
    ({"hyperparameters": {"n_epochs": -1}}, 400, "method.supervised.hyperparameters.n_epochs", None),
    ({"hyperparameters": {"n_epochs": 1}, "method": SHORT}, 400, "hyperparameters", None),
]


@pytest.mark.parametrize(("changes", "status", "param", "code"), BAD_JOBS, ids=lambda value: str(value)[:48])
def test_a_wrong_request_names_its_field(
    client: OpenAI, training: str, changes: dict[str, Any], status: int, param: str | None, code: str | None
) -> None:
    before = client.fine_tuning.jobs.list().data
    with pytest.raises(openai.APIStatusError) as caught:
        client.fine_tuning.jobs.create(**({"model": BASE, "training_file": training} | changes))
    error = caught.value
    assert (error.status_code, error.param, error.code) == (status, param, code), error.message
    assert error.type == "invalid_request_error"
    assert error.request_id
    assert [job.id for job in client.fine_tuning.jobs.list().data] == [job.id for job in before]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": "tiny/sft", "training_file": "f", "seed": NaN}', b"\xff"]
)
def test_a_body_that_is_none_is_refused(served: Served, body: bytes) -> None:
    answer = httpx.post(
        f"{served.url}/v1/fine_tuning/jobs", content=body, headers={"content-type": "application/json"}, timeout=30
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_file_for_another_purpose_is_not_trained_on(client: OpenAI) -> None:
    other = upload(client, conversations(), "batch")
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(model=BASE, training_file=other)
    assert caught.value.param == "training_file"
    assert "'batch'" in caught.value.message


def test_a_bad_file_fails_the_job_and_names_line_and_field(client: OpenAI) -> None:
    wrong = conversations()
    wrong[2] = {"messages": [{"role": "user", "content": "and?"}]}
    bad = upload(client, wrong)
    failed = wait_for(client, client.fine_tuning.jobs.create(model=BASE, training_file=bad).id)
    assert failed.status == "failed"
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert "line 3" in failed.error.message
    assert failed.fine_tuned_model is None
    other = client.fine_tuning.jobs.create(
        model=BASE, training_file=upload(client, conversations()), validation_file=bad
    )
    failed = wait_for(client, other.id)
    assert (failed.error.code, failed.error.param) == ("invalid_validation_file", "validation_file")
    events = list(client.fine_tuning.jobs.list_events(other.id))
    assert any(event.level == "error" and "line 3, messages[0].role" in event.message for event in events)


def test_a_file_is_checked_before_there_is_a_job(client: OpenAI, training: str) -> None:
    def check(file: str, **body: Any) -> Any:
        return client.post(f"/files/{file}/check", cast_to=object, body=body)

    report = check(training, model=BASE)
    assert (report["ok"], report["kind"], report["examples"]) == (True, "supervised", 16)
    assert report["tokens"]["trained"] > 0
    wrong = check(training, method="dpo")
    assert not wrong["ok"]
    assert wrong["num_errors"] >= 16
    graded = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}
    lacking = check(upload(client, [{"messages": [{"role": "user", "content": "a"}]}]), method=graded)
    assert "wanted" in json.dumps(lacking["errors"])


def nothing(client: OpenAI) -> list[Callable[[], object]]:
    jobs = client.fine_tuning.jobs
    none = "ftjob-none"
    one = [jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list]
    return [*(lambda call=call: call(none) for call in one), lambda: jobs.list(after=none)]  # type: ignore[misc]


def test_what_does_not_exist_is_not_found(client: OpenAI, training: str) -> None:
    for call in nothing(client):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "fine_tune_not_found"
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call("file-none")
    for model in (BASE, "ft:none", "none"):  # the installation's own stay
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.delete(model)
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.fine_tuning.jobs.list(limit=0)
    assert wrong.value.param == "limit"
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training, method=LONG)  # type: ignore[arg-type]
    client.fine_tuning.jobs.cancel(job.id)
    for call in (client.fine_tuning.jobs.list_events, client.fine_tuning.jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            call(job.id, after="none")


def test_a_file_that_is_deleted_under_a_job_fails_it(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    file = upload(client, conversations(20))
    job = jobs.create(model=BASE, training_file=file, method=LONG).id  # type: ignore[arg-type]
    wait_for(client, job, "running")
    jobs.pause(job)
    wait_for(client, job, "paused")
    assert client.files.delete(file).deleted
    jobs.resume(job)
    failed = wait_for(client, job)
    assert failed.status == "failed"
    assert "has been deleted" in failed.error.message


WORDS = ("Rome", "Paris", "four", "capital", "France", "Italy", "course", "know", "found", "they")


@pytest.mark.parametrize("tenants", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_tenants_answer_at_once_each_its_own(tenants: int, tmp_path: Path) -> None:
    """Each project's model has learnt another sentence by heart; nobody sees, uses or deletes another's."""
    import asyncio

    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'chatwheel.db'}")
    save_model(settings.models / BASE, causal(), tokenizer(), {"stage": "sft"})
    database, keys = Database.open(settings.database_url), []
    with database.write() as session:
        owner = accounts.local_principal(session).user_id
        for number in range(tenants):
            project = accounts.create_project(session, f"tenant {number}", owner)
            keys.append(accounts.create_key(session, project_id=project.id, user_id=owner, name="app").secret)
    database.close()
    secrets = [f"{WORDS[n % 10]} and {WORDS[(3 * n + n // 10) % 10]}" for n in range(tenants)]
    assert len(set(secrets)) == tenants
    question = "What is it?"
    with serving(tmp_path) as served:
        clients = [served.client(key) for key in keys]
        jobs = []
        for client, secret in zip(clients, secrets, strict=True):
            same = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": secret}]}
            method = supervised(n_epochs=1, batch_size=4, learning_rate_multiplier=3.0)
            job = client.fine_tuning.jobs.create(model=BASE, training_file=upload(client, [same] * 160), method=method)  # type: ignore[arg-type]
            jobs.append(job.id)
        models = []
        for number, (client, job) in enumerate(zip(clients, jobs, strict=True)):
            done = wait_for(client, job)
            assert done.status == "succeeded", done.error
            assert f":tenant-{number}:" in done.fine_tuned_model
            models.append(done.fine_tuned_model)

        async def all_at_once() -> list[list[str]]:
            askers = [
                openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=120) for key in keys
            ]

            async def one(number: int) -> str:
                answer = await askers[number].chat.completions.create(
                    model=models[number],
                    messages=[{"role": "user", "content": question}],
                    temperature=0,
                    max_tokens=24,
                )
                return answer.choices[0].message.content or ""

            rounds = [one(number) for _ in range(3) for number in range(tenants)]
            answers = await asyncio.gather(*rounds)
            for asker in askers:
                await asker.close()
            return [answers[start : start + tenants] for start in range(0, len(answers), tenants)]

        for answers in asyncio.run(all_at_once()):
            assert answers == secrets
        for number, client in enumerate(clients):
            other = (number + 1) % tenants
            assert {m.id for m in client.models.list() if m.id.startswith("ft:")} == {
                models[number],
                *(c.fine_tuned_model_checkpoint for c in client.fine_tuning.jobs.checkpoints.list(jobs[number])),
            }
            assert [job.id for job in client.fine_tuning.jobs.list()] == [jobs[number]]
            for call in (
                lambda client=client, other=other: ask(client, models[other]),
                lambda client=client, other=other: client.models.retrieve(models[other]),
                lambda client=client, other=other: client.models.delete(models[other]),
                lambda client=client, other=other: client.fine_tuning.jobs.retrieve(jobs[other]),
                lambda client=client, other=other: client.fine_tuning.jobs.create(
                    model=models[other], training_file=upload(client, conversations())
                ),
            ):
                with pytest.raises(openai.NotFoundError):
                    call()
        for client in clients:
            client.close()
