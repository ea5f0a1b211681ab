"""DPO and IPO: formulas against others and finite differences, and the policy that they must end with."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.transformer import CausalLM, Linear
from chatwheel.training.dpo import DPOConfig, DPOObjective, dpo, pair_losses
from chatwheel.training.loop import read_metrics
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.preferences import EncodedPreferences, PromptedAnswer, answer_log_probs
from tests.tiny import causal
from tests.training.test_preferences import answers_of, by_hand

MARGINS = torch.tensor([-9.0, -1.3, -0.2, 0.0, 0.4, 2.5, 30.0], dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_losses_are_the_papers(beta: float, smoothing: float) -> None:
    plain = DPOConfig(beta=beta, label_smoothing=smoothing)
    # The paper's likelihood of a label that is wrong with probability `smoothing`, written as TRL does.
    expected = [
        -(1 - smoothing) * math.log(sigmoid(beta * m)) - smoothing * math.log(sigmoid(-beta * m))
        for m in MARGINS.tolist()
    ]
    torch.testing.assert_close(pair_losses(MARGINS, plain), torch.tensor(expected, dtype=torch.float64))
    ipo = DPOConfig(beta=beta, label_smoothing=smoothing, loss="ipo")
    # Squared distance to half the inverse temperature, from either side.
    expected = [m * m - (1 - 2 * smoothing) * m / beta + 1 / (4 * beta * beta) for m in MARGINS.tolist()]
    torch.testing.assert_close(pair_losses(MARGINS, ipo), torch.tensor(expected, dtype=torch.float64))
    for config in (plain, ipo):
        assert torch.autograd.gradcheck(
            lambda m, config=config: pair_losses(m, config), MARGINS.clone().requires_grad_()
        )


def data(number: int = 6) -> list[EncodedPreferences]:
    ranks = [[1, 2, 3, 4], [2, 1], [1, 1, 2]]
    return [
        EncodedPreferences(
            answers_of(len(r), seed), [(i, j) for i, a in enumerate(r) for j, b in enumerate(r) if a < b]
        )
        for seed, r in enumerate(itertools.islice(itertools.cycle(ranks), number))
    ]


def objective(model: CausalLM, **changes: Any) -> DPOObjective:
    rankings, base = data(), causal()
    with torch.no_grad():
        reference = [torch.stack([by_hand(base, a) for a in one.answers]) for one in rankings]
    config = DPOConfig(**({"rankings_per_step": 6, "row_length": 60} | changes))
    return DPOObjective(model, rankings, reference, config, 0, torch.float32)


def step_of(made: DPOObjective) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    made.model.zero_grad()
    loss, metrics = 0.0, {}
    for batch in made.batches(0):
        part, numbers = made.loss(batch)
        part.backward()
        loss += float(part.detach())
        metrics = {name: metrics.get(name, 0.0) + value for name, value in numbers.items()}
    return loss, metrics, {name: p.grad.clone() for name, p in made.model.named_parameters()}


@pytest.mark.parametrize("average", [False, True])
def test_the_step_is_over_all_pairs_of_each_ranking(average: bool) -> None:
    model, base = causal(seed=5), causal()
    loss, metrics, gradients = step_of(objective(model, beta=0.3, average=average))
    losses, margins = [], []
    for one in data():
        gains = [
            (by_hand(model, a) - by_hand(base, a).detach()) / ((len(a.tokens) - a.begin) if average else 1)
            for a in one.answers
        ]
        pairs = [gains[i] - gains[j] for i, j in one.pairs]
        losses.append(sum((-torch.log(torch.sigmoid(0.3 * m)) for m in pairs), torch.zeros(())) / len(pairs))
        margins.append(sum(0.3 * float(m.detach()) for m in pairs) / len(pairs))
    expected = torch.stack(losses).mean()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    assert metrics["margin"] == pytest.approx(sum(margins) / len(margins), rel=1e-3)
    assert metrics["reward_better"] - metrics["reward_worse"] == pytest.approx(metrics["margin"], rel=1e-4)
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=2e-3, atol=1e-4)


def test_micro_batches_change_nothing() -> None:
    whole = step_of(objective(causal(seed=5)))
    for at_once in (1, 4):
        parts = step_of(objective(causal(seed=5), rankings_at_once=at_once))
        assert parts[0] == pytest.approx(whole[0], rel=1e-5)
        assert parts[1] == pytest.approx(whole[1], rel=1e-4, abs=1e-5)
        for name, gradient in whole[2].items():
            torch.testing.assert_close(parts[2][name], gradient, rtol=1e-3, atol=1e-4)


def test_it_begins_where_nothing_is_preferred() -> None:
    loss, metrics, _ = step_of(objective(causal()))
    assert loss == pytest.approx(math.log(2), abs=1e-4)
    assert metrics["margin"] == pytest.approx(0, abs=1e-4)
    assert metrics["lost"] == pytest.approx(0, abs=1e-3)


# -- games whose best policy is known

PROMPTS = ([20, 21, 22, 23, 24, 25, 26, 27, 28, 29], [30, 31, 32, 33, 34, 35, 36, 37, 38, 39])
REWARDS = ([0.0, 0.6, 1.1, 1.7], [1.3, 0.0, 0.9, 0.4])
ANSWERS = ([50, 51], [50, 52], [53, 51], [54, 55])


def start() -> CausalLM:
    """The reference: no answer is certain."""
    model = causal()
    with torch.no_grad():
        model.model.embed_tokens.weight *= 0.25
    return model


def answers_to(prompt: list[int]) -> list[PromptedAnswer]:
    return [PromptedAnswer([*prompt, *answer], len(prompt)) for answer in ANSWERS]


@torch.no_grad()
def policy(model: CausalLM, prompt: list[int]) -> Tensor:
    """The model's probabilities of the game's answers, among them."""
    return torch.stack([by_hand(model, answer) for answer in answers_to(prompt)]).double().softmax(0)


def every_pair(copies: int) -> tuple[list[EncodedPreferences], list[Tensor]]:
    """Each pair of answers so often in each order as Bradley and Terry say of their rewards; and these shares."""
    rankings, shares = [], []
    for prompt, rewards in zip(PROMPTS, REWARDS, strict=True):
        answers, share = answers_to(prompt), torch.full((4, 4), 0.5, dtype=torch.float64)
        for i, j in itertools.combinations(range(4), 2):
            wins = round(copies * sigmoid(rewards[i] - rewards[j]))
            share[i, j], share[j, i] = wins / copies, 1 - wins / copies
            for first, second, n in ((i, j, wins), (j, i, copies - wins)):
                rankings += [EncodedPreferences([answers[first], answers[second]], [(0, 1)])] * n
        shares.append(share)
    return rankings, shares


def trained(directory: Path, rankings: list[EncodedPreferences], **changes: Any) -> CausalLM:
    config = DPOConfig(
        **{
            "beta": 0.5,
            "epochs": 100,
            "rankings_per_step": len(rankings),
            "rankings_at_once": len(rankings),
            "row_length": 64,
            "precision": "float32",
            "optimizer": OptimizerConfig(learning_rate=3e-3, matrices="adamw", weight_decay=0.0),
            **changes,
        }
    )
    model, _ = dpo(config, start(), rankings, directory=directory, seed=0)
    assert model is not None
    return model


def test_dpo_ends_with_the_reference_tilted_by_the_rewards(tmp_path: Path) -> None:
    rankings, _ = every_pair(20)
    model = trained(tmp_path, rankings)
    for prompt, rewards in zip(PROMPTS, REWARDS, strict=True):
        before = policy(start(), prompt)
        best = before * (torch.tensor(rewards, dtype=torch.float64) / 0.5).exp()
        best /= best.sum()
        distances = [float((p - best).abs().sum() / 2) for p in (before, policy(model, prompt))]
        assert distances[1] < 0.05 < distances[0]


def test_ipo_ends_where_the_shares_of_wins_say(tmp_path: Path) -> None:
    rankings, shares = every_pair(10)
    model = trained(tmp_path, rankings, loss="ipo")
    for prompt, share in zip(PROMPTS, shares, strict=True):
        before = policy(start(), prompt)
        # Least squares of s_i - s_j to (2 p_ij - 1) / (2 beta) over all pairs: the mean over the others and itself.
        scores = ((2 * share - 1) / (2 * 0.5)).mean(1)
        best = before * scores.exp()
        best /= best.sum()
        distances = [float((p - best).abs().sum() / 2) for p in (before, policy(model, prompt))]
        assert distances[1] < 0.05 < distances[0]


def test_ipo_stops_where_all_labellers_agree_and_smoothing_makes_dpo_stop(tmp_path: Path) -> None:
    rankings = [EncodedPreferences(answers_to(prompt)[:2], [(0, 1)]) for prompt in PROMPTS]

    def margin(name: str, **changes: Any) -> float:
        model = trained(tmp_path / name, rankings, epochs=300, **changes)
        with torch.no_grad():
            gains = answer_log_probs(model, answers_to(PROMPTS[0])[:2], 64, torch.float32) - answer_log_probs(
                start(), answers_to(PROMPTS[0])[:2], 64, torch.float32
            )
        return float(gains[0] - gains[1])

    assert margin("ipo", loss="ipo") == pytest.approx(1 / (2 * 0.5), abs=0.1)
    # The smoothed likelihood is best where sigmoid(beta m) = 1 - smoothing.
    assert margin("smooth", label_smoothing=0.2) == pytest.approx(math.log(0.8 / 0.2) / 0.5, abs=0.2)
    assert margin("plain") > 4


# -- adapters, and going on

LORA = LoRAConfig(rank=4)


def run(directory: Path, steps: int, **changes: Any) -> CausalLM:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DPOConfig, "steps", lambda *_: steps)
        config = DPOConfig(
            rankings_per_step=4,
            rankings_at_once=3,
            row_length=60,
            precision="float32",
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup=0, decay=0),
            **changes,
        )
        model, _ = dpo(config, causal(), data(11), directory=directory, seed=0, held_out=data(2))
    assert model is not None
    return model


def test_an_adapter_s_reference_is_the_model_with_the_adapter_off(tmp_path: Path) -> None:
    model = run(tmp_path, 6, lora=LORA)
    changed = {n for n, p in model.named_parameters() if n.endswith("lora_B") and p.abs().max() > 0}
    assert len(changed) == 2 * 7
    found = DPOObjectiveSpy.last
    for module in model.modules():
        if isinstance(module, Linear):
            module.adapter = None
    for one, reference in zip(found.rankings, found.reference, strict=True):
        with torch.no_grad():
            off = answer_log_probs(model, one.answers, 60, torch.float32)
        torch.testing.assert_close(off, reference, rtol=1e-5, atol=1e-4)


class DPOObjectiveSpy(DPOObjective):
    """Remembers the last one that was made."""

    last: DPOObjective

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        DPOObjectiveSpy.last = self


@pytest.fixture(autouse=True)
def _spy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatwheel.training.dpo.DPOObjective", DPOObjectiveSpy)


@pytest.mark.parametrize(
    "changes", [{}, {"lora": LORA}, {"lora": LoRAConfig(rank=2, dropout=0.3)}], ids=["whole", "adapter", "dropout"]
)
def test_it_goes_on_with_the_same_bits(changes: dict[str, Any], tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", 7, **changes)
    for steps in (3, 4, 7):  # each goes on from the save at the end of the one before
        again = run(tmp_path / "again", steps, **changes)
    for (name, a), (_, b) in zip(straight.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    rows = [[row["loss"] for row in read_metrics(tmp_path / name)] for name in ("straight", "again")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 7


def test_one_copy_of_the_weights_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    create = CausalLM.__init__
    monkeypatch.setattr(CausalLM, "__init__", lambda self, config: (made.append(1), create(self, config))[1])
    monkeypatch.setattr("copy.deepcopy", lambda *_: pytest.fail("a copy of the model"))
    run(tmp_path, 2)
    assert len(made) == 1


def test_nothing_to_learn_from_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"DPO: no ranking .* at most 60 tokens; check data\.rankings"):
        dpo(DPOConfig(row_length=60), causal(), [], directory=tmp_path, seed=0)
    assert not list(tmp_path.iterdir())
