"""What a turn of the wheel learns from: everything that people have said and agreed to give, in files of its own.

    demonstrations.jsonl    corrections, and answers that people preferred or rated up
    rankings.jsonl          for the reward model
    judging.jsonl           rankings of other prompts, for the judge at the gate: not the one that PPO pleased
    praised.jsonl           answers that were rated up, which the next model should not lose
    corrected.jsonl         corrections beside what they correct,
    ratings.jsonl           and all ratings: witnesses that the judge must not contradict (witnesses.py)

Which prompts judge depends on their text alone, so that a prompt never goes over to the other side in a later turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from chatwheel.data.records import Conversation, Demonstration, Message, Ranking, Rating, Record, write_jsonl
from chatwheel.data.splits import fraction, key_of

HELD_OUT = 0.1
"""Of the prompts, what nothing learns from: the two models answer them at the gate."""
JUDGING = 0.25
"""Of the prompts, what the judge alone learns from."""


@dataclass(frozen=True)
class Material:
    """How much there is: records of each file, and prompts and people behind them. languages: of the rankings."""

    demonstrations: int
    corrections: int
    rankings: int
    judging: int
    praised: int
    prompts: int
    people: int
    languages: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """All of it."""
        return asdict(self)


def write_material(
    directory: Path,
    *,
    corrections: Sequence[Demonstration],
    rankings: Sequence[Ranking],
    ratings: Sequence[Rating],
) -> Material:
    """Writes the files into `directory`, each whole. Nobody but the owner may read them: they are people's chats."""
    material, files = divide(corrections, rankings, ratings)
    for name, records in files.items():
        write_jsonl(directory / f"{name}.jsonl", (r.model_dump(exclude_none=True) for r in records), mode=0o600)
    return material


def divide(
    corrections: Sequence[Demonstration], rankings: Sequence[Ranking], ratings: Sequence[Rating]
) -> tuple[Material, dict[str, Sequence[Record]]]:
    """How much there is, and the records of each file."""
    learning = [ranking for ranking in rankings if not judges(ranking)]
    praised = [rating for rating in ratings if rating.rating > 0]
    files: dict[str, Sequence[Record]] = {
        "demonstrations": list(_once([*corrections, *_best(learning), *(_said(r, r.answer) for r in praised)])),
        "rankings": learning,
        "judging": [ranking for ranking in rankings if judges(ranking)],
        "praised": praised,
        "corrected": [ranking for ranking in learning if is_correction(ranking)],
        "ratings": ratings,
    }
    everything: list[Conversation] = [*corrections, *rankings, *ratings]
    return (
        Material(
            demonstrations=len(files["demonstrations"]),
            corrections=len(corrections),
            rankings=len(learning),
            judging=len(files["judging"]),
            praised=len(praised),
            prompts=len({key_of(record) for record in everything}),
            people=len({name for record in everything for name in _people(record)}),
            languages=dict(sorted(Counter(ranking.language or "unknown" for ranking in rankings).items())),
        ),
        files,
    )


def judges(ranking: Ranking) -> bool:
    """Whether a ranking is the judge's at the gate. Told from the first question, as `splits.split` does."""
    return HELD_OUT <= _place(ranking) < HELD_OUT + JUDGING


def _place(ranking: Ranking) -> float:
    return fraction(" ".join(key_of(ranking).casefold().split()))


def is_learnt(ranking: Ranking) -> bool:
    """Whether a turn's reward model learns from a ranking: it is neither the judge's nor held out."""
    return _place(ranking) >= HELD_OUT + JUDGING


def is_correction(ranking: Ranking) -> bool:
    """Whether it is of what somebody wrote, and the model's answer that they corrected by it (feedback/export.py)."""
    models = (ranking.model_extra or {}).get("models")
    return ranking.source == "feedback" and isinstance(models, list) and models[:1] == [None]


def _best(rankings: Iterable[Ranking]) -> Iterator[Demonstration]:
    """The answers that came first alone; where people could not tell, nothing is shown as right."""
    for ranking in rankings:
        first = [answer for answer, rank in zip(ranking.answers, ranking.ranks, strict=True) if rank == 1]
        if len(first) == 1 and first[0].strip() and ranking.weight != 0:
            yield _said(ranking, first[0])


def _said(prompt: Ranking | Rating, answer: str) -> Demonstration:
    return Demonstration(
        messages=[*prompt.messages, Message(role="assistant", content=answer)],
        language=prompt.language,
        source=prompt.source,
    )


def _once(demonstrations: Iterable[Demonstration]) -> Iterator[Demonstration]:
    """The first answer to each prompt: corrections come first, and one prompt with two right answers teaches less."""
    seen: set[str] = set()
    for one in demonstrations:
        prompt = "\n".join(f"{m.role} {m.content}" for m in one.messages[:-1])
        if prompt not in seen:
            seen.add(prompt)
            yield one


def _people(record: Conversation) -> list[str]:
    extra = record.model_extra or {}
    names = extra.get("labellers") or [getattr(record, "labeller", None) or extra.get("labeller")]
    return [str(name) for name in names if name]
