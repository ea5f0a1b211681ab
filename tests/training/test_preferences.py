"""Answers behind their prompts: where they begin, how likely a model finds them, and what is kept of the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from chatwheel.data.packing import grow_trees
from chatwheel.data.records import Ranking
from chatwheel.errors import InputError
from chatwheel.model.transformer import CausalLM
from chatwheel.training.preferences import (
    EncodedPreferences,
    PromptedAnswer,
    answer_log_probs,
    encode_answers,
    encode_preferences,
    pair_accuracy,
    reference_log_probs,
)
from tests.tiny import causal, tokenizer, tokens


def ranking(answers: list[str], ranks: list[int], question: str = "What is the capital?") -> Ranking:
    return Ranking.model_validate(
        {"messages": [{"role": "user", "content": question}], "answers": answers, "ranks": ranks}
    )


def answers_of(number: int, seed: int, prompt: int = 14) -> list[PromptedAnswer]:
    """Answers to one prompt; the first two begin alike."""
    asked, same = tokens(prompt, seed=100 + seed).tolist(), tokens(3, seed=seed).tolist()
    ends = [tokens(2 + (i * 7 + seed) % 9, seed=seed * 10 + i).tolist() for i in range(number)]
    return [PromptedAnswer(asked + (same if i < 2 else []) + end, prompt) for i, end in enumerate(ends)]


def by_hand(model: CausalLM, answer: PromptedAnswer) -> Tensor:
    log_probs = model(torch.tensor([answer.tokens]))[0].log_softmax(-1)
    places = range(answer.begin, len(answer.tokens))
    return torch.stack([log_probs[i - 1, answer.tokens[i]] for i in places]).sum()


def many() -> list[PromptedAnswer]:
    # Prompts of one length and others; one that begins as its neighbour does, which a tree takes for its prompt's.
    some = [answer for seed, n in enumerate((4, 2, 3)) for answer in answers_of(n, seed)]
    longer = PromptedAnswer([*some[-1].tokens, *tokens(6, seed=77).tolist()], some[-1].begin + 4)
    return [*some, longer, *answers_of(1, 9, prompt=1)]


def test_the_log_prob_of_an_answer_is_the_sum_over_its_own_tokens() -> None:
    model, answers = causal(), many()
    assert len(grow_trees([a.tokens for a in answers], 60)) < len(answers)
    weights = torch.linspace(-1, 1, len(answers))
    ours = answer_log_probs(model, answers, 60, torch.float32)
    (ours @ weights).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    theirs = torch.stack([by_hand(model, answer) for answer in answers])
    (theirs @ weights).backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-3)


def test_gradients_have_one_order_of_adding_in_many_threads() -> None:
    answers = answers_of(150, 0)  # all on one prompt, whose end is before the first token of each
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(6):
            model = causal(hidden_size=128, num_layers=1)
            answer_log_probs(model, answers, 1200, torch.float32).sum().backward()
            found.append(model.model.embed_tokens.weight.grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_an_answer_is_what_the_assistant_says_last() -> None:
    turns = [("user", "Hi"), ("assistant", "Hello."), ("user", "What is the capital?"), ("assistant", "Paris.")]
    conversation = [{"role": role, "content": content} for role, content in turns]
    (answer,) = encode_answers([conversation], tokenizer())
    prompt = tokenizer().encode_prompt(conversation[:-1])
    assert answer.tokens[: answer.begin] == prompt
    assert answer.tokens[answer.begin :] == [*tokenizer().encode("Paris."), tokenizer().end_id]


def test_rankings_without_a_pair_or_room_are_left_out() -> None:
    rankings = [
        ranking(["a", "b", "c"], [1, 1, 2]),
        ranking(["a", "b"], [3, 3]),
        ranking(["a " * 200, "b"], [1, 2]),
    ]
    (found,), dropped = encode_preferences(rankings, tokenizer(), 64)
    assert dropped == 2
    assert found.pairs == [(0, 2), (1, 2)]
    assert len({tuple(a.tokens[: a.begin]) for a in found.answers}) == 1


def reference(model: CausalLM, groups: list[list[PromptedAnswer]], directory: Path, at_once: int = 2) -> list[Tensor]:
    return reference_log_probs(model, groups, directory=directory, at_once=at_once, row_length=60, dtype=torch.float32)


def test_the_reference_is_kept_and_is_of_these_answers(tmp_path: Path) -> None:
    groups = [answers_of(3, 0), answers_of(2, 1), answers_of(1, 2)]
    first = reference(causal(), groups, tmp_path)
    assert [len(values) for values in first] == [3, 2, 1]
    expected = [torch.stack([by_hand(causal(), a) for a in group]).detach() for group in groups]
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-4)
    again = reference(causal(seed=1), groups, tmp_path, at_once=1)  # a run goes on: whatever the weights are now
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    others = reference(causal(), groups[:2], tmp_path)
    torch.testing.assert_close(others, expected[:2], rtol=1e-5, atol=1e-4)
    (tmp_path / "reference" / "state.safetensors").write_bytes(b"damage")
    with pytest.raises(InputError, match="damaged"):
        reference(causal(), groups[:2], tmp_path)


def test_accuracy_counts_every_pair_once() -> None:
    model, base = causal(seed=3), causal()
    held_out = [EncodedPreferences(answers_of(3, s), [(0, 1), (0, 2), (2, 1)][: 1 + s]) for s in range(3)]
    before = [torch.stack([by_hand(base, a) for a in one.answers]).detach() for one in held_out]
    for average in (False, True):
        gains = [
            [
                float(by_hand(model, a).detach() - b) / (a.length if average else 1)
                for a, b in zip(one.answers, values, strict=True)
            ]
            for one, values in zip(held_out, before, strict=True)
        ]
        right = [g[i] > g[j] for one, g in zip(held_out, gains, strict=True) for i, j in one.pairs]
        found = pair_accuracy(model, held_out, before, at_once=2, row_length=60, dtype=torch.float32, average=average)
        assert found == {"pair_accuracy": round(sum(right) / 6, 4), "pairs": 6}
    assert pair_accuracy(model, [], [], at_once=2, row_length=60, dtype=torch.float32) == {}
