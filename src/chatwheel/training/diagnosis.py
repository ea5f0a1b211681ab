"""What looks wrong in a run that learns from its own answers, in words: rules over the rows of its `metrics.jsonl`.

Rows become rollouts (the numbers of a rollout, and the updates that follow it); each rule looks at them and says what
it sees, what to do, and from which step. Causes come before symptoms. Numbers that a row lacks, as older runs do,
silence the rules that need them. Pure Python: the server explains runs without PyTorch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from chatwheel.training.diagnosis_words import WORDS

Level = Literal["warning", "information"]
Language = Literal["en", "zh"]
Row = Mapping[str, float]

# -- thresholds. What a healthy run shows is beside each; they are apart from it by a factor, not by a hair.

GAP = 0.1
"""Nats a token between sampler and trainer. fp32: 1e-6; bfloat16: up to 0.03. A temperature of 0.8 alone makes 0.2."""
SURPRISE, SURPRISE_ERRORS = 0.1, 5.0
"""Nats a token by which samples are likelier than those of the policy, and how many standard errors. Bfloat16: 0.01."""
KL_ERRORS, KL_FLOOR = 3.0, 0.05
"""A KL is below 0 where its estimate is by so many standard errors, and by so many nats an answer (rounding: 1e-5)."""
DRIFT = 0.01
"""Nats a token by which the reference's view of a fixed text may change: of a frozen one it is the rounding, 1e-6."""
HELD = 0.2
"""Of what a policy moves in one rollout, the share below which its distance from a frozen reference cannot stay."""
EQUAL = 1e-6
"""Spread of rewards, relative to their size, below which they are all the same."""
IDLE = 0.8
"""Share of groups, or of rollouts, in which all answers got the same reward, so that nothing was learnt."""
LEAD_ERRORS, LEAD = 3.0, 0.3
"""Standard errors, and standard deviations of the reward, by which first samples are liked better than references."""
NO_END = 0.05
"""Share of answers that end below which none does."""
STEP_KL = 0.1
"""Nats a token that a policy moves within one rollout: healthy are 0.001 to 0.05; clipped losses assume it is small."""
LEAP, ENTROPY_LEAP = 1.0, 1.5
"""The same at once, and in the entropy from one rollout to the next. Of eight short answers the entropy is known within
half a nat."""
CLIPPED = 0.5
"""Share of tokens outside the clip: most learn nothing any more. Healthy are 0.05 to 0.3."""
LONGER, LENGTH_CORRELATION = 1.3, 0.4
"""How much longer answers become, and how much rewards go with length, before the one explains the other."""
EXPLAINED = 0.02
"""Explained variance of a critic that has learnt something; a constant has 0."""
PATIENT, VERY_PATIENT = 8, 30
"""Rollouts that a critic has to learn the mean, and to explain anything beyond it."""
CONSTANT, WORSE, FOLLOWED = 1e-3, -1.0, 0.25
"""Explained variance of a critic that always says the same; of one whose errors are larger than what there is to
explain; and the share of the way from its first values to the returns that a critic has made that learns at all."""
COLLAPSED, CERTAIN = 0.15, 0.1
"""Entropy of what it was at the start, and in nats a token, below which all answers to a prompt are the same."""
REPEATED, MORE_REPEATED = 0.3, 0.2
"""Share of four-token runs that were there before in the same text (prose: below 0.1), and its rise."""
FEWER_END = 0.6
"""Of the answers that ended at the start, the share below which ending is being unlearnt."""
FAR, FAR_A_TOKEN = 30.0, 0.3
"""Nats an answer, and a token of it, beyond which a policy is somewhere that no reward model has seen (Gao et al.,
2022: the true reward falls long before)."""
TARGETS = 3.0
"""How often the KL's target it may be."""
FALLEN = 0.5
"""Standard deviations by which a reward that is trained on may not fall."""
TREND = 6
"""Rollouts before anything is called a trend."""


@dataclass(frozen=True)
class Finding:
    """rule: its name. step: from which on it is seen. values: the numbers in its words."""

    rule: str
    step: int
    values: Mapping[str, str] = field(default_factory=dict)
    level: Level = "warning"

    def text(self, language: Language = "en") -> str:
        """What it looks like."""
        return WORDS[self.rule][language][0].format_map(self.values)

    def advice(self, language: Language = "en") -> str:
        """What to do."""
        return WORDS[self.rule][language][1].format_map(self.values)

    def as_json(self) -> dict[str, Any]:
        """For the page, in all its languages."""
        languages: tuple[Language, ...] = ("en", "zh")
        return {
            "rule": self.rule,
            "level": self.level,
            "step": self.step,
            "text": {language: self.text(language) for language in languages},
            "advice": {language: self.advice(language) for language in languages},
        }


@dataclass
class Rollout:
    """What a run says of a rollout and of the updates from it. seconds: of all its steps. moved: nats a token, and
    clipped: share of tokens, at the update that found most. updates: those that were made."""

    step: int
    numbers: Row
    moved: float = 0.0
    clipped: float = 0.0
    updates: int = 0
    seconds: float = 0.0
    learning_rate: float = math.nan

    def add(self, row: Row) -> None:
        """A step of its own."""
        self.seconds += row.get("seconds", 0.0)
        if "loss" not in row:
            return
        self.updates += 1
        self.moved = max(self.moved, row.get("step_kl", 0.0))
        self.clipped = max(self.clipped, row.get("clip_fraction", 0.0))
        self.learning_rate = row.get("learning_rate", math.nan)


@dataclass(frozen=True)
class Run:
    """rollouts: all of them, in order. settings: of the stage, as its recipe has them."""

    rollouts: Sequence[Rollout]
    settings: Mapping[str, Any]
    steps: int

    def those_with(self, *names: str) -> list[Rollout]:
        """The rollouts that have all these numbers, finite."""
        return [r for r in self.rollouts if all(math.isfinite(r.numbers.get(name, math.nan)) for name in names)]

    def series(self, name: str) -> list[float]:
        """A number of each rollout that has it."""
        return [r.numbers[name] for r in self.those_with(name)]

    def setting(self, *path: str) -> float | None:
        """One of the stage's settings, if it is a number."""
        value: Any = self.settings
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) else None


class Reading:
    """Rows by rollout, as they come."""

    def __init__(self) -> None:
        self._rollouts: list[Rollout] = []
        self._steps = 0

    def add(self, row: Row) -> None:
        """The next one."""
        self._steps = int(row.get("steps", self._steps))
        if "reward" in row and "answer_tokens" in row:
            self._rollouts.append(Rollout(int(row["step"]), row))
        if self._rollouts:
            self._rollouts[-1].add(row)

    def findings(self, settings: Mapping[str, Any] | None = None) -> list[Finding]:
        """What is seen so far, warnings first, causes before symptoms; nothing where a stage samples no answers.
        settings: the stage's part of the recipe, which makes some rules more exact."""
        run = Run(self._rollouts, settings or {}, self._steps)
        if not run.rollouts:
            return []
        found = [finding for rule in (*RULES, *NOTES) if (finding := rule(run)) is not None]
        return [f for f in found if f.level == "warning"] + [f for f in found if f.level == "information"]


def diagnose(rows: Iterable[Row], settings: Mapping[str, Any] | None = None) -> list[Finding]:
    """What is seen in a stage's rows, see `Reading.findings`."""
    reading = Reading()
    for row in rows:
        reading.add(row)
    return reading.findings(settings)


# -- is what is learnt from what it seems to be?


def sampler_gap(run: Run) -> Finding | None:
    """Sampler and trainer differ about the same tokens."""
    # The gap is measured before the first update of a rollout: a policy that explodes later does not make one.
    some = [r for r in run.those_with("sampler_gap") if r.numbers["sampler_gap"] > GAP and not _is_stale(r)]
    if not some:
        return None
    return _seen("sampler_gap", some[0], gap=some[0].numbers["sampler_gap"])


def sampling(run: Run) -> Finding | None:
    """Answers are not samples of the policy."""
    some = [
        r
        for r in run.those_with("surprise", "surprise_error")
        if not _is_stale(r)
        and abs(r.numbers["surprise"]) > max(SURPRISE, SURPRISE_ERRORS * r.numbers["surprise_error"])
    ]
    if not some:
        return None
    first = some[0]
    rule = "sampling_sharp" if first.numbers["surprise"] < 0 else "sampling_flat"
    return _seen(rule, first, surprise=abs(first.numbers["surprise"]), error=first.numbers["surprise_error"])


def negative_kl(run: Run) -> Finding | None:
    """A KL below 0."""

    def errors(r: Rollout) -> float:
        return -r.numbers["kl"] / max(r.numbers["kl_error"], KL_FLOOR / KL_ERRORS)

    some = [r for r in run.those_with("kl", "kl_error") if errors(r) > KL_ERRORS]
    # One of many may be bad luck.
    if len(some) < 2 and not any(errors(r) > 2 * KL_ERRORS for r in some):
        return None
    worst = min(some, key=lambda r: r.numbers["kl"])
    return _seen("negative_kl", some[0], kl=worst.numbers["kl"], error=worst.numbers["kl_error"], rollouts=len(some))


def reference_moved(run: Run) -> Finding | None:
    """The reference is not what it was."""
    some = run.those_with("reference_log_prob")
    for r in some:
        change = r.numbers["reference_log_prob"] - some[0].numbers["reference_log_prob"]
        if abs(change) > DRIFT:
            return _seen("reference_moved", r, change=change)
    if len(some) > 1:
        return None  # measured, and the same
    # Older runs: a policy that moves in each rollout must get away from where it was by at least about that much.
    moving = [r for r in run.those_with("kl")[1:] if r.moved > 0]
    if len(moving) < TREND:
        return None
    moved = statistics.median(r.moved * r.numbers["answer_tokens"] for r in moving)
    kl = statistics.median(abs(r.numbers["kl"]) for r in moving)
    return _seen("reference_follows", moving[0], kl=kl, moved=moved) if moved > KL_FLOOR and kl < HELD * moved else None


# -- do the rewards say anything?


def equal_rewards(run: Run) -> Finding | None:
    """All answers get the same."""
    some = run.those_with("reward_std")

    def equal(r: Rollout) -> bool:
        return r.numbers["reward_std"] <= EQUAL * max(1.0, abs(r.numbers["reward"]))

    # Of a task that has been solved the rewards become equal too: it is the beginning that tells.
    if len(some) < 2 or not equal(some[0]) or not equal(some[1]) or sum(map(equal, some)) < IDLE * len(some):
        return None
    return _seen("equal_rewards", some[0], reward=some[0].numbers["reward"])


def idle_groups(run: Run) -> Finding | None:
    """All answers to a prompt get the same."""
    some = run.those_with("idle_groups")
    early = some[: _window(len(some))]
    if len(some) < 2 or equal_rewards(run) or min(_mean(early, "idle_groups"), _mean(some, "idle_groups")) < IDLE:
        return None
    return _seen("idle_groups", some[0], share=_percent(_mean(some, "idle_groups")))


# -- does it learn too fast, to cheat, or the wrong thing?


def no_end(run: Run) -> Finding | None:
    """No answer ends by itself."""
    some = run.those_with("ended")
    if len(some) < 2 or run.setting("missing_end_penalty") == 0:  # 0: a cut is no fault
        return None
    if max(_mean(some[: _window(len(some))], "ended"), _mean(some[-_window(len(some)) :], "ended")) > NO_END:
        return None
    return _seen("no_end", some[0], ended=_percent(_mean(some, "ended")), tokens=_mean(some, "answer_tokens"))


def learning_rate(run: Run) -> Finding | None:
    """The policy leaps."""
    far = [r for r in run.rollouts if r.moved > STEP_KL]
    leaps = [r for r in far if r.moved > LEAP]
    clipped = [r for r in run.rollouts if r.clipped > CLIPPED]
    updated = [r for r in run.rollouts if r.updates]
    chosen = leaps
    for some in (far, clipped):  # one is an accident, half of them are not
        if not chosen and len(some) >= 3 and 2 * len(some) >= len(updated):
            chosen = some
    if chosen:
        most = max(chosen, key=lambda r: r.moved)
        return _seen(
            "learning_rate", chosen[0], moved=most.moved, clipped=_percent(most.clipped), rate=chosen[0].learning_rate
        )
    # With one update a rollout nothing is measured within it. Few answers may seem to say anything: it must be seen in
    # two rollouts on either side.
    entropies = run.those_with("entropy")
    for i in range(1, len(entropies) - 1):
        parts = entropies[max(0, i - 2) : i], entropies[i : i + 2]
        were, are = ([r.numbers["entropy"] for r in part] for part in parts)
        if max(min(were) - max(are), min(are) - max(were)) > ENTROPY_LEAP:
            rate = entropies[i - 1].learning_rate
            return _seen("leap", entropies[i], before=were[-1], after=are[0], rate=rate)
    return None


def length(run: Run) -> Finding | None:
    """Longer answers please, and become longer."""
    some = run.those_with("reward_length", "answer_tokens", "reward", "reward_std")
    if len(some) < TREND:
        return None
    early, late = _ends(some)
    before, after = _mean(early, "answer_tokens"), _mean(late, "answer_tokens")
    rise = _mean(late, "reward") - _mean(early, "reward")
    correlation = _strongest_third(some, "reward_length")
    if after < LONGER * before or rise < 0.3 * _mean(early, "reward_std") or correlation < LENGTH_CORRELATION:
        return None
    since = next(r for r in some if r.numbers["answer_tokens"] > (before + after) / 2)
    return _seen("length", since, before=before, after=after, rise=rise, correlation=correlation)


def reward_sign(run: Run) -> Finding | None:
    """The policy's first samples please more than people's answers."""
    for r in run.those_with("reference_lead", "reference_lead_error")[:1]:
        lead, error = r.numbers["reference_lead"], r.numbers["reference_lead_error"]
        if -lead > max(LEAD_ERRORS * error, LEAD * r.numbers.get("reward_std", 0.0), EQUAL):
            return _seen("reward_sign", r, lead=-lead, error=error, reference=r.numbers.get("reference_reward", 0.0))
    return None


def empty_answers(run: Run) -> Finding | None:
    """Hardly anything is said any more."""
    some = run.those_with("answer_tokens")
    if len(some) < TREND:
        return None
    early, late = _ends(some)
    before, after = _mean(early, "answer_tokens"), _mean(late, "answer_tokens")
    if before < 5 or after > 2:
        return None
    since = next(r for r in some if r.numbers["answer_tokens"] <= 2)
    return _seen("empty_answers", since, before=before, after=after)


def critic(run: Run) -> Finding | None:
    """The critic explains nothing."""
    some = run.those_with("explained_variance")
    # One token's value is the mean over what it may be: there is nothing that could be explained.
    if len(some) < PATIENT or _mean(some, "answer_tokens") < 2 or equal_rewards(run):
        return None
    late = some[-(len(some) // 2) :]
    explained = [r.numbers["explained_variance"] for r in late]
    if sum(e > EXPLAINED for e in explained) > len(late) / 5:
        return None
    hopeless = sum(abs(e) < CONSTANT or e < WORSE for e in explained) >= 0.8 * len(late)
    rising = _mean(late[-_window(len(late)) :], "explained_variance") > _mean(
        late[: len(late) // 2], "explained_variance"
    )
    if hopeless or _does_not_follow(some, late) or (len(some) >= VERY_PATIENT and not rising):
        middle = statistics.median(explained)
        if "value" in late[-1].numbers and "return" in late[-1].numbers:
            value, returns = _mean(late, "value"), _mean(late, "return")
            return _seen("critic", late[0], explained=middle, value=value, returns=returns)
        return _seen("critic_explains", late[0], explained=middle)
    return None


def _does_not_follow(some: Sequence[Rollout], late: Sequence[Rollout]) -> bool:
    """Whether the values, which began elsewhere, have not come near what the returns are."""
    begun, now, wanted = some[0].numbers.get("value", math.nan), _mean(late, "value"), _mean(late, "return")
    far = abs(wanted - begun) > FOLLOWED * _mean(late, "reward_std")
    return far and abs(now - begun) < FOLLOWED * abs(wanted - begun)


# -- what becomes of the answers?


def entropy(run: Run) -> Finding | None:
    """Nothing is tried any more."""
    some = run.those_with("entropy")
    if len(some) < TREND:
        return None
    early, late = _ends(some)
    before, after = _mean(early[:1], "entropy"), _mean(late, "entropy")
    if after > min(CERTAIN, COLLAPSED * before):
        return None
    since = next(r for r in some if r.numbers["entropy"] <= min(CERTAIN, COLLAPSED * before))
    return _seen("entropy", since, before=before, after=after)


def repetition(run: Run) -> Finding | None:
    """Answers repeat themselves."""
    some = run.those_with("repetition")
    if len(some) < TREND:
        return None
    early, late = _ends(some)
    before, after = _mean(early, "repetition"), _mean(late, "repetition")
    if after < max(REPEATED, before + MORE_REPEATED):
        return None
    since = next(r for r in some if r.numbers["repetition"] >= max(REPEATED, before + MORE_REPEATED))
    return _seen("repetition", since, before=_percent(before), after=_percent(after))


def ending(run: Run) -> Finding | None:
    """Fewer and fewer answers end."""
    some = run.those_with("ended")
    if len(some) < TREND:
        return None
    early, late = _ends(some)
    before, after = _mean(early, "ended"), _mean(late, "ended")
    if before < 2 * NO_END or after > FEWER_END * before:
        return None
    since = next(r for r in some if r.numbers["ended"] <= max(FEWER_END * before, after))
    return _seen("ending", since, before=_percent(before), after=_percent(after))


def far(run: Run) -> Finding | None:
    """The policy has gone where no judge was trained."""
    some = run.those_with("kl")
    if not some:
        return None
    stop, target = run.setting("kl", "stop"), run.setting("kl", "target")
    last = some[-1]
    if stop is not None and last.numbers["kl"] > stop:
        return _seen("kl_stop", last, kl=last.numbers["kl"], stop=stop)
    off = [
        r
        for r in some
        if r.numbers["kl"] > FAR and r.numbers["kl"] > FAR_A_TOKEN * max(1.0, r.numbers["answer_tokens"])
    ]
    if off:
        most = max(off, key=lambda r: r.numbers["kl"]).numbers
        return _seen("kl", off[0], kl=most["kl"], tokens=most["answer_tokens"])
    beyond = [r for r in some if target is not None and r.numbers["kl"] > TARGETS * target]
    if target is not None and len(beyond) >= 3 and beyond[-1] is last:
        return _seen("kl_target", beyond[0], kl=last.numbers["kl"], target=target)
    return None


def falling(run: Run) -> Finding | None:
    """The reward falls."""
    some = run.those_with("reward", "reward_std")
    if len(some) < TREND:
        return None
    early, late = _ends(some)
    before, after = _mean(early, "reward"), _mean(late, "reward")
    spread = [statistics.stdev(r.numbers["reward"] for r in part) / len(part) ** 0.5 for part in (early, late)]
    if before - after < max(FALLEN * _mean(early, "reward_std"), 3 * math.hypot(*spread), EQUAL):
        return None
    since = next((r for r in some if r.numbers["reward"] < (before + after) / 2), some[-1])
    return _seen("falling", since, before=before, after=after)


RULES: tuple[Callable[[Run], Finding | None], ...] = (
    sampler_gap,
    sampling,
    negative_kl,
    reference_moved,
    equal_rewards,
    idle_groups,
    no_end,
    learning_rate,
    length,
    reward_sign,
    empty_answers,
    critic,
    entropy,
    repetition,
    ending,
    far,
    falling,
)
"""Causes before symptoms: a policy that leaps also repeats itself, and a judge that likes length
also likes the policy's first samples better than people's short answers."""


# -- what is good to know


def unknown_sign(run: Run) -> Finding | None:
    """Nothing to compare the rewards with."""
    if run.those_with("reference_lead"):
        return None
    return _seen("unknown_sign", run.rollouts[0], "information")


def time(run: Run) -> Finding | None:
    """Where the seconds went."""
    names = ("sampling_seconds", "judging_seconds", "scoring_seconds")
    some = [r for r in run.those_with(*names) if r.seconds > 0]
    if not some:
        return None
    total = sum(r.seconds for r in some)
    parts = [sum(r.numbers[name] for r in some) / total for name in names]
    sampled, judged, scored = map(_percent, parts)
    return _seen(
        "time",
        some[0],
        "information",
        sampling=sampled,
        judging=judged,
        scoring=scored,
        update=_percent(max(0.0, 1 - sum(parts))),
    )


NOTES: tuple[Callable[[Run], Finding | None], ...] = (unknown_sign, time)


# -- numbers


def _seen(rule: str, since: Rollout, level: Level = "warning", **values: float | str) -> Finding:
    return Finding(rule, since.step, {k: v if isinstance(v, str) else _number(v) for k, v in values.items()}, level)


def _number(value: float) -> str:
    """Three digits, as people write them."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 0
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_stale(r: Rollout) -> bool:
    """Whether an earlier policy sampled, on purpose: it may think otherwise of its answers."""
    return r.numbers.get("staleness", 0) > 0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _mean(some: Sequence[Rollout], name: str) -> float:
    values = [r.numbers[name] for r in some if name in r.numbers]
    return sum(values) / len(values) if values else math.nan


def _window(count: int) -> int:
    """How many rollouts are the beginning, or the end, of so many."""
    return max(1, min(5, count // 3))


def _ends(some: Sequence[Rollout]) -> tuple[Sequence[Rollout], Sequence[Rollout]]:
    return some[: _window(len(some))], some[-_window(len(some)) :]


def _strongest_third(some: Sequence[Rollout], name: str) -> float:
    """The largest mean over a third of the rollouts: where all answers have become as long as may be, nothing goes with
    their length any more."""
    size = max(2, len(some) // 3)
    return max(_mean(some[i : i + size], name) for i in range(0, len(some) - size + 1, size))
