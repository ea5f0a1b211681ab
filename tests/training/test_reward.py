"""The reward model: its loss against all pairs written out, and a preference that it can learn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from chatwheel.data.records import Demonstration, Ranking
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.transformer import ScalarModel
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.reward import (
    EncodedRanking,
    RewardConfig,
    RewardObjective,
    demonstration_rewards,
    encode_rankings,
    last_values,
    pair_accuracy,
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
