"""Rollouts: what the sampler says of each token is what the trainer computes of it."""

from __future__ import annotations

import pytest
import torch

from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, FinishReason
from chatwheel.training.answers import Answers, PromptedAnswer
from chatwheel.training.ppo import PPOConfig, PPOObjective
from chatwheel.training.rewards import Question, RewardModelReward, ended
from chatwheel.training.rollouts import Rollout, sample_answers
from tests.tiny import causal, scalar, tokenizer, tokens

PROMPTS = [tokens(2 + 5 * i, seed=i).tolist() for i in range(9)]


def rollout(max_tokens: int = 24, row_length: int = 96) -> tuple[Engine, list, Answers]:  # type: ignore[type-arg]
    engine = Engine(causal(), tokenizer(), max_running=4)
    completions = sample_answers(engine, PROMPTS, max_tokens=max_tokens, seeds=range(9))
    prompted = [PromptedAnswer([*p, *c.token_ids], len(p)) for p, c in zip(PROMPTS, completions, strict=True)]
    return engine, completions, Answers.of(prompted, row_length)


def test_the_sampler_s_log_probs_are_the_trainer_s() -> None:
    engine, completions, answers = rollout()
    log_probs = answers.log_probs(engine.model, torch.float32)
    sampled = torch.tensor([p for c in completions for p in c.logprobs])
    assert len(sampled) == sum(answers.lengths) > 100
    torch.testing.assert_close(log_probs.detach(), sampled, atol=1e-4, rtol=0)


@torch.no_grad()
def test_log_probs_and_values_are_those_of_separate_sequences() -> None:
    engine, completions, answers = rollout()
    critic = scalar(seed=3)
    log_probs = answers.log_probs(engine.model, torch.float32)
    values = answers.values(critic, torch.float32)
    first = 0
    for prompt, completion, length in zip(PROMPTS, completions, answers.lengths, strict=True):
        whole = torch.tensor([[*prompt, *completion.token_ids]])
        states = slice(len(prompt) - 1, whole.shape[1] - 1)  # before each answer token
        distribution = torch.distributions.Categorical(logits=engine.model(whole)[0, states])
        part = slice(first, first + length)
        expected = distribution.log_prob(whole[0, len(prompt) :])
        torch.testing.assert_close(log_probs[part], expected, atol=1e-4, rtol=0)
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
    said = [t for c in completions for t in c.token_ids]
    assert answers.targets.tolist() == said
    before = answers.rows.tokens.flatten()[answers.before].tolist()
    firsts = {0, *torch.tensor(answers.lengths).cumsum(0).tolist()}
    assert all(before[i] == said[i - 1] for i in range(len(said)) if i not in firsts)
    assert answers.rows.tokens.shape[1] == row_length


def completion(token_ids: list[int], reason: FinishReason) -> Completion:
    return Completion(
        token_ids=tuple(token_ids), logprobs=(0.0,) * len(token_ids), text="", finish_reason=reason, prompt_tokens=1
    )


def test_only_the_end_of_a_turn_ends_an_answer_and_every_answer_is_judged_with_it() -> None:
    end, end_of_text = tokenizer().end_id, tokenizer().end_of_text_id
    words = tokens(6, seed=4).tolist()
    answers = [
        completion([*words, end], "stop"),
        completion([*words, end_of_text], "stop"),
        completion(words, "length"),
    ]
    assert [ended(a, end) for a in answers] == [True, False, False]
    reward = RewardModelReward(model=scalar(), mean=0, std=1, row_length=32, dtype=torch.float32, end_id=end)
    first, *others = reward([Question(tuple(PROMPTS[0]))] * 3, answers).tolist()
    assert others == pytest.approx([first, first], abs=1e-5)


def test_the_end_of_a_text_is_punished_like_a_cut() -> None:
    config = PPOConfig(rollouts=1, prompts_per_rollout=2, minibatches=1, row_length=64, missing_end_penalty=3.0)
    prompts = [Question(tuple(ids)) for ids in PROMPTS[:2]]
    reward = RewardModelReward(
        model=scalar(), mean=0, std=1, row_length=64, dtype=torch.float32, end_id=tokenizer().end_id
    )
    objective = PPOObjective(config, causal(), scalar(), reward, tokenizer(), prompts, seed=0)
    answers = [completion([20, tokenizer().end_id], "stop"), completion([20, tokenizer().end_of_text_id], "stop")]
    rollout = Rollout(questions=prompts, completions=answers, scores=torch.zeros(2), kl=0.0, per_token={})
    assert objective.penalised(rollout).tolist() == [0, -3]
