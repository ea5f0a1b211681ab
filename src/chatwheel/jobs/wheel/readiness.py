"""Whether what people said is enough for a turn of the wheel: how much there is, whether they agree, whether it is
about what is asked, and whether more would help much."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.atomic import write_atomically
from chatwheel.data.records import Ranking
from chatwheel.errors import InputError
from chatwheel.evaluation.forecast import Forecast, percent
from chatwheel.feedback.agreement import ranking_agreement
from chatwheel.feedback.judgements import Comparisons
from chatwheel.feedback.room.reading import judged_tasks, rankings_of
from chatwheel.jobs.wheel.gathering import Arrived, Gathered, arrived, gather
from chatwheel.jobs.wheel.material import Material, divide
from chatwheel.jobs.wheel.state import turn_files
from chatwheel.settings import Settings
from chatwheel.store.registry import ModelEntry
from chatwheel.store.tables import ConversationRow, LabellingQueueRow, MessageRow, UserRow

ItemName = Literal["rankings", "demonstrations", "agreement", "coverage", "forecast"]
ENOUGH_RANKINGS = 600
"""To learn from: with 371 the judge of the first rehearsal could not be told from chance (docs/LOG.md)."""
LEAST_AGREEMENT = 0.2
"""Krippendorff's alpha of rankings: below it labellers hardly agree, and nothing can be learnt from what they say."""
LEAST_COVERAGE = 0.5
LIKE = 0.3
"""The cosine from which on a question is like another one."""
GAIN = 0.02
"""Of the error: where twice the rankings would take less away, there are enough."""
MOST_QUESTIONS = 500
FEATURES = 4096


@dataclass(frozen=True)
class Item:
    """ok: None where it is not known. least: that is enough; of `forecast`, the most that more may still bring.
    details: the other numbers in the words."""

    name: ItemName
    ok: bool | None
    value: float | None
    least: float | None
    words: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Readiness:
    """What came in, what a turn would learn from, and whether that is enough."""

    since: dict[str, Any]
    arrived: dict[str, dict[str, int]]
    days: list[dict[str, Any]]
    material: Material
    items: list[Item]

    @property
    def ready(self) -> bool:
        """Nothing speaks against it."""
        return all(item.ok is not False for item in self.items)

    @property
    def words(self) -> str:
        """In a sentence."""
        missing = [item.words for item in self.items if item.ok is False]
        return f"not enough yet: {'; '.join(missing)}" if missing else "enough for a turn of the wheel"

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        values = asdict(self)
        readiness = {"ready": self.ready, "words": self.words, "items": values.pop("items")}
        return values | {"material": self.material.to_json(), "readiness": readiness}


def look(settings: Settings, session: Session, gathered: Gathered | None = None) -> Readiness:
    """Reads what there is. gathered: what `gather` gave, if it was read already."""
    found = gathered or gather(session)
    turns = turn_files(settings.runs)
    last = turns[0] if turns else None
    at: float | None = last.begun.get("begun_at") if last else None
    came: Arrived = arrived(session)
    material, _ = divide(found.corrections, found.rankings, found.ratings)
    items = [
        _count("rankings", material.rankings, ENOUGH_RANKINGS, "rankings to learn from"),
        _count("demonstrations", material.demonstrations, 1, "corrections and preferred answers to imitate"),
        _agreement(session),
        _coverage(session, found.rankings),
        _forecast(kept_forecast(settings), material),
    ]
    since = {"turn": last.name if last else None, "at": at}
    return Readiness(since, came.counts(at), came.days(), material, items)


def make_forecast(settings: Settings, entry: ModelEntry, rankings: Sequence[Ranking]) -> dict[str, Any]:
    """What twice as many rankings would bring to the model; keeps it for whoever looks later. Raises InputError."""
    from chatwheel.jobs.wheel.doubling import digest, forecast_rankings

    found = forecast_rankings(entry, rankings, settings.home / "wheel" / "features")
    values = {"model": entry.name, "digest": digest(rankings), "made_at": time.time(), "forecast": found.to_json()}
    _kept(settings).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_kept(settings), [json.dumps(values, ensure_ascii=False).encode()], mode=0o600)
    return values


def kept_forecast(settings: Settings) -> dict[str, Any] | None:
    """The last one that was made (`make_forecast`)."""
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(_kept(settings).read_text(encoding="utf-8"))
        return found
    return None


def _kept(settings: Settings) -> Path:
    return settings.home / "wheel" / "forecast.json"


def _count(name: ItemName, value: int, least: int, what: str) -> Item:
    enough = value >= least
    return Item(name, enough, value, least, f"{value:,} {what}" + ("" if enough else f"; {least:,} are enough"))


def _agreement(session: Session) -> Item:
    """Of all rankings of the room that two or more have made."""
    queues = session.scalars(select(LabellingQueueRow).where(LabellingQueueRow.kind == "rank"))
    rankings = [one for queue in queues for one in rankings_of(judged_tasks(session, queue))]
    try:
        found = ranking_agreement(Comparisons.of(rankings))
    except InputError:
        return Item("agreement", None, None, LEAST_AGREEMENT, "no two people have ranked the same answers")
    if math.isnan(found.alpha):
        return Item("agreement", None, None, LEAST_AGREEMENT, "everybody ranked everything the same")
    ok = found.alpha >= LEAST_AGREEMENT
    low, high = found.interval
    words = f"labellers agree with an alpha of {found.alpha:.2f} ({low:.2f} to {high:.2f})"
    words += "" if ok else "; read the guidelines"
    details = {"interval": [round(low, 4), round(high, 4)]}
    return Item("agreement", ok, round(found.alpha, 4), LEAST_AGREEMENT, words, details)


def _coverage(session: Session, rankings: Sequence[Ranking]) -> Item:
    """Of the questions that people asked last, how many are like one whose answers were ranked."""
    query = (
        select(MessageRow.content)
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .join(UserRow, UserRow.id == ConversationRow.user_id)
        .where(MessageRow.role == "user", MessageRow.parent_id.is_(None))
        .where(UserRow.improve_since <= ConversationRow.created_at, ConversationRow.deleted_at.is_(None))
        .order_by(MessageRow.created_at.desc())
        .limit(MOST_QUESTIONS)
    )
    asked = list(session.scalars(query))
    ranked = list({ranking.messages[0].content for ranking in rankings})
    if not asked or not ranked:
        why = "nobody who agreed has asked anything yet" if ranked else "nothing was ranked yet"
        return Item("coverage", None, None, LEAST_COVERAGE, why)
    share = covered(asked, ranked)
    ok = share >= LEAST_COVERAGE
    words = f"{percent(share)} of the {len(asked):,} questions asked last are like one that was ranked"
    words += "" if ok else "; let the others be ranked too"
    return Item("coverage", ok, round(share, 4), LEAST_COVERAGE, words, {"questions": len(asked)})


def covered(asked: Sequence[str], ranked: Sequence[str]) -> float:
    """The share of `asked` with a neighbour in `ranked`: a cosine of LIKE between their character trigrams, those that
    many questions have counting less (tf-idf). It knows words, not meanings."""
    texts = [*asked, *ranked]
    counts = np.zeros((len(texts), FEATURES), dtype=np.float32)
    for row, text in enumerate(texts):
        for feature in _trigrams(text):
            counts[row, feature] += 1
    counts *= np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
    nearest: NDArray[np.float32] = (counts[: len(asked)] @ counts[len(asked) :].T).max(axis=1)
    return float((nearest >= LIKE).mean())


def _trigrams(text: str) -> Iterable[int]:
    padded = f" {' '.join(text.casefold().split())[:2000]} "
    return (zlib.crc32(padded[i : i + 3].encode("utf-8", "replace")) % FEATURES for i in range(len(padded) - 2))


def _forecast(kept: dict[str, Any] | None, material: Material) -> Item:
    if kept is None:
        return Item("forecast", None, None, GAIN, "nobody has made a forecast of what more rankings would bring")
    found = Forecast.from_json(kept["forecast"])
    gain = max(0.0, found.error - found.forecast)
    words = f"the forecast from {found.examples:,} rankings: {found.sentence.partition(';')[0]}"
    old = material.rankings >= 2 * found.examples
    details = {
        "rankings": found.examples,
        "error": round(found.error, 4),
        "doubled": round(found.forecast, 4),
        "interval": [round(end, 4) for end in found.forecast_interval],
        "old": old,
    }
    if old:
        words += "; twice as many have come in since, make it anew"
    return Item("forecast", None if old else gain <= GAIN, round(gain, 4), GAIN, words, details)
