"""Texts that are only read: embeddings and rewards, in the same steps as answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams, Task
from chatwheel.errors import ContextLengthError, InputError
from chatwheel.training.reward import score
from tests.engine.compiled import needs_kernels
from tests.tiny import causal, scalar, tokenizer, tokens


def texts(*lengths: int) -> list[tuple[int, ...]]:
    return [tuple(tokens(n, seed=n).tolist()) for n in lengths]


def read(machine: Engine, sequences: list[tuple[int, ...]], task: Task) -> list[Completion]:
    return machine.generate([Request(prompt_ids=ids, task=task) for ids in sequences])


@pytest.mark.parametrize("options", [{}, {"max_step_tokens": 7, "max_running": 2}, {"cache_tokens": 128}])
def test_embeddings_are_those_of_a_plain_forward_pass(options: dict[str, Any]) -> None:
    model, sequences = causal(), texts(1, 16, 33, 60, 100)
    machine = Engine(model, tokenizer(), **options)
    for task in ("mean", "last"):
        for ids, found in zip(sequences, read(machine, sequences, task), strict=True):
            hidden_TD = model.model(torch.tensor([ids]))[0].detach()
            expected_D = hidden_TD.mean(0) if task == "mean" else hidden_TD[-1]
            torch.testing.assert_close(torch.tensor(found.embedding), expected_D / expected_D.norm(), atol=1e-5, rtol=0)
            assert (found.token_ids, found.text, found.prompt_tokens) == ((), "", len(ids))
    assert machine.counts.blocks_held == 0


def test_scores_are_those_of_the_trainer_s_own_pass() -> None:
    model = scalar()
    stem = tokens(40, seed=9).tolist()
    sequences = [(*stem, *ids) for ids in texts(1, 5, 20, 21)]
    machine = Engine(model, tokenizer(), max_running=2)
    found = [c.score for c in read(machine, sequences, "score")]
    np.testing.assert_allclose(found, score(model, sequences, 64, torch.float32).numpy(), atol=1e-5)
    assert machine.counts.cached_tokens > 0  # of the stem that they share


@needs_kernels
@pytest.mark.parametrize("task", ["mean", "last"])
def test_the_same_bits_in_any_company(task: Task) -> None:
    model, sequences = causal(), texts(3, 30, 31, 64, 90)
    alone = [read(Engine(model, tokenizer()), [ids], task)[0].embedding for ids in sequences]
    machine = Engine(model, tokenizer(), max_step_tokens=33, max_running=8, cache_tokens=320)
    answers = [
        Request(prompt_ids=ids, params=SamplingParams(max_tokens=40, seed=i, ignore_eos=True))
        for i, ids in enumerate(texts(5, 50, 12))
    ]
    mixed = machine.generate([*answers, *(Request(prompt_ids=ids, task=task) for ids in sequences)])
    assert [c.embedding for c in mixed[3:]] == alone
    assert [len(c.token_ids) for c in mixed[:3]] == [40, 40, 40]


def test_weights_that_move_meanwhile_are_not_mixed() -> None:
    model, (ids,) = causal(), texts(64)
    machine = Engine(model, tokenizer(), max_step_tokens=16, max_running=1)
    machine.submit(Request(prompt_ids=ids, task="mean"))
    machine.step()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.1)
    machine.update_weights()
    done = [delta.completion for _ in range(4) for _, delta in machine.step()]
    assert done[-1] is not None
    assert done[-1].embedding == read(Engine(model, tokenizer()), [ids], "mean")[0].embedding


def test_what_a_model_cannot_do_is_one_line() -> None:
    for model, task in ((causal(), "score"), (scalar(), "generate"), (scalar(), "mean")):
        with pytest.raises(InputError, match="a reward model scores texts, and nothing else does"):
            read(Engine(model, tokenizer()), texts(3), task)  # type: ignore[arg-type]
    longest = causal().config.max_positions
    machine = Engine(causal(), tokenizer())
    assert read(machine, texts(longest), "last")[0].embedding is not None  # no room for an answer is needed
    with pytest.raises(ContextLengthError):
        read(machine, texts(longest + 1), "last")
