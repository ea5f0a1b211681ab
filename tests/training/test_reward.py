"""The reward model: its loss against all pairs written out, and a preference that it can learn."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from chatwheel.data.records import Demonstration, Ranking
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.transformer import ScalarModel
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.reward import (
    EncodedRanking,
    MarginConfig,
    RewardConfig,
    RewardObjective,
    check_labellers,
    demonstration_rewards,
    encode_rankings,
    last_values,
    pair_accuracy,
    ranking_loss,
    score,
    train_reward,
)
from chatwheel.training.rewards import Question, RewardModelReward
from chatwheel.training.samples import FixedPrompt, Watch
from tests.tiny import causal, scalar, tokenizer, tokens


def ranking(answers: list[str], ranks: list[int], question: str = "What is the capital?") -> Ranking:
    return Ranking.model_validate(
        {"messages": [{"role": "user", "content": question}], "answers": answers, "ranks": ranks}
    )


def encoded(ranks: list[int], seed: int) -> EncodedRanking:
    pairs = [(i, j) for i, a in enumerate(ranks) for j, b in enumerate(ranks) if a < b]
    prompt = tokens(14, seed=100 + seed).tolist()
    answers = [tokens(5 + (i * 7 + seed) % 11, seed=seed * 10 + i).tolist() for i in range(len(ranks))]
    return EncodedRanking([[*prompt, *answer] for answer in answers], pairs)


@torch.no_grad()
def reward_of(model: ScalarModel, sequence: list[int]) -> float:
    return float(model(torch.tensor([sequence]))[0, -1])


@torch.no_grad()
def by_hand(model: ScalarModel, rankings: list[tuple[list[int], EncodedRanking]]) -> tuple[float, float]:
    """Loss and share of pairs in the right order: mean over the pairs of a ranking, then over rankings."""
    losses, right = [], []
    for ranks, item in rankings:
        rewards = [reward_of(model, s) for s in item.sequences]
        pairs = [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]
        margins = [rewards[i] - rewards[j] for i, j in pairs]
        losses.append(sum(math.log1p(math.exp(-m)) for m in margins) / len(pairs))
        right.append(sum(m > 0 for m in margins) / len(pairs))
    return sum(losses) / len(losses), sum(right) / len(right)


RANKS = [[1, 2, 3, 4], [2, 1], [1, 1, 2], [3, 1, 2], [2, 2, 1, 1]]


def test_the_loss_is_over_all_pairs() -> None:
    model = scalar()
    items = [(ranks, encoded(ranks, i)) for i, ranks in enumerate(RANKS)]
    objective = RewardObjective(
        model, [e for _, e in items], RewardConfig(rankings_per_step=5, row_length=40), 0, torch.float32
    )
    (batch,) = objective.batches(0)
    assert len(batch) == 5
    loss, numbers = objective.loss(batch)
    expected, right = by_hand(model, items)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert numbers["pair_accuracy"] == pytest.approx(right, abs=1e-6)


def objective_of(
    model: ScalarModel, items: list[EncodedRanking], dtype: torch.dtype = torch.float32
) -> RewardObjective:
    return RewardObjective(model, items, RewardConfig(rankings_per_step=len(items), row_length=40), 0, dtype)


def test_margins_and_weights_enter_the_loss_as_written_out() -> None:
    model = scalar()
    margins, weights = [[0.5, 1.0, 1.5, 0.5, 1.0, 0.5], [3.0], [0.0, 0.25]], [2.0, 0.5, 0.5]
    items = [replace(encoded(ranks, i), margins=margins[i], weight=weights[i]) for i, ranks in enumerate(RANKS[:3])]
    loss, numbers = objective_of(model, items).loss(items)
    expected = 0.0
    for item, weight in zip(items, weights, strict=True):
        rewards = [reward_of(model, s) for s in item.sequences]
        of_pairs = [
            -math.log(1 / (1 + math.exp(-(rewards[i] - rewards[j] - margin))))
            for (i, j), margin in zip(item.pairs, item.margins, strict=True)
        ]
        expected += weight * sum(of_pairs) / len(of_pairs) / len(items)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    # What is shown is neither about margins nor weighted.
    plain = [replace(item, margins=(), weight=1.0) for item in items]
    other, same = objective_of(model, plain).loss(plain)
    assert numbers["pair_accuracy"] == pytest.approx(same["pair_accuracy"])
    assert float(loss.detach()) > float(other.detach())


def test_the_gradient_with_margins_and_weights_is_the_slope() -> None:
    items = [
        replace(encoded([1, 2, 3], 0), margins=[0.5, 2.0, 1.5], weight=0.25),
        replace(encoded([2, 1, 2], 1), margins=[1.0, 0.75], weight=1.75),
        encoded([1, 1, 2, 2], 2),
    ]
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(10, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: ranking_loss(values, items)[0], rewards)
    # In words: a pair pulls by sigmoid(m - lead), and equally on both sides.
    loss, _ = ranking_loss(rewards, items)
    (gradient,) = torch.autograd.grad(loss, rewards)
    pulls = [0.0] * 10
    first = 0
    for item in items:
        for (i, j), margin in zip(item.pairs, item.margins or [0.0] * len(item.pairs), strict=True):
            lead = float((rewards[first + i] - rewards[first + j]).detach())
            pull = item.weight / (1 + math.exp(lead - margin)) / len(item.pairs) / len(items)
            pulls[first + i] -= pull
            pulls[first + j] += pull
        first += len(item.sequences)
    assert gradient.tolist() == pytest.approx(pulls, rel=1e-6)


def test_margins_come_from_scores_or_from_places() -> None:
    graded = ranking(["a", "b", "c"], [3, 1, 1]).model_copy(update={"scores": [0.5, 2.0, 3.5]})
    pairs = graded.pairs()
    assert pairs == [(1, 0), (2, 0)]
    assert MarginConfig(by="scores", scale=2.0).of(graded, pairs) == [3.0, 6.0]
    assert MarginConfig(by="ranks").of(graded, pairs) == [1.0, 1.0], "two share the first place: the next is the second"
    four = ranking(["a", "b", "c", "d"], [7, 2, 2, 4])
    assert MarginConfig(by="ranks", scale=0.5).of(four, [(1, 0), (1, 3), (3, 0)]) == [1.0, 0.5, 0.5]
    assert MarginConfig(by="scores").of(four, [(1, 0)]) == [0.0]
    found, _ = encode_rankings([graded, four], tokenizer(), 64, margin=MarginConfig(by="scores"))
    assert found[0].margins == [1.5, 3.0]
    assert set(found[1].margins) == {0.0}
    with pytest.raises(InputError, match=r"margin\.by is scores, but no ranking has scores"):
        encode_rankings([four], tokenizer(), 64, margin=MarginConfig(by="scores"))


def test_labellers_and_rankings_count_by_their_weights() -> None:
    def by(labeller: str | None, weight: float | None = None) -> Ranking:
        return ranking(["a", "b"], [1, 2]).model_copy(update={"labeller": labeller, "weight": weight})

    rankings = [by("anna"), by("bo"), by("stranger"), by(None), by("bo", 3.0), by("chen")]
    found, dropped = encode_rankings(rankings, tokenizer(), 64, labellers={"anna": 2.0, "bo": 0.5, "chen": 0.0})
    assert dropped == 1, "who counts for nothing is left out"
    mean = (2 + 0.5 + 1 + 1 + 1.5) / 5
    assert [r.weight for r in found] == pytest.approx([2 / mean, 0.5 / mean, 1 / mean, 1 / mean, 1.5 / mean])
    plain, _ = encode_rankings(rankings[:4], tokenizer(), 64)
    assert [r.weight for r in plain] == [1.0] * 4
    with pytest.raises(InputError, match="2 dropped"):
        encode_rankings([by("chen")] * 2, tokenizer(), 64, labellers={"chen": 0.0})


def test_a_labeller_who_is_misspelt_is_named() -> None:
    config = RewardConfig(labellers={"ana": 0.5})
    with pytest.raises(InputError, match=r"reward\.labellers: 'ana' has ranked nothing here; labellers: anna, bo"):
        check_labellers(config, ["bo", "anna", "bo"])
    check_labellers(RewardConfig(labellers={"anna": 0.5}), ["bo", "anna"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"labellers": {"anna": -1}}, "labellers.anna"),
        ({"labellers": {"anna": math.inf}}, "labellers.anna"),
        ({"margin": {"by": "feeling"}}, "margin.by"),
        ({"margin": {"by": "ranks", "scale": 0}}, "margin.scale"),
        ({"ensemble": 0}, "ensemble"),
        ({"caution": -0.5}, "caution"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RewardConfig.model_validate(values)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == said


def test_who_counts_more_is_believed(tmp_path: Path) -> None:
    """Two labellers who want the opposite: the model follows the one with the weight."""
    right, wrong = toy(0, 120), [replace(r, pairs=[(j, i) for i, j in r.pairs]) for r in toy(0, 120)]
    config = RewardConfig(
        epochs=2,
        rankings_per_step=16,
        row_length=48,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        precision="float32",
    )
    for name, weights in (("right", (1.8, 0.2)), ("wrong", (0.2, 1.8))):
        both = [
            replace(r, weight=w) for pair in zip(right, wrong, strict=True) for r, w in zip(pair, weights, strict=True)
        ]
        model, _ = train_reward(config, causal(), both, directory=tmp_path / name, seed=0)
        assert model is not None
        found = pair_accuracy(model, toy(1, 60), 48)
        assert found > 0.8 if name == "right" else found < 0.2


def test_members_of_an_ensemble_differ_and_the_first_is_the_model_alone(tmp_path: Path) -> None:
    config = RewardConfig(epochs=1, rankings_per_step=8, row_length=48, precision="float32")
    several = config.model_copy(update={"ensemble": 3})
    assert several.members == ["reward", "reward-2", "reward-3"]

    def trained(config: RewardConfig, member: int, name: str) -> torch.Tensor:
        model, _ = train_reward(config, causal(), toy(0, 40), directory=tmp_path / name, seed=7, member=member)
        assert model is not None
        return score(model, toy(1, 10)[0].sequences, 48, torch.float32)

    alone, first, second, third, again = (
        trained(config, 0, "alone"),
        trained(several, 0, "1"),
        trained(several, 1, "2"),
        trained(several, 2, "3"),
        trained(several, 2, "3 again"),
    )
    assert torch.equal(alone, first)
    assert torch.equal(third, again)
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


def test_ties_make_no_pairs_and_a_ranking_of_ties_is_dropped() -> None:
    found, dropped = encode_rankings(
        [ranking(["a", "b", "c"], [1, 1, 2]), ranking(["a", "b"], [3, 3]), ranking(["a " * 200, "b"], [1, 2])],
        tokenizer(),
        64,
    )
    assert dropped == 2
    assert found[0].pairs == [(0, 2), (1, 2)]
    with pytest.raises(InputError, match="2 dropped"):
        encode_rankings([ranking(["a", "b"], [1, 1]), ranking(["a " * 200, "b"], [1, 2])], tokenizer(), 64)


def test_an_answer_is_scored_at_its_end_of_turn() -> None:
    model = scalar()
    found, _ = encode_rankings([ranking(["Paris.", "巴黎"], [1, 2])], tokenizer(), 64)
    assert all(s[-1] == tokenizer().end_id for s in found[0].sequences)
    conversation = [{"role": "user", "content": "What is the capital?"}, {"role": "assistant", "content": "Paris."}]
    assert found[0].sequences[0] == tokenizer().encode_conversation(conversation)[0]
    values = last_values(model, found[0].sequences, 64, torch.float32)
    expected = [reward_of(model, s) for s in found[0].sequences]
    torch.testing.assert_close(values, torch.tensor(expected), atol=1e-4, rtol=0)


def test_scores_do_not_depend_on_the_company() -> None:
    model = scalar()
    sequences = [tokens(3 + i % 20, seed=i).tolist() for i in range(50)]
    expected = torch.tensor([reward_of(model, s) for s in sequences])
    for at_once in (1, 7, 256):
        torch.testing.assert_close(
            score(model, sequences, 32, torch.float32, at_once=at_once), expected, atol=1e-4, rtol=0
        )


def test_accuracy_counts_every_pair_once() -> None:
    model = scalar()
    items = [encoded(ranks, i) for i, ranks in enumerate(RANKS)]
    right = total = 0
    for item in items:
        rewards = [reward_of(model, s) for s in item.sequences]
        right += sum(rewards[i] > rewards[j] for i, j in item.pairs)
        total += len(item.pairs)
    assert 0 < right < total
    assert pair_accuracy(model, items, 40) == pytest.approx(right / total)


def toy(seed: int, count: int) -> list[EncodedRanking]:
    """People prefer the answer with more of token 20; the rest is noise."""
    generator = torch.Generator().manual_seed(seed)
    items = []
    for _ in range(count):
        sequences, amounts = [], []
        for _ in range(3):
            amount = int(torch.randint(0, 6, (1,), generator=generator))
            noise = torch.randint(30, 60, (10 - amount,), generator=generator).tolist()
            mixed = torch.tensor([20] * amount + noise)[torch.randperm(10, generator=generator)].tolist()
            sequences.append([5, *mixed, tokenizer().end_id])
            amounts.append(-amount)
        pairs = [(i, j) for i in range(3) for j in range(3) if amounts[i] < amounts[j]]
        if pairs:
            items.append(EncodedRanking(sequences, pairs))
    return items


def test_it_learns_a_preference(tmp_path: Path) -> None:
    config = RewardConfig(
        epochs=4,
        rankings_per_step=16,
        row_length=48,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        precision="float32",
    )
    start = causal()
    held_out = toy(1, 100)
    untrained = ScalarModel(start.config)
    untrained.model.load_state_dict(start.model.state_dict())
    torch.nn.init.zeros_(untrained.score.weight)
    assert pair_accuracy(untrained, held_out, 48) == 0.0  # equal scores are not right
    model, last = train_reward(config, start, toy(0, 200), directory=tmp_path, seed=0)
    assert pair_accuracy(model, held_out, 48) > 0.9
    assert last["loss"] < 0.4 < math.log(2)
    # The SFT model that it started from is untouched.
    assert torch.equal(start.model.embed_tokens.weight, causal().model.embed_tokens.weight)


def test_while_it_learns_with_dropout_it_judges_without(tmp_path: Path) -> None:
    config = RewardConfig(
        epochs=1, rankings_per_step=4, row_length=48, precision="float32", lora=LoRAConfig(rank=2, dropout=0.5)
    )
    rankings = toy(seed=0, count=20)
    watch = Watch(prompts=[FixedPrompt(text="q", ids=tuple(s), answer="a") for s in rankings[0].sequences])
    model, _ = train_reward(config, causal(), rankings, directory=tmp_path, seed=1, watch=watch)
    assert model is not None
    samples = [json.loads(line)["samples"] for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    found = [sample["reward"] for sample in samples[-1]]
    expected = score(model, rankings[0].sequences, 48, torch.float32).tolist()
    assert found == [round(value, 3) for value in expected]
    assert any(found)


def test_demonstrations_score_0_with_deviation_1() -> None:
    model = scalar()
    demonstrations = [
        Demonstration.model_validate(
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        )
        for q, a in [("What?", "Nothing."), ("首都?", "巴黎。"), ("2+2", "4"), ("x" * 300, "too long for a row")]
    ]
    mean, std = demonstration_rewards(model, demonstrations, tokenizer(), 64)
    prompts = [Question(tuple(tokenizer().encode_prompt([d.messages[0].model_dump()]))) for d in demonstrations[:3]]
    answers = [answer_of([*tokenizer().encode(d.messages[1].content), tokenizer().end_id]) for d in demonstrations[:3]]
    reward = reward_model(model, mean, std)
    scores = reward(prompts, answers)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-3)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-3)


def answer_of(ids: list[int], reason: Any = "stop") -> Completion:
    return Completion(token_ids=tuple(ids), logprobs=(0.0,) * len(ids), text="", finish_reason=reason, prompt_tokens=1)


def reward_model(model: ScalarModel, mean: float = 0.0, std: float = 1.0, row_length: int = 64) -> RewardModelReward:
    end = tokenizer().end_id
    return RewardModelReward(model=model, mean=mean, std=std, row_length=row_length, dtype=torch.float32, end_id=end)


def test_an_answer_that_was_cut_off_is_scored_as_if_it_ended_there() -> None:
    reward, prompt, end = reward_model(scalar()), Question(tuple(tokens(5).tolist())), tokenizer().end_id
    cut, ended = answer_of([30, 31], "length"), answer_of([30, 31, end])
    a, b = reward([prompt, prompt], [cut, ended]).tolist()
    assert a == pytest.approx(b, abs=1e-4)


def test_extreme_rewards_are_clipped_and_stay_finite() -> None:
    prompt, answer = Question(tuple(tokens(5).tolist())), answer_of([30, 31])
    assert reward_model(scalar(), mean=1e6, std=1.0)([prompt], [answer]).item() == -10
    assert reward_model(scalar(), mean=-1e6, std=1.0)([prompt], [answer]).item() == 10
    model = scalar()
    torch.nn.init.zeros_(model.score.weight)  # has learnt nothing: every score is the same
    assert reward_model(model, mean=0.0, std=0.0)([prompt], [answer]).item() == 0
