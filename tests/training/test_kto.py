"""KTO: its formula against another and finite differences, its strangers, its labels, and where it leads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chatwheel.data.records import Ranking, Rating
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.transformer import CausalLM
from chatwheel.training.kto import (
    KTOConfig,
    KTOObjective,
    LabelledAnswers,
    answer_losses,
    encode_labelled,
    kto,
    labels_of,
    mismatched,
)
from chatwheel.training.loop import read_metrics
from chatwheel.training.optimizers import OptimizerConfig
from tests.tiny import causal, tokenizer
from tests.training.test_dpo import PROMPTS, answers_to, policy, sigmoid, start
from tests.training.test_preferences import answers_of, by_hand, ranking


def test_the_loss_is_the_paper_s() -> None:
    gains = torch.tensor([-7.0, -0.4, 0.0, 1.2, 9.0], dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    weights = torch.tensor([1.0, 1.5, 0.3, 2.0, 1.0], dtype=torch.float64)
    expected = []
    for gain, sign, weight in zip(gains.tolist(), signs.tolist(), weights.tolist(), strict=True):
        value = sigmoid(0.4 * (gain - 0.9)) if sign > 0 else sigmoid(0.4 * (0.9 - gain))
        expected.append(weight - weight * value)
    found = answer_losses(gains, signs, weights, 0.9, 0.4)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda g: answer_losses(g, signs, weights, 0.9, 0.4), gains.clone().requires_grad_()
    )


def data(number: int = 6) -> list[LabelledAnswers]:
    labels = [[True, False, False], [True], [False, True]]
    return [LabelledAnswers(answers_of(len(labels[i % 3]), i), labels[i % 3]) for i in range(number)]


def objective(model: CausalLM, **changes: Any) -> KTOObjective:
    groups, base = data(), causal()
    strangers = mismatched(groups, 60, 0)
    with torch.no_grad():
        references = [
            [torch.stack([by_hand(base, a) for a in group]) for group in some]
            for some in ([g.answers for g in groups], strangers)
        ]
    config = KTOConfig(**({"prompts_per_step": 6, "row_length": 60} | changes))
    return KTOObjective(model, groups, strangers, *references, config, 0, torch.float32)


def step_of(made: KTOObjective) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    made.model.zero_grad()
    loss, metrics = 0.0, {}
    for batch in made.batches(0):
        part, numbers = made.loss(batch)
        part.backward()
        loss += float(part.detach())
        metrics = {name: metrics.get(name, 0.0) + value for name, value in numbers.items()}
    return loss, metrics | made.metrics(0), {n: p.grad.clone() for n, p in made.model.named_parameters()}


@pytest.mark.parametrize("seed", [5, 6, 8])
def test_a_step_is_the_mean_over_its_answers_beside_what_strangers_gain(seed: int) -> None:
    model, base, beta = causal(seed=seed), causal(), 0.05
    # Trained a little towards what strangers say, so that they have gained.
    made = objective(model, beta=beta, desirable_weight=1.5)
    loss, metrics, gradients = step_of(made)
    with torch.no_grad():
        gained = [float(by_hand(model, a) - by_hand(base, a)) for group in made.strangers for a in group]
    z0 = max(0.0, sum(gained) / len(gained))
    assert metrics["kl"] == pytest.approx(z0, rel=1e-4, abs=1e-4)
    good, bad = 6, 6
    losses = []
    for group in data():
        for answer, desirable in zip(group.answers, group.desirable, strict=True):
            gain = by_hand(model, answer) - by_hand(base, answer).detach()
            weight = 1.5 * 12 / (2 * good) if desirable else 12 / (2 * bad)
            losses.append(weight * torch.sigmoid(beta * (z0 - gain) if desirable else beta * (gain - z0)))
    expected = torch.stack(losses).mean()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=2e-3, atol=1e-4)


def test_strangers_that_gain_raise_the_bar() -> None:
    model = causal(seed=5)
    made = objective(model)
    made.strangers_reference = [values - 50 for values in made.strangers_reference]
    made.batches(0)
    assert made.z0 > 10


def test_micro_batches_change_nothing() -> None:
    whole = step_of(objective(causal(seed=5)))
    for at_once in (1, 4):
        parts = step_of(objective(causal(seed=5), prompts_at_once=at_once))
        assert parts[0] == pytest.approx(whole[0], rel=1e-5)
        assert parts[1] == pytest.approx(whole[1], rel=1e-4, abs=1e-4)
        for name, gradient in whole[2].items():
            torch.testing.assert_close(parts[2][name], gradient, rtol=1e-3, atol=1e-4)


def test_balance_makes_both_kinds_weigh_the_same() -> None:
    made = objective(causal())
    made.groups = [LabelledAnswers(answers_of(4, 0), [True, True, True, False])]
    good, bad = made._weights()
    assert 3 * good == pytest.approx(bad) == pytest.approx(2)
    made.groups = [LabelledAnswers(answers_of(2, 0), [True, True])]
    assert made._weights() == (1.0, 1.0)


def test_strangers_answer_another_prompt() -> None:
    groups = data(7)
    found = mismatched(groups, 60, 3)
    everything = [a for g in groups for a in g.answers]
    used = []
    for group, strangers in zip(groups, found, strict=True):
        own = [a.tokens[a.begin :] for a in group.answers]
        for answer, stranger in zip(group.answers, strangers, strict=True):
            assert stranger.tokens[: stranger.begin] == answer.tokens[: answer.begin]
            said = stranger.tokens[stranger.begin :]
            assert said not in own
            used.append(tuple(said))
    assert set(used) <= {tuple(a.tokens[a.begin :]) for a in everything}
    assert len(set(used)) > 6
    assert mismatched(groups, 60, 3) == found
    assert mismatched(groups, 60, 4) != found
    short = mismatched(groups, 20, 3)
    assert max(len(a.tokens) for group in short for a in group) == 20
    (alone,) = mismatched(groups[:1], 60, 0)
    assert len(alone) == 3


@pytest.mark.parametrize(
    ("ranks", "labels"),
    [
        ([1, 2], [True, False]),
        ([2, 1, 3], [None, True, False]),
        ([1, 1, 2], [True, True, False]),
        ([3, 1, 2, 4], [False, True, True, False]),
        ([1, 2, 2, 2], [True, False, False, False]),
        ([1, 1], [None, None]),
    ],
)
def test_an_answer_is_desirable_that_wins_more_than_it_loses(ranks: list[int], labels: list[bool | None]) -> None:
    assert labels_of(ranking(["a", "b", "c", "d"][: len(ranks)], ranks)) == labels


def test_rankings_and_thumbs_are_learnt_from_together() -> None:
    thumb = Rating.model_validate(
        {"messages": [{"role": "user", "content": "Why?"}], "answer": "Because.", "rating": -1}
    )
    rankings: list[Ranking] = [ranking(["Paris.", "Rome.", "a " * 200], [1, 2, 3]), ranking(["a", "b"], [1, 1])]
    (first, second), dropped = encode_labelled(rankings, [thumb], tokenizer(), 64)
    assert dropped == 1
    assert first.desirable == [True]  # Rome is in the middle, the third does not fit
    assert second.desirable == [False]
    said = second.answers[0]
    assert said.tokens[said.begin :] == [*tokenizer().encode("Because."), tokenizer().end_id]


def trained(directory: Path, groups: list[LabelledAnswers], **changes: Any) -> CausalLM:
    config = KTOConfig(
        **{
            "beta": 0.5,
            "epochs": 120,
            "prompts_per_step": len(groups),
            "prompts_at_once": len(groups),
            "row_length": 64,
            "precision": "float32",
            "optimizer": OptimizerConfig(learning_rate=3e-3, matrices="adamw", weight_decay=0.0),
            **changes,
        }
    )
    model, _ = kto(config, start(), groups, directory=directory, seed=0)
    assert model is not None
    return model


def test_what_is_mostly_liked_is_said(tmp_path: Path) -> None:
    # Each prompt has two answers that four of five like; a value is linear in the share, so it is all or nothing.
    groups = []
    for prompt, liked in zip(PROMPTS, ((0, 3), (1, 2)), strict=True):
        for labeller in range(5):
            labels = [(i in liked) != (labeller == 0) for i in range(4)]
            groups.append(LabelledAnswers(answers_to(prompt), labels))
    model = trained(tmp_path, groups)
    for prompt, liked in zip(PROMPTS, ((0, 3), (1, 2)), strict=True):
        before, after = (float(policy(m, prompt)[list(liked)].sum()) for m in (start(), model))
        assert before < 0.8
        assert after > 0.95


def run(directory: Path, steps: int, **changes: Any) -> CausalLM:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KTOConfig, "steps", lambda *_: steps)
        config = KTOConfig(
            prompts_per_step=4,
            prompts_at_once=3,
            row_length=60,
            precision="float32",
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup=0, decay=0),
            **changes,
        )
        model, _ = kto(config, causal(), data(11), directory=directory, seed=0)
    assert model is not None
    return model


@pytest.mark.parametrize("changes", [{}, {"lora": LoRAConfig(rank=2, dropout=0.3)}], ids=["whole", "dropout"])
def test_it_goes_on_with_the_same_bits(changes: dict[str, Any], tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", 7, **changes)
    for steps in (3, 4, 7):  # each goes on from the save at the end of the one before
        again = run(tmp_path / "again", steps, **changes)
    for (name, a), (_, b) in zip(straight.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    rows = [[(row["loss"], row["kl"]) for row in read_metrics(tmp_path / name)] for name in ("straight", "again")]
    assert rows[0] == rows[1]
    assert math.isclose(rows[0][0][1], 0, abs_tol=1e-3)


def test_nothing_to_learn_from_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"KTO: no answer of at most 60 tokens .* data\.ratings"):
        kto(KTOConfig(row_length=60), causal(), [], directory=tmp_path, seed=0)
    assert not list(tmp_path.iterdir())
