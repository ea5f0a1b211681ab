"""Labellers whose truth is known: they see the worth of answers, and some of them see other things too.

Labeller l prefers one of two answers with the log-odds beta (s_one - s_other) + habits; as rankings of K, by Gumbel
noise on every answer's utility (Plackett and Luce), places within `tie` of each other being ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatwheel.feedback.judgements import RankedBy

ENGLISH = ("river", "stone", "cloud", "garden", "window", "paper", "silver", "music")
CHINESE = "山水云雨风花鸟鱼石木日月"


@dataclass(frozen=True)
class Simulated:
    """length: nats a doubling of the words; position: nats from the last place to the first; exclaimed: for a mark."""

    name: str
    beta: float = 1.5
    length: float = 0.0
    position: float = 0.0
    exclaimed: float = 0.0
    tie: float = 0.15


def crew(rng: np.random.Generator) -> list[Simulated]:
    """Twelve: eight honest ones of different acuity, three biased or adversarial, one random."""
    honest = [Simulated(f"honest {i}", beta=float(rng.uniform(1.0, 2.5)), tie=rng.uniform(0, 0.3)) for i in range(8)]
    return [
        *honest,
        Simulated("long", length=2.0),
        Simulated("upper", position=2.0),
        Simulated("contrary", beta=-1.5),
        Simulated("random", beta=0.0),
    ]


def answer(rng: np.random.Generator, words: int, chinese: bool, number: int) -> str:
    if chinese:
        return (
            "".join(rng.choice(list(CHINESE), int(words * 1.6))) + f"{number}" + ("！" if rng.random() < 0.3 else "。")
        )
    return " ".join(rng.choice(ENGLISH, words)) + f" {number}" + ("!" if rng.random() < 0.3 else ".")


def rankings(
    people: list[Simulated], rng: np.random.Generator, *, prompts: int = 300, answers: int = 2, each: int = 3
) -> tuple[list[RankedBy], dict[str, float]]:
    """`each` labellers rank `answers` answers to each prompt, half of them in Chinese; and the worth of every answer,
    to which its length adds (long answers are better, on average)."""
    found, worth = [], {}
    for p in range(prompts):
        texts, s = [], []
        for k in range(answers):
            words = int(2 ** rng.uniform(2, 6))
            texts.append(answer(rng, words, p % 2 == 1, p * answers + k))
            s.append(rng.normal() + 0.3 * (np.log2(words) - 4))
            worth[texts[-1]] = s[-1]
        for number in rng.permutation(len(people))[:each]:
            found.append(judged(people[number], f"question {p}", texts, np.array(s), rng))
    return found, worth


def judged(who: Simulated, prompt: str, texts: list[str], s: np.ndarray, rng: np.random.Generator) -> RankedBy:
    shown = rng.permutation(len(texts)) + 1
    doublings = np.array([np.log2(1 + len(t.split()) if " " in t else 1 + len(t) / 1.6) for t in texts])
    marks = np.array(["!" in t or "！" in t for t in texts], dtype=float)
    habits = who.length * doublings - who.position * shown / (len(texts) - 1) + who.exclaimed * marks
    utility = who.beta * s + habits + rng.gumbel(size=len(texts))
    order = np.argsort(-utility)
    ranks, place = np.empty(len(texts), dtype=int), 1
    for previous, now in zip([order[0], *order], order, strict=False):
        place += int(utility[previous] - utility[now] > who.tie)
        ranks[now] = place
    mixed = rng.permutation(len(texts))
    return RankedBy.model_validate(
        {
            "messages": [{"role": "user", "content": prompt}],
            "answers": [texts[i] for i in mixed],
            "ranks": [int(ranks[i]) for i in mixed],
            "shown": [int(shown[i]) for i in mixed],
            "labeller": who.name,
        }
    )
