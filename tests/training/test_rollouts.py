"""Rollouts: what the sampler says of each token is what the trainer computes of it."""

from __future__ import annotations

import pytest
import torch

from chatwheel.engine.engine import Engine
from chatwheel.training.rollouts import Answers, sample_answers
from tests.tiny import causal, scalar, tokenizer, tokens

PROMPTS = [tokens(2 + 5 * i, seed=i).tolist() for i in range(9)]


def rollout(max_tokens: int = 24, row_length: int = 96) -> tuple[Engine, list, Answers]:  # type: ignore[type-arg]
    engine = Engine(causal(), tokenizer(), max_running=4)
    completions = sample_answers(engine, PROMPTS, max_tokens=max_tokens, seeds=range(9))
    return engine, completions, Answers.of(PROMPTS, completions, row_length)


def test_the_sampler_s_log_probs_are_the_trainer_s() -> None:
    engine, completions, answers = rollout()
    log_probs, _ = answers.log_probs(engine.model, torch.float32)
    sampled = torch.tensor([p for c in completions for p in c.logprobs])
    assert len(sampled) == sum(answers.lengths) > 100
    torch.testing.assert_close(log_probs.detach(), sampled, atol=1e-4, rtol=0)


@torch.no_grad()
def test_log_probs_entropies_and_values_are_those_of_separate_sequences() -> None:
    engine, completions, answers = rollout()
    critic = scalar(seed=3)
    log_probs, entropies = answers.log_probs(engine.model, torch.float32)
    values = answers.values(critic, torch.float32)
    first = 0
    for prompt, completion, length in zip(PROMPTS, completions, answers.lengths, strict=True):
        whole = torch.tensor([[*prompt, *completion.token_ids]])
        states = slice(len(prompt) - 1, whole.shape[1] - 1)  # before each answer token
        distribution = torch.distributions.Categorical(logits=engine.model(whole)[0, states])
        part = slice(first, first + length)
        expected = distribution.log_prob(whole[0, len(prompt) :])
        torch.testing.assert_close(log_probs[part], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(entropies[part], distribution.entropy(), atol=1e-4, rtol=0)
        torch.testing.assert_close(values[part], critic(whole)[0, states], atol=1e-4, rtol=0)
        first += length


def test_answers_follow_their_seeds_not_their_company() -> None:
    engine, completions, _ = rollout()
    again = sample_answers(engine, PROMPTS[3:4], max_tokens=24, seeds=[3])
    assert again[0].token_ids == completions[3].token_ids
    assert len({c.token_ids for c in sample_answers(engine, PROMPTS[:1] * 6, max_tokens=12, seeds=range(6))}) == 6


@pytest.mark.parametrize("row_length", [96, 256])
def test_places_point_at_the_answers(row_length: int) -> None:
    _, completions, answers = rollout(row_length=row_length)
    row, column = answers.place
    assert answers.rows.tokens[row, column].tolist() == [t for c in completions for t in c.token_ids]
    assert answers.rows.tokens.shape[1] == row_length
