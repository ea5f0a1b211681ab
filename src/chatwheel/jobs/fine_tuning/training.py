"""One job: a file is checked, a model learns from it, and an adapter comes out; with one at the end of each epoch.

A job is a function of its files, its base, its method and its seed: begun again after a crash it goes on from its last
save, and what it makes is the same bit for bit. It knows nothing of queues and databases; a `Reporter` is told.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from chatwheel.data.packing import Packed
from chatwheel.data.records import Demonstration
from chatwheel.errors import InputError
from chatwheel.evaluation.forecast import Forecast, Measured, subset_sizes
from chatwheel.jobs.fine_tuning.defaults import Settings, resolve
from chatwheel.jobs.fine_tuning.file_check import FileReport, check, read_examples
from chatwheel.jobs.fine_tuning.graders import Ask, GraderReward
from chatwheel.jobs.fine_tuning.method import DPOHyperparameters, Method, ReinforcementHyperparameters
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import is_adapter, read_object
from chatwheel.model.lora import save_adapter
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.store.hub import fetch_bases
from chatwheel.store.loading import open_model, tokenizer_of
from chatwheel.training.dpo import dpo
from chatwheel.training.grpo import GRPOConfig, grpo
from chatwheel.training.loop import Progress, read_metrics
from chatwheel.training.next_token import held_out_loss
from chatwheel.training.preferences import EncodedPreferences, encode_preferences
from chatwheel.training.rollouts import encode_prompts
from chatwheel.training.sft import pack_demonstrations, sft

PAIRS = {
    "train_loss": "loss",
    "train_mean_token_accuracy": "accuracy",
    "train_pair_accuracy": "pair_accuracy",
    "train_margin": "margin",
    "train_mean_reward": "reward",
    "train_kl": "kl",
    "train_mean_answer_tokens": "answer_tokens",
}
"""What a step's metrics are called in OpenAI's events and checkpoints, and what the loop calls them. Ours: of pairs,
the share that the model puts in the right order, and by how much; of graded answers, the mean KL from the base, in nats
an answer, and the mean length in tokens."""
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
GRADED = ("train_mean_reward", "train_kl", "train_mean_answer_tokens")
"""More columns, of jobs that learn from graded answers."""


class FileError(InputError):
    """A file of a job cannot be learnt from. report: what is wrong."""

    def __init__(self, report: FileReport, param: str) -> None:
        super().__init__(f"{param}: {report.summary()}", code=f"invalid_{param}", param=param)
        self.report = report


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to do. base: the model's directory; base_name: what the API calls it. directory: the job's own, with its
    models. work: state, to go on with; forgotten at the job's end. ask: for graders that are models."""

    id: str
    base: Path
    base_name: str
    training: Path
    validation: Path | None
    method: Method
    seed: int
    directory: Path
    work: Path
    ask: Ask | None = None

    def checkpoint(self, step: int) -> Path:
        """The model after so many steps."""
        return self.directory / f"step-{step}"


class Reporter(Protocol):
    """Who is told how a job gets on. Each may raise, to stop the job."""

    def checked(self, report: FileReport, param: str) -> None:
        """A file is right."""

    def began(self, numbers: dict[str, Any], trained_tokens: int) -> None:
        """The numbers in place of "auto"; training begins, or goes on."""

    def step(self, progress: Progress, metrics: dict[str, float]) -> None:
        """A step is done; `metrics` in OpenAI's words."""

    def checkpoint(self, step: int, steps: int, made: Path, directory: Path, metrics: dict[str, float]) -> None:
        """A model is there, after so many steps of so many. made: where; unless it is in its place already, it is moved
        to `directory`."""

    def note(self, message: str) -> None:
        """Something worth knowing."""

    def alive(self) -> None:
        """Nothing else is to be told, but it goes on."""

    def forecast(self, forecast: Forecast) -> None:
        """What twice the examples would bring."""


@dataclass(frozen=True)
class Made:
    """What came out: the model after the last step, and the result file."""

    directory: Path
    results: bytes


@dataclass
class _Course:
    """A training under way: who is told, and what is saved when."""

    job: Job
    settings: Settings
    model: CausalLM
    tokenizer: Tokenizer
    reporter: Reporter
    ends: list[int]
    measure: Callable[[CausalLM], dict[str, float]]

    def after(self, progress: Progress) -> None:
        """What the loop calls after each step."""
        metrics = _renamed(progress.metrics)
        if progress.step in self.ends:
            metrics |= self._at_the_end_of_an_epoch(progress.step, metrics)
        self.reporter.step(progress, {"step": progress.step, **metrics})

    def _at_the_end_of_an_epoch(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        directory = made = self.job.checkpoint(step)
        training = self.model.training
        self.model.eval()
        found = self.measure(self.model)
        if not directory.is_dir():
            made = self.job.work / directory.name  # it gets its place from whoever knows that the job is ours
            save_adapter(
                made,
                self.model,
                self.settings.lora,
                self.tokenizer,
                base=str(self.job.base.absolute()),
                lineage=self._lineage(step, found),
            )
        self.model.train(training)
        self.reporter.checkpoint(step, self.ends[-1], made, directory, metrics | found)
        return found

    def _lineage(self, step: int, measured: dict[str, float]) -> dict[str, Any]:
        return {
            "stage": "tuned",
            "base": self.job.base_name,
            "job": self.job.id,
            "step": step,
            "metrics": measured,
            "seed": self.job.seed,
            "method": self.job.method.model_dump(mode="json"),
        }


def train(job: Job, reporter: Reporter) -> Made:
    """Does a job, from its last save if there is one. Raises FileError, InputError, and what the reporter raises."""
    tokenizer, context = tokenizer_of(job.base), context_of(job.base)
    report = _checked(job, job.training, "training_file", tokenizer, context, reporter)
    if job.validation is not None:
        _checked(job, job.validation, "validation_file", tokenizer, context, reporter)
    assert report.tokens is not None
    model, tokenizer = open_model(job.base, CausalLM)
    settings = resolve(
        job.method.hyperparameters,
        job.method.kind,
        examples=report.examples,
        trained_tokens=report.tokens.trained,
        hidden_size=model.config.hidden_size,
    )
    numbers = settings.model_dump(include={"n_epochs", "batch_size", "learning_rate_multiplier"})
    trained_tokens = (report.tokens.trained or report.tokens.prompt) * settings.n_epochs
    reporter.began(numbers, trained_tokens)
    course = _Course(job, settings, model, tokenizer, reporter, [], lambda _: {})
    learn = {"supervised": _supervised, "preference": _preference, "reinforcement": _reinforcement}[job.method.kind]
    learn(course, report, context)
    return Made(job.checkpoint(course.ends[-1]), _results(job, course.ends))


def _checked(job: Job, path: Path, param: str, tokenizer: Tokenizer, context: int, reporter: Reporter) -> FileReport:
    grader = job.method.grader
    report = check(
        path,
        job.method.kind,
        tokenizer=tokenizer,
        context=context,
        check_example=None if grader is None else grader.missing,
    )
    if not report.ok:
        raise FileError(report, param)
    reporter.checked(report, param)
    return report


def _supervised(course: _Course, report: FileReport, context: int) -> None:
    job = course.job
    assert report.tokens is not None
    config = course.settings.sft(report.examples, report.tokens, context)
    packed, _ = pack_demonstrations(read_examples(job.training, "supervised"), course.tokenizer, config.row_length)
    course.ends = epoch_ends(config.steps(len(packed)), course.settings.n_epochs)
    held_out = _held_out(course, config.row_length)

    def measure(model: CausalLM) -> dict[str, float]:
        if held_out is None:
            return {}
        result = held_out_loss(model, held_out, rows_at_once=config.rows_at_once, dtype=torch.float32)
        loss, accuracy = result["nats"] / result["tokens"], result["hits"] / result["tokens"]
        return _validation(loss, accuracy)

    course.measure = measure
    sft(
        config,
        course.model,
        packed,
        directory=job.work,
        seed=job.seed,
        accuracy=True,
        on_progress=course.after,
    )
    if job.method.forecast and held_out is not None:
        _forecast(course, report, context, held_out)


def _forecast(course: _Course, report: FileReport, context: int, held_out: Packed) -> None:
    """Trains on 1/8, 1/4 and 1/2 of the examples too, in ways of their own as "auto" has them, and says what twice as
    many would bring. The error is the share of the validation file's tokens that are not the likeliest."""
    job, reporter = course.job, course.reporter
    demonstrations = list(read_examples(job.training, "supervised"))
    order = np.random.default_rng(job.seed).permutation(len(demonstrations))
    tested = int(held_out.supervised.sum())
    measured = []
    for size in subset_sizes(len(demonstrations)):
        if size == len(demonstrations):
            model = course.model
        else:
            part = [demonstrations[i] for i in order[:size]]
            model, _ = open_model(job.base, CausalLM)
            _learn_part(course, model, part, report, context)
        right = held_out_loss(model.eval(), held_out, rows_at_once=1, dtype=torch.float32)["hits"]
        measured.append(Measured.binomial(size, tested - right, tested))
    reporter.forecast(Forecast.fit(measured, target=None, seed=job.seed))


def _learn_part(
    course: _Course, model: CausalLM, part: Sequence[Demonstration], report: FileReport, context: int
) -> None:
    job = course.job
    assert report.tokens is not None
    settings = resolve(
        job.method.hyperparameters,
        "supervised",
        examples=len(part),
        trained_tokens=max(1, report.tokens.trained * len(part) // report.examples),
        hidden_size=model.config.hidden_size,
    )
    tokens = replace(
        report.tokens,
        prompt=report.tokens.prompt * len(part) // report.examples,
        trained=max(1, report.tokens.trained * len(part) // report.examples),
    )
    config = settings.sft(len(part), tokens, context)
    packed, _ = pack_demonstrations(part, course.tokenizer, config.row_length)
    sft(
        config,
        model,
        packed,
        directory=job.work / f"part-{len(part)}",
        seed=job.seed,
        on_progress=lambda _: course.reporter.alive(),
    )


def _held_out(course: _Course, row_length: int) -> Packed | None:
    if course.job.validation is None:
        return None
    try:
        return pack_demonstrations(read_examples(course.job.validation, "supervised"), course.tokenizer, row_length)[0]
    except InputError:
        course.reporter.note("no example of the validation file is short enough to be measured on")
        return None


def _preference(course: _Course, report: FileReport, context: int) -> None:
    job = course.job
    assert report.tokens is not None
    asked = job.method.hyperparameters
    beta = asked.beta if isinstance(asked, DPOHyperparameters) and asked.beta != "auto" else 0.1
    config = course.settings.dpo(report.tokens, context, float(beta))
    encoded, _ = encode_preferences(read_examples(job.training, "preference"), course.tokenizer, config.row_length)
    course.ends = epoch_ends(config.steps(len(encoded)), course.settings.n_epochs)
    held_out: list[EncodedPreferences] = []
    if job.validation is not None:
        held_out, _ = encode_preferences(
            read_examples(job.validation, "preference"), course.tokenizer, config.row_length
        )
    dpo(
        config,
        course.model,
        encoded,
        directory=job.work,
        seed=job.seed,
        held_out=held_out,
        on_progress=course.after,
    )


ANSWERS = 8
"""That are sampled to each prompt, times `compute_multiplier`."""


def _reinforcement(course: _Course, report: FileReport, context: int) -> None:
    job, settings = course.job, course.settings
    assert report.tokens is not None
    grader = job.method.grader
    assert grader is not None
    asked = job.method.hyperparameters
    times = asked.compute_multiplier if isinstance(asked, ReinforcementHyperparameters) else "auto"
    answers = max(2, round(ANSWERS * (1.0 if times == "auto" else float(times))))
    room = min(context, report.tokens.longest + 256 + 1)
    longest = max(16, min(256, room - report.tokens.longest - 1))
    rollouts = -(-report.examples * settings.n_epochs // settings.batch_size)
    config = GRPOConfig(
        rollouts=rollouts,
        prompts_per_rollout=settings.batch_size,
        samples_per_prompt=answers,
        answers_at_once=min(settings.batch_size * answers, 32),
        max_tokens=longest,
        row_length=room,
        optimizer=settings.optimizer(),
        lora=settings.lora,
    )
    questions = encode_prompts(
        read_examples(job.training, "reinforcement"), course.tokenizer, room - longest - 1, "training_file"
    )
    course.ends = epoch_ends(rollouts * config.updates_per_rollout, settings.n_epochs)
    grpo(
        config,
        course.model,
        reward=GraderReward(grader, job.ask),
        tokenizer=course.tokenizer,
        questions=questions,
        directory=job.work,
        seed=job.seed,
        on_progress=course.after,
    )


def epoch_ends(steps: int, epochs: int) -> list[int]:
    """After which of so many steps an epoch is over, each step once; the last one is the end."""
    return sorted({max(1, round(steps * (epoch + 1) / epochs)) for epoch in range(epochs)})


def _validation(loss: float, accuracy: float) -> dict[str, float]:
    """The whole file is measured each time, so that both of OpenAI's kinds of numbers are the same."""
    return {
        "valid_loss": loss,
        "valid_mean_token_accuracy": accuracy,
        "full_valid_loss": loss,
        "full_valid_mean_token_accuracy": accuracy,
    }


def _renamed(metrics: dict[str, float]) -> dict[str, float]:
    found = {theirs: metrics[ours] for theirs, ours in PAIRS.items() if ours in metrics}
    if "held_out_accuracy" in metrics:
        found["valid_pair_accuracy"] = metrics["held_out_accuracy"]
    return found


def context_of(base: Path) -> int:
    """How many tokens a model reads; an adapter's base says it. Raises InputError."""
    whole = fetch_bases(base, download=False)[-1] if is_adapter(base) else base
    config = ModelConfig.from_hugging_face(read_object(whole / "config.json"), where=str(whole))
    return config.max_positions


def _results(job: Job, ends: Sequence[int]) -> bytes:
    """OpenAI's result file: a line a step, blank where nothing was measured."""
    measured = {step: read_object(job.checkpoint(step) / "chatwheel.json").get("metrics", {}) for step in ends}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = GRADED if job.method.kind == "reinforcement" else ()
    writer.writerow((*COLUMNS, *more))
    for row in read_metrics(job.work):
        step = int(row["step"]) + 1
        found = measured.get(step, {})
        values = [row.get("loss"), row.get("accuracy"), found.get("valid_loss"), found.get("valid_mean_token_accuracy")]
        values += [row.get(PAIRS[name]) for name in more]
        writer.writerow([step, *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue().encode()
