"""Whether the judge at the gate can be believed: what people have said in other ways must not speak against it.

    corrections    what somebody wrote is better than the answer that they corrected
    thumbs         an answer that was rated up is better than one that was rated down
    earlier        rankings that the run before all turns has held out

The judge has learnt from rankings. Where those are wrong as a whole, as when somebody who labels takes 1 for the worst
place, it agrees with the held-out ones all the same, and would praise a worse model. Who corrects answers or rates them
does something else at another place: such a mistake is not made in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from chatwheel.data.records import Ranking, Rating, Record, read_records
from chatwheel.feedback.significance import NORMAL, Interval, mean_interval, share_interval
from chatwheel.jobs.wheel.judge import Judge, told_right
from chatwheel.jobs.wheel.recipe import run_before_turns
from chatwheel.settings import Settings

RecordT = TypeVar("RecordT", bound=Record)
WitnessName = Literal["corrections", "thumbs", "earlier"]
LEAST, MOST = 20, 400
"""Cases from which on a witness is believed, and records that are read of each."""
QUANTILE = NORMAL.inv_cdf(0.975)


@dataclass(frozen=True)
class Witness:
    """rate: how often the judge says the same, 0.5 being chance; interval: of 95 %; cases: independent ones."""

    name: WitnessName
    rate: float
    interval: Interval
    cases: int
    words: str

    @property
    def contradicts(self) -> bool:
        """Certainly, and not in a handful of cases, which may be one person's."""
        return self.interval[1] < 0.5 and self.cases >= LEAST


def hear(judge: Judge, material: Path, earlier: Path | None) -> list[Witness]:
    """All that there are. material: a turn's directory of it; earlier: a file of rankings."""
    corrected = _of_rankings("corrections", judge, _read(material / "corrected.jsonl", Ranking))
    thumbs = _of_thumbs(judge, _read(material / "ratings.jsonl", Rating))
    before = _of_rankings("earlier", judge, _read(earlier, Ranking) if earlier is not None else ())
    return [witness for witness in (corrected, thumbs, before) if witness is not None]


def earlier_rankings(settings: Settings, lineage: dict[str, Any]) -> Path | None:
    """What the run before all turns has held out to test its reward model (`run_before_turns`); None where there is
    nothing."""
    run = run_before_turns(settings, lineage)
    path = run / "data" / "rankings.held_out.jsonl" if run is not None else None
    return path if path is not None and path.is_file() else None


def _of_rankings(name: WitnessName, judge: Judge, rankings: Iterable[Ranking]) -> Witness | None:
    """Each ranking is one case, however many pairs it has: those depend on each other."""
    shares = told_right(judge, rankings)
    if not shares:
        return None
    rate, interval = sum(shares) / len(shares), mean_interval(shares)
    what = {
        "corrections": f"{len(shares):,} answers that people corrected, it puts the correction first in",
        "earlier": f"{len(shares):,} rankings that the current model was made beside, it tells pairs right in",
    }[name]
    return Witness(name, rate, interval, len(shares), f"{what} {_percent(rate)} ({_range(interval)})")


def _of_thumbs(judge: Judge, ratings: Iterable[Rating]) -> Witness | None:
    """Of one rated up and one rated down, drawn anew from all: how often that which was rated up has the higher score,
    which is Mann and Whitney's statistic. Its variance is at most that of a share among as many independent pairs as
    there are of the rarer kind (Birnbaum and Klose, 1957, "Bounds for the variance of the Mann-Whitney statistic")."""
    found = list(ratings)
    up = np.array([rating.rating > 0 for rating in found], dtype=bool)
    ups = int(up.sum())
    downs = len(found) - ups
    if not ups or not downs:
        return None
    scores = judge([rating.messages for rating in found], [rating.answer for rating in found])
    _, places, counts = np.unique(np.array(scores), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    rate = (float(ranks[up].sum()) - ups * (ups + 1) / 2) / (ups * downs)
    interval = share_interval(rate, min(ups, downs), QUANTILE)
    words = f"{ups:,} answers rated up and {downs:,} rated down, it puts one rated up first in {_percent(rate)}"
    return Witness("thumbs", rate, interval, min(ups, downs), f"{words} ({_range(interval)})")


def _read(path: Path, kind: type[RecordT]) -> Iterator[RecordT]:
    return islice(read_records(path, kind), MOST) if path.is_file() else iter(())


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _range(interval: Interval) -> str:
    return f"{interval[0] * 100:.0f} to {interval[1] * 100:.0f} %"
