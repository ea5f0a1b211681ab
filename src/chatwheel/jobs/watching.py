"""What a run leaves for those who watch it: the machine's peak, the prompts that are sampled, how to go on with it."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch

from chatwheel.data.records import Demonstration, Document, Message, Prompt, Ranking, Rating, read_records
from chatwheel.data.world import SHOWCASE
from chatwheel.errors import ChatwheelError
from chatwheel.jobs.recipe import WorldData
from chatwheel.jobs.run import Run
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.training.distributed import ranks, wait_for_all
from chatwheel.training.precision import Precision, compute_dtype, training_device
from chatwheel.training.reward import answered
from chatwheel.training.samples import FixedPrompt, Watch
from chatwheel.training.throughput import matrix_peak

NUM_PROMPTS = 5
OPENING = 12
"""Tokens of a document that a base model goes on from."""


def showcase(run: Run, tokenizer: Tokenizer, longest: int) -> list[Sequence[Message]]:
    """Five prompts that no stage trained on, of at most so many tokens."""
    data = run.recipe.data
    if isinstance(data, WorldData):
        return [item.messages for item in SHOWCASE if item.language in data.languages]
    path = run.data("demonstrations.held_out")
    held_out = read_records(path, Demonstration) if path.is_file() else ()
    asked = (Prompt(messages=d.messages[:1]).messages for d in held_out if d.messages[0].role == "user")
    judged: list[tuple[Path, type[Prompt]]] = [
        (path, kind)
        for name, kind in (("rankings.held_out", Ranking), ("ratings.held_out", Rating))
        if (path := run.data(name)).is_file()
    ]
    # Where nothing is demonstrated, what was judged.
    questions = chain(asked, (prompt.messages for path, kind in judged for prompt in read_records(path, kind)))
    fitting = (q for q in questions if len(tokenizer.encode_prompt([m.model_dump() for m in q])) <= longest)
    return list(islice(fitting, NUM_PROMPTS))


def watch_pretraining(run: Run, tokenizer: Tokenizer, precision: Precision) -> Watch:
    """Openings of documents, those held out if there are some; sampled, since a young model's greedy text repeats."""
    prompts = _prompts(lambda: _openings(run, tokenizer))
    return Watch(peak=_peak(run, precision), tokenizer=tokenizer, prompts=prompts, temperature=0.7)


def _openings(run: Run, tokenizer: Tokenizer) -> Iterator[FixedPrompt]:
    held_out = run.data("documents.held_out")
    path = held_out if held_out.is_file() and held_out.stat().st_size else run.data("documents")
    for document in islice(read_records(path, Document), NUM_PROMPTS):
        ids = tokenizer.encode(tokenizer.template.without_special_tokens(document.text[:1000]))[:OPENING]
        while ids and tokenizer.decode(ids).endswith("\ufffd"):  # in the middle of a character
            ids.pop()
        yield FixedPrompt(text=tokenizer.decode(ids), ids=(tokenizer.end_of_text_id, *ids))


def watch_answers(run: Run, tokenizer: Tokenizer, precision: Precision, longest: int) -> Watch:
    """The showcase's prompts, answered greedily."""

    def questions() -> Iterator[FixedPrompt]:
        for messages in showcase(run, tokenizer, longest):
            ids = tokenizer.encode_prompt([m.model_dump() for m in messages])
            yield FixedPrompt(text=_shown(messages), ids=tuple(ids))

    return Watch(peak=_peak(run, precision), tokenizer=tokenizer, prompts=_prompts(questions))


def watch_rewards(run: Run, tokenizer: Tokenizer, precision: Precision, longest: int) -> Watch:
    """The best and the worst answer of a few rankings, those held out if there are some."""
    prompts = _prompts(lambda: _judged_pairs(run, tokenizer, longest))
    return Watch(peak=_peak(run, precision), prompts=prompts)


def _judged_pairs(run: Run, tokenizer: Tokenizer, longest: int) -> Iterator[FixedPrompt]:
    num_pairs = 0
    paths = [p for p in (run.data("rankings.held_out"), run.data("rankings")) if p.is_file()]
    for ranking in (r for path in paths for r in read_records(path, Ranking)):
        order = sorted(range(len(ranking.answers)), key=lambda i: ranking.ranks[i])
        if ranking.ranks[order[0]] == ranking.ranks[order[-1]]:
            continue
        pair = [
            FixedPrompt(
                text=_shown(ranking.messages),
                ids=tuple(tokenizer.encode_conversation(answered(ranking, ranking.answers[i]))[0]),
                answer=ranking.answers[i],
            )
            for i in (order[0], order[-1])
        ]
        if max(len(p.ids) for p in pair) <= longest:
            yield from pair
            num_pairs += 1
        if num_pairs == NUM_PROMPTS:
            return


def _shown(messages: Sequence[Message]) -> str:
    """A conversation as people read it, the assistant's turns behind a dash."""
    return "\n".join(f"— {m.content}" if m.role == "assistant" else m.content for m in messages)


def _prompts(make: Callable[[], Iterable[FixedPrompt]]) -> tuple[FixedPrompt, ...]:
    """Of the process that samples; none where they cannot be made: nothing here is worth a run."""
    if not ranks().first:
        return ()
    try:
        return tuple(make())
    except Exception:
        return ()


def _peak(run: Run, precision: Precision) -> float:
    """What this machine reaches, measured once a run and kept in `peak.json`; all processes must ask for it."""
    device = training_device().type
    dtype = compute_dtype(precision, device)
    where = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
    name = f"{str(dtype).removeprefix('torch.')}, {where}"
    wait_for_all()  # nobody computes beside it
    peak = 0.0
    if ranks().first:
        known = _known_peaks(run)
        if name not in known:
            known[name] = matrix_peak(dtype, device=device)
            run.write_json("peak.json", known)
        peak = known[name]
    wait_for_all()
    return peak


def _known_peaks(run: Run) -> dict[str, float]:
    try:
        values = run.read_json("peak.json")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return {}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float) and value > 0}


@dataclass(frozen=True)
class Command:
    """What goes on with a run: words for a shell, in a directory."""

    text: str
    directory: str

    @staticmethod
    def given(arguments: Sequence[str]) -> Command:
        """This process's, from the arguments of `chatwheel`."""
        program = ["chatwheel"]
        if "TORCHELASTIC_RUN_ID" in os.environ:
            processes, machine = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
            machines = ["--nnodes", str(processes // machine)] if processes > machine else []
            program = ["torchrun", *machines, "--nproc-per-node", str(machine), "-m", "chatwheel"]
        text = shlex.join([*program, *(a for a in arguments if a != "--no-resume")])
        return Command(text, str(Path.cwd()))


@contextmanager
def noted(run: Run, command: Command | None) -> Iterator[None]:
    """Keeps in `command.json` which command goes on with the run, and at the end of the block, unless that is an error,
    when it ended. None notes nothing."""
    if command is None or not ranks().first:
        yield
        return
    note = {"command": command.text, "directory": command.directory, "began": round(time.time(), 1)}
    with suppress(ChatwheelError):  # where the disk is full, the run itself will say so
        run.write_json("command.json", note)
    yield
    with suppress(ChatwheelError):
        run.write_json("command.json", {**note, "ended": round(time.time(), 1)})
