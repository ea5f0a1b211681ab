"""What the statistics of feedback cost and how often they err, on simulated labellers (docs/LOG.md).

PYTHONPATH=. python docs/feedback_figures.py, from the project's root; some minutes.
"""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
from tests.feedback.simulated import Simulated, crew, rankings

from chatwheel.feedback.agreement import ranking_agreement
from chatwheel.feedback.arena import Battle, rate_models
from chatwheel.feedback.dawid_skene import Label, dawid_skene
from chatwheel.feedback.judgements import Comparisons
from chatwheel.feedback.labeller_report import report
from chatwheel.feedback.labellers import fit_labellers
from chatwheel.feedback.merging import merge, trust
from chatwheel.feedback.sequential import FallingRatings

EXPECTED = {"long": "biased", "upper": "biased", "contrary": "adversarial", "random": "random"}


def naming(seeds: int, **size: int) -> None:
    """How often the biased, contrary and random ones of twelve are named, and honest ones accused."""
    named, accused, honest, comparisons = Counter[str](), 0, 0, 0
    right = Counter[str]()
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        found, worth = rankings(crew(rng), rng, **size)
        model = fit_labellers(Comparisons.of(found))
        reports = report(model)
        for one in reports:
            expected = EXPECTED.get(one.labeller, "ok")
            named[one.labeller] += expected != "ok" and one.verdict == expected
            honest += expected == "ok"
            accused += expected == "ok" and one.verdict != "ok"
            comparisons += one.n
        for name, merged in (("labellers known", merge(found, trust(model, reports))), ("all alike", merge(found))):
            for one, (i, j) in ((m, pair) for m in merged for pair in m.pairs()):
                right[name, "pairs"] += 1
                right[name, "right"] += worth[one.answers[i]] > worth[one.answers[j]]
    print(size, f"{comparisons / seeds / 12:.0f} comparisons each; accused: {accused} of {honest} honest ones; named:")
    print("  ", {name: f"{named[name]} of {seeds}" for name in EXPECTED})
    for name in ("labellers known", "all alike"):
        pairs = right[name, "pairs"]
        print(f"   merged, {name}: {pairs / seeds:.0f} pairs a crew, {right[name, 'right'] / pairs:.1%} right")


def false_alarms(seeds: int) -> None:
    crews = people = 0
    for seed in range(seeds):
        rng = np.random.default_rng(1000 + seed)
        ten = [Simulated(f"h{i}", beta=float(rng.uniform(0.8, 2.5))) for i in range(10)]
        wrong = [r.verdict for r in report(fit_labellers(Comparisons.of(rankings(ten, rng, prompts=150, each=4)[0])))]
        people += sum(v != "ok" for v in wrong)
        crews += any(v != "ok" for v in wrong)
    print(f"ten honest labellers, 60 comparisons each: {crews} of {seeds} crews with a false alarm, {people} people")


def rollback(runs: int) -> None:
    for old, new, share, most in ((0.8, 0.8, 0.05, 3000), (0.8, 0.7, 0.05, 6000), (0.8, 0.6, 0.05, 6000),
                                  (0.8, 0.4, 0.05, 6000), (0.8, 0.8, 0.5, 3000), (0.8, 0.6, 0.5, 3000)):  # fmt: skip
        when = []
        for seed in range(runs):
            rng, test = np.random.default_rng(seed), FallingRatings()
            arms, thumbs = rng.random(most) < share, rng.random(most)
            for i, is_new in enumerate(arms):
                if test.add("new" if is_new else "old", float(thumbs[i] < (new if is_new else old))):
                    when.append(int(arms[: i + 1].sum()))
                    break
        median = f"{np.median(when):.0f}" if when else "-"
        print(
            f"up {old:.0%} -> {new:.0%}, {share:.0%} of {most}: alarm in {len(when)} of {runs}, median {median} of new"
        )


def seconds() -> None:
    rng = np.random.default_rng(0)
    found, _ = rankings([Simulated(f"h{i}") for i in range(50)], rng, prompts=2500, each=4)
    timed("10,000 pairs, 50 labellers: comparisons", lambda: Comparisons.of(found))
    comparisons = Comparisons.of(found)
    timed("  fit, errors, report", lambda: report(fit_labellers(comparisons)))
    model = fit_labellers(comparisons)
    timed("  merge", lambda: merge(found, trust(model, report(model))))
    timed("  agreement, 1,000 draws", lambda: ranking_agreement(comparisons))
    labels = [
        Label(item=str(i), labeller=str(k), label=int(rng.random() < (0.8 if i % 2 else 0.2)))
        for i in range(20_000)
        for k in rng.permutation(50)[:5]
    ]
    timed("Dawid-Skene, 100,000 labels, 50 labellers", lambda: dawid_skene(labels))
    battles = []
    for i in range(20_000):
        one, other = (int(m) for m in rng.permutation(30)[:2])
        left = rng.random() < 1 / (1 + math.exp((other - one) / 10))
        battles.append(
            Battle(left=f"m{one}", right=f"m{other}", outcome="left" if left else "right", prompt=str(i // 2))
        )
    timed("arena, 20,000 battles, 30 models, sandwich", lambda: rate_models(battles))
    test = FallingRatings()
    timed("sequential test, 10,000 ratings", lambda: [test.add(("old", "new")[i % 2], 1.0) for i in range(10_000)])


def timed(name: str, call) -> None:
    times = []
    for _ in range(3):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    print(f"{name}: {min(times):.2f} s of a core")


if __name__ == "__main__":
    naming(20, prompts=900, each=4)
    naming(20, prompts=450, each=4)
    naming(20, prompts=250, answers=4, each=4)
    false_alarms(100)
    rollback(200)
    seconds()
