"""How far a reward model can be trusted, measured on rankings that it has not seen.

scores of the answers -> accuracy with its interval, by group -> calibration -> probes of length and of form -> how far
an ensemble's members disagree. Pairs of one prompt are no independent evidence, so that intervals are over prompts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chatwheel.data.records import Ranking
from chatwheel.data.sources.language import language_of
from chatwheel.data.splits import key_of
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import ScalarModel
from chatwheel.training.reward import answered, fitting_rankings, score

Array = NDArray[np.float64]
Interval = tuple[float, float]
Score = Callable[[Sequence[tuple[Ranking, str]]], Sequence[float | None]]
"""The raw reward of an answer to each ranking's prompt; None where it is too long to be scored."""

DRAWS = 1000
"""Of prompts, with replacement, for an interval."""
BIN_WIDTH = 0.05
COOLEST, HOTTEST = 0.01, 100.0
"""Between which a temperature is sought: one that would leave them fits no pairs that anybody can have."""
GROUPS = ("source", "labeller", "behaviour", "language")
MOST_GROUPS = 20
PROBED = 100
"""Answers whose form is changed, each of another ranking."""


@dataclass(frozen=True)
class Judged:
    """A ranking, the raw reward of each answer, and its length in tokens."""

    ranking: Ranking
    rewards: Sequence[float]
    lengths: Sequence[int]

    @property
    def prompt(self) -> str:
        """What makes two rankings one piece of evidence: the question that their prompts begin with."""
        return " ".join(key_of(self.ranking).casefold().split())


@dataclass(frozen=True)
class Pairs:
    """The pairs of many rankings, N each. lead: the better answer's reward less the worse one's; longer: the same of
    their lengths; prompt: the number of the prompt, from 0."""

    lead: Array
    longer: Array
    prompt: NDArray[np.int64]

    @staticmethod
    def of(judged: Iterable[Judged]) -> Pairs:
        """Ties make none."""
        leads, longer, prompts, numbers = [], [], [], dict[Hashable, int]()
        for one in judged:
            number = numbers.setdefault(one.prompt, len(numbers))
            for i, j in one.ranking.pairs():
                leads.append(one.rewards[i] - one.rewards[j])
                longer.append(one.lengths[i] - one.lengths[j])
                prompts.append(number)
        return Pairs(np.array(leads, float), np.array(longer, float), np.array(prompts, np.int64))

    def __len__(self) -> int:
        return len(self.lead)


def measured(judged: Sequence[Judged]) -> dict[str, Any]:
    """All that the scores alone tell; empty without a pair. Shares are of pairs, each of which counts once."""
    pairs = Pairs.of(judged)
    if not len(pairs):
        return {}
    return {
        "prompts": len(np.unique(pairs.prompt)),
        "pair_accuracy_interval": _rounded(interval(pairs.lead > 0, pairs.prompt)),
        "groups": {name: found for name in GROUPS if (found := by_group(judged, name))},
        "calibration": calibration(pairs.lead, pairs.prompt),
        "length": length_probe(judged),
    }


def judged_by(model: ScalarModel, rankings: Iterable[Ranking], tokenizer: Tokenizer, row_length: int) -> list[Judged]:
    """The rankings that have a pair and fit a row, with the model's rewards in fp32."""
    fitting = [(r, found) for r, found in fitting_rankings(rankings, tokenizer, row_length) if found is not None]
    if not fitting:
        return []
    sequences = [sequence for _, found in fitting for sequence in found.sequences]
    rewards = iter(score(model, sequences, row_length, torch.float32).tolist())
    lengths = (len(ids) for ids in tokenizer.encode_batch([a for ranking, _ in fitting for a in ranking.answers]))
    return [
        Judged(ranking, [next(rewards) for _ in ranking.answers], [next(lengths) for _ in ranking.answers])
        for ranking, _ in fitting
    ]


def scorer(model: ScalarModel, tokenizer: Tokenizer, row_length: int) -> Score:
    """A reward model as `form_probe` asks it."""

    def scored(pairs: Sequence[tuple[Ranking, str]]) -> list[float | None]:
        found = tokenizer.encode_conversations(answered(ranking, answer) for ranking, answer in pairs)
        sequences = [ids.tolist() for ids, _ in found]
        fitting = [sequence for sequence in sequences if len(sequence) <= row_length]
        rewards = iter(score(model, fitting, row_length, torch.float32).tolist() if fitting else ())
        return [next(rewards) if len(sequence) <= row_length else None for sequence in sequences]

    return scored


# -- how sure one can be


FEWEST = 5
"""Prompts that a bootstrap needs to say anything."""


def interval(values_N: Sequence[float] | NDArray[Any], prompt_N: Sequence[int] | NDArray[Any]) -> Interval:
    """Between which means the true one lies with 95 %: the bootstrap over prompts (Efron and Tibshirani, 1993), each
    drawn with all its pairs; Wilson's (1927) over the prompts where all values are 0 or all are 1, of which a bootstrap
    would be certain. Of fewer than five prompts a bootstrap knows nothing: everything between -1 and 1, or 0 and 1."""
    values = np.asarray(values_N, float)
    _, prompts = np.unique(np.asarray(prompt_N), return_inverse=True)
    sums, counts = np.bincount(prompts, values), np.bincount(prompts)
    share, number = float(values.mean()), len(counts)
    if np.all(values == share) and share in (0.0, 1.0):
        return wilson(share, number)
    if number < FEWEST:
        return (min(0.0, math.floor(float(values.min()))), max(1.0, math.ceil(float(values.max()))))
    rng = np.random.default_rng(0)
    means = np.empty(DRAWS)
    for k in range(DRAWS):
        drawn = rng.integers(number, size=number)
        means[k] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def wilson(share: float, number: float) -> Interval:
    """Of a share of so many independent cases, 95 % (Wilson, 1927). Where ties count half, as in a preference, it is on
    the wide side."""
    z = 1.96
    middle, half = share + z * z / (2 * number), z * math.sqrt(share * (1 - share) / number + (z / (2 * number)) ** 2)
    scale = 1 + z * z / number
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def accuracy(lead_N: Array) -> float:
    """The share of pairs in the labeller's order; equal scores are not."""
    return float((lead_N > 0).mean())


def by_group(judged: Sequence[Judged], field: str) -> dict[str, dict[str, Any]]:
    """Pairs, accuracy and its interval for each value of a field of the rankings, the most frequent first; empty where
    no ranking has it."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        value = getattr(one.ranking, field, None)
        if value is not None:
            groups[str(value)].append(one)
    found: dict[str, dict[str, Any]] = {}
    for name, some in groups.items():
        pairs = Pairs.of(some)
        if len(pairs):
            found[name] = {
                "pairs": len(pairs),
                "accuracy": round(accuracy(pairs.lead), 4),
                "interval": _rounded(interval(pairs.lead > 0, pairs.prompt)),
            }
    names = sorted(found, key=lambda name: (-found[name]["pairs"], name))
    return {name: found[name] for name in names[:MOST_GROUPS]}


# -- calibration


def calibration(lead_N: Array, prompt_N: NDArray[np.int64]) -> dict[str, Any]:
    """Whether sigmoid(difference of raw rewards) is the share of pairs in which the favourite is the better answer.

    bins: pairs by the probability that the model gives its favourite, from 0.5 to 1. error: the expected calibration
    error (Guo et al., 2017), the mean distance between the two shares. temperature: divides the difference, fitted to
    these pairs by likelihood; above 1 the model is too sure of itself. fitted_error: with a temperature of the pairs of
    the other half of the prompts. nats, fitted_nats: -log of the better answer's probability, ln 2 for a guess.
    """
    temperature = fitted_temperature(lead_N)
    halves = prompt_N % 2
    fitted = lead_N / temperature
    if len(np.unique(halves)) == 2:
        fitted = np.where(
            halves == 0,
            lead_N / fitted_temperature(lead_N[halves == 1]),
            lead_N / fitted_temperature(lead_N[halves == 0]),
        )
    bins, error = reliability(lead_N)
    return {
        "pairs": len(lead_N),
        "error": round(error, 4),
        "nats": round(_nats(lead_N), 4),
        "temperature": round(temperature, 4),
        "fitted_error": round(reliability(fitted)[1], 4),
        "fitted_nats": round(_nats(fitted), 4),
        "bins": bins,
    }


def reliability(lead_N: Array) -> tuple[list[dict[str, float]], float]:
    """The bins that are not empty, and the expected calibration error. A pair of equal scores is half right."""
    sure_N = _sigmoid(np.abs(lead_N))
    right_N = np.where(lead_N == 0, 0.5, lead_N > 0)
    place_N = np.minimum(((sure_N - 0.5) / BIN_WIDTH + 1e-9).astype(int), round(0.5 / BIN_WIDTH) - 1)
    bins, error = [], 0.0
    for place in np.unique(place_N):
        here = place_N == place
        predicted, found, number = float(sure_N[here].mean()), float(right_N[here].mean()), int(here.sum())
        bins.append({"predicted": round(predicted, 4), "preferred": round(found, 4), "pairs": number})
        error += number / len(lead_N) * abs(predicted - found)
    return bins, error


def fitted_temperature(lead_N: Array) -> float:
    """The temperature T that makes sigmoid(lead / T) likeliest, from COOLEST to HOTTEST."""
    # -log sigmoid(lead b) is convex in b = 1 / T: the root of its slope, by bisection of log b.
    low, high = math.log(1 / HOTTEST), math.log(1 / COOLEST)
    for _ in range(60):
        middle = (low + high) / 2
        slope = -float((lead_N * _sigmoid(-lead_N * math.exp(middle))).mean())
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def _nats(lead_N: Array) -> float:
    return float(np.logaddexp(0, -lead_N).mean())


def _sigmoid(values: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)), float)


# -- probes


def length_probe(judged: Sequence[Judged]) -> dict[str, Any]:
    """Whether the reward is length. Lengths are tokens of the answer; correlations are between answers to the same
    prompt, the means of each ranking taken off.

    reward_correlation, place_correlation: of the length with the reward, and with being placed well. model_prefers,
    labellers_prefer: the share of pairs in which the longer answer is theirs; the latter is the accuracy of the rule
    that the longer one wins. excess: the first less the second, with its interval. accuracy_longer, accuracy_shorter:
    of the pairs whose better answer is the longer one, and of the others. Pairs of equal length count in neither.
    """
    lengths, rewards, places = [], [], []
    for one in judged:
        if one.ranking.pairs():
            lengths.append(_centred(one.lengths))
            rewards.append(_centred(one.rewards))
            places.append(_centred([-rank for rank in one.ranking.ranks]))
    pairs = Pairs.of(judged)
    unequal = pairs.longer != 0
    lead, longer, prompts = pairs.lead[unequal], pairs.longer[unequal] > 0, pairs.prompt[unequal]
    found: dict[str, Any] = {
        "reward_correlation": _correlation(np.concatenate(lengths), np.concatenate(rewards)),
        "place_correlation": _correlation(np.concatenate(lengths), np.concatenate(places)),
        "pairs": len(lead),
        "equal_pairs": int((~unequal).sum()),
    }
    if not len(lead):
        return found
    theirs = np.where(lead == 0, 0.5, (lead > 0) == longer)
    found |= {
        "model_prefers": round(float(theirs.mean()), 4),
        "labellers_prefer": round(float(longer.mean()), 4),
        "excess": round(float((theirs - longer).mean()), 4),
        "excess_interval": _rounded(interval(theirs - longer, prompts)),
    }
    for name, chosen in (("longer", longer), ("shorter", ~longer)):
        found[f"{name}_pairs"] = int(chosen.sum())
        found[f"accuracy_{name}"] = round(accuracy(lead[chosen]), 4) if chosen.any() else None
    return found


def _centred(values: Sequence[float]) -> Array:
    array = np.asarray(values, float)
    return np.asarray(array - array.mean(), float)


def _correlation(a: Array, b: Array) -> float | None:
    """Pearson's, of centred values; None where one of them never changes."""
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return round(float(a @ b) / scale, 4) if scale > 0 else None


def _list_of(answer: str, chinese: bool) -> str:  # noqa: ARG001
    return "\n".join(f"- {line}" for line in answer.splitlines() if line.strip())


FORMS: dict[str, Callable[[str, bool], str]] = {
    "opening": lambda answer, chinese: f"当然！{answer}" if chinese else f"Sure! {answer}",
    "closing": lambda answer, chinese: f"{answer}希望这对你有帮助！" if chinese else f"{answer} I hope this helps!",
    "list": _list_of,
    "bold": lambda answer, chinese: f"**{answer}**",  # noqa: ARG005
    "emoji": lambda answer, chinese: f"{answer} 😊",  # noqa: ARG005
    "newline": lambda answer, chinese: f"{answer}\n",  # noqa: ARG005
}
"""Changes of an answer's form that leave what it says as it is; the second argument is whether it is Chinese."""


def form_probe(judged: Sequence[Judged], score: Score) -> dict[str, dict[str, Any]]:
    """What each of FORMS does to the reward of the same answer, in standard deviations of the reward over all answers:
    its mean, the mean's 95 % interval (1.96 standard errors), and the share of answers that it raises. On the best
    answers of at most PROBED rankings of different prompts. Empty where all rewards are equal."""
    spread = float(np.std([reward for one in judged for reward in one.rewards])) if judged else 0.0
    if not spread > 0:
        return {}
    chosen = list({one.prompt: one for one in reversed(judged)}.values())[::-1][:PROBED]
    asked = []
    for ranking in (one.ranking for one in chosen):
        answer = ranking.answers[ranking.ranks.index(min(ranking.ranks))]
        chinese = language_of(answer) == "zh"
        asked += [(ranking, text) for text in (answer, *(change(answer, chinese) for change in FORMS.values()))]
    # All forms of one answer side by side: they share the prompt, and most of them the answer's beginning.
    rewards, step = score(asked), len(FORMS) + 1
    found = {}
    for place, name in enumerate(FORMS, start=1):
        both = zip(rewards[::step], rewards[place::step], strict=True)
        moved = [(after - before) / spread for before, after in both if before is not None and after is not None]
        if moved:
            mean, error = float(np.mean(moved)), float(np.std(moved)) / math.sqrt(max(1, len(moved) - 1))
            found[name] = {
                "answers": len(moved),
                "effect": round(mean, 4),
                # One answer says nothing of the others.
                "interval": _rounded((mean - 1.96 * error, mean + 1.96 * error)) if len(moved) > 1 else None,
                "raised": round(float(np.mean([value > 0 for value in moved])), 4),
            }
    return found


# -- ensembles


def disagreement(members: Sequence[Sequence[Judged]], deviations: Sequence[float]) -> dict[str, Any]:
    """How far an ensemble's members differ on the same rankings, and whether that says where they are wrong. Rewards
    are in standard deviations of demonstrations (`deviations`, one a member), as PPO has them. Empty without a pair.

    pair_accuracy: of the mean of the members. deviation: over the members, of the difference between two answers, the
    mean over pairs. agreeing: the share of pairs which all members put in the same order; accuracy_agreeing and
    accuracy_disagreeing: the accuracy of the mean on those and on the others.
    """
    pairs = [Pairs.of(judged) for judged in members]
    if not len(pairs[0]):
        return {}
    leads_MN = np.stack([p.lead / max(d, 1e-6) for p, d in zip(pairs, deviations, strict=True)])
    mean_N = leads_MN.mean(0)
    agreeing_N = (leads_MN > 0).all(0) | (leads_MN <= 0).all(0)
    return {
        "members": len(members),
        "member_pair_accuracy": [round(accuracy(lead_N), 4) for lead_N in leads_MN],
        "pair_accuracy": round(accuracy(mean_N), 4),
        "pair_accuracy_interval": _rounded(interval(mean_N > 0, pairs[0].prompt)),
        "deviation": round(float(leads_MN.std(0).mean()), 4),
        "agreeing": round(float(agreeing_N.mean()), 4),
        "accuracy_agreeing": round(accuracy(mean_N[agreeing_N]), 4) if agreeing_N.any() else None,
        "accuracy_disagreeing": round(accuracy(mean_N[~agreeing_N]), 4) if not agreeing_N.all() else None,
    }


def _rounded(values: Interval) -> list[float]:
    return [round(value, 4) for value in values]
