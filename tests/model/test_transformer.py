"""The decoder against transformers' Llama and Qwen3, opened from the directory that Chatwheel writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from chatwheel.data.packing import grow_trees, pack, pack_trees
from chatwheel.model import transformer
from chatwheel.model.checkpoint import save_model
from chatwheel.model.transformer import CausalLM, ScalarModel, initialise, packed_mask
from chatwheel.training.batches import Rows
from tests.tiny import VOCAB, causal, config, scalar, tokenizer, tokens

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3, tied": {},
    "llama, tied": {"qk_norm": False},
    "llama, untied": {"qk_norm": False, "tied_embeddings": False},
    "a head for each query": {"num_kv_heads": 4},
    "one head for all queries": {"num_kv_heads": 1},
    "heads wider than the model": {"head_dim": 24},
    "another RoPE base and epsilon": {"rope_theta": 500_000.0, "norm_eps": 1e-3},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_are_those_of_transformers(shape: dict[str, Any], tmp_path: Path) -> None:
    model = causal(**shape)
    save_model(tmp_path / "model", model, tokenizer(), {})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    assert isinstance(theirs, Qwen3ForCausalLM if model.config.qk_norm else LlamaForCausalLM)
    ids = tokens(3, 200)
    with torch.no_grad():
        ours, expected = model(ids), theirs(ids).logits
    assert expected.std() > 1  # a flat model would agree with anything
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_the_number_of_parameters_is_that_of_transformers(tmp_path: Path) -> None:
    for shape in SHAPES.values():
        model = causal(**shape)
        save_model(tmp_path / "model", model, tokenizer(), {})
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        assert model.config.num_parameters == theirs.num_parameters()


@pytest.mark.parametrize("qk_norm", [True, False])
def test_rewards_are_those_of_transformers_in_padded_batches(qk_norm: bool, tmp_path: Path) -> None:
    model = scalar(qk_norm=qk_norm)
    save_model(tmp_path / "reward", model, tokenizer(), {})
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", dtype=torch.float32).eval()
    assert isinstance(theirs, Qwen3ForSequenceClassification if qk_norm else LlamaForSequenceClassification)
    sequences = [tokens(n, seed=n) for n in (1, 7, 30, 64)]
    padded = torch.full((len(sequences), 64), tokenizer().end_of_text_id)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    attention = (padded != tokenizer().end_of_text_id).long()
    with torch.no_grad():
        expected = theirs(padded, attention_mask=attention).logits[:, 0]
        alone = torch.stack([model(sequence[None])[0, -1] for sequence in sequences])
        batched = model(padded)[torch.arange(4), torch.tensor([len(s) - 1 for s in sequences])]
    torch.testing.assert_close(alone, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(batched, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("longest_plain", [512, 0], ids=["two products", "fused kernel"])
def test_packed_rows_are_the_same_as_separate_sequences(longest_plain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "LONGEST_PLAIN", longest_plain)
    sequences = [tokens(n, seed=n).tolist() for n in (17, 5, 1, 9, 30, 12)]
    packed = pack(sequences, 32)
    assert len(packed) < len(sequences)
    together, apart = causal(), causal()
    hidden_BTD = Rows.of(packed).hidden(together.model, torch.float32)
    weights = [torch.linspace(-1, 1, len(s))[:, None] for s in sequences]  # so that no gradient cancels
    loss_together, loss_apart = torch.zeros(()), torch.zeros(())
    for sequence, (row, begin, length), weight in zip(sequences, packed.places, weights, strict=True):
        inside = together.logits(hidden_BTD[row, begin : begin + length])
        alone = apart(torch.tensor([sequence]))[0]
        torch.testing.assert_close(inside, alone, atol=1e-5, rtol=1e-5)
        loss_together = loss_together + (inside.square() * weight).sum()
        loss_apart = loss_apart + (alone.square() * weight).sum()
    loss_together.backward()
    loss_apart.backward()
    for (name, ours), theirs in zip(together.named_parameters(), apart.parameters(), strict=True):
        difference = (_gradient(ours) - _gradient(theirs)).norm() / _gradient(theirs).norm()
        assert difference < 1e-5, name


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_padding_gives_neither_nan_nor_gradient() -> None:
    model = causal()
    packed = pack([tokens(5).tolist()], 32)
    hidden = Rows.of(packed).hidden(model.model, torch.float32)
    assert hidden.isfinite().all()
    hidden[0, :5].sum().backward()
    used = set(packed.tokens[0, :5].tolist())
    moved = model.model.embed_tokens.weight.grad
    assert moved is not None
    assert set(moved.abs().sum(-1).nonzero()[:, 0].tolist()) == used


def test_no_token_sees_a_later_one() -> None:
    model, ids = causal(), tokens(1, 20)
    changed = ids.clone()
    changed[0, 12] = (ids[0, 12] + 1) % VOCAB
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_the_packed_mask_by_brute_force() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 2, 0, 0]])
    mask = packed_mask(segments, torch.float32)[0, 0]
    for i in range(7):
        for j in range(7):
            allowed = j <= i and segments[0, i] == segments[0, j]
            assert mask[i, j] == (0 if allowed else -torch.inf)


def test_a_branch_of_a_tree_is_computed_as_the_whole_sequence() -> None:
    model = scalar()
    prompt = tokens(20, seed=1).tolist()
    sequences = [[*prompt, *tokens(n, seed=n).tolist()] for n in (4, 7, 4, 1)]
    trees = grow_trees(sequences, 64)
    assert len(trees) == 1, "nothing to test without a shared prompt"
    packed = pack_trees(trees, 64)
    values_BT = model.values(Rows.of(packed).hidden(model.model, torch.float32))
    row, begin, _ = packed.places[0]
    for sequence, end in zip(sequences, trees[0].ends, strict=True):
        alone = model(torch.tensor([sequence]))[0, -1]
        torch.testing.assert_close(values_BT[row, begin + end], alone, atol=1e-5, rtol=0)


def test_sequences_beyond_the_plain_length_take_the_fused_kernel_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal(max_positions=1024)
    ids = tokens(1, 600)
    fused = model(ids)
    monkeypatch.setattr(transformer, "LONGEST_PLAIN", 10_000)
    torch.testing.assert_close(fused, model(ids), atol=1e-4, rtol=0)


def test_bfloat16_is_close_and_the_weights_stay_fp32() -> None:
    model, ids = causal(), tokens(2, 60)
    hidden = model.model(ids, dtype=torch.bfloat16)
    assert hidden.dtype == torch.bfloat16
    exact, rough = model(ids), model.logits(hidden).float()
    assert (exact - rough).abs().max() < 0.05 * exact.abs().max()
    rough.square().mean().backward()
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_fresh_model_is_undecided_and_depends_on_its_seed_alone() -> None:
    def fresh(seed: int) -> CausalLM:
        model = CausalLM(config())
        initialise(model, torch.Generator().manual_seed(seed))
        return model

    a, again, b = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), again.parameters(), strict=True))
    assert not torch.equal(a.model.embed_tokens.weight, b.model.embed_tokens.weight)
    uniform = torch.log(torch.tensor(float(VOCAB)))
    entropy = torch.distributions.Categorical(logits=a(tokens(4, 50))).entropy().mean()
    assert abs(entropy - uniform) < 0.05 * uniform
    reward = ScalarModel(config())
    initialise(reward, torch.Generator().manual_seed(1))
    assert torch.equal(reward(tokens(2, 9)), torch.zeros(2, 9))


@pytest.mark.parametrize("shape", [{}, {"num_kv_heads": 4}, {"qk_norm": False, "tied_embeddings": False}])
def test_a_fresh_model_s_first_head_looks_at_the_token_before(shape: dict[str, Any]) -> None:
    model = CausalLM(config(**shape))
    initialise(model, torch.Generator().manual_seed(0))
    ids = tokens(8, 40)
    attention = model.model.layers[0].self_attn
    x_BTD = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
    K = model.config.head_dim
    rope = transformer.rope_tables(torch.arange(40)[None], model.config, torch.float32)
    q_BTK = transformer.rotate(attention.q_norm(attention.q_proj(x_BTD)[..., :K])[:, None], rope)[:, 0]
    k_BTK = transformer.rotate(attention.k_norm(attention.k_proj(x_BTD)[..., :K])[:, None], rope)[:, 0]
    mask = torch.full((40, 40), -torch.inf).triu(1)
    weights_BTT = (q_BTK @ k_BTK.mT * K**-0.5 + mask).softmax(-1)
    before = weights_BTT.diagonal(-1, 1, 2).mean()
    itself = weights_BTT.diagonal(0, 1, 2)[:, 1:].mean()
    further = weights_BTT.diagonal(-2, 1, 2).mean()
    assert before > itself
    assert before > further


def test_a_fresh_model_s_tokens_find_their_like_rather_than_themselves() -> None:
    model = CausalLM(config(hidden_size=128, head_dim=64, rope_theta=1e6))
    initialise(model, torch.Generator().manual_seed(0))
    c = model.config
    ids = tokens(16, 24)
    ids[:, 20] = ids[:, 8]  # said again, twelve tokens on
    attention = model.model.layers[1].self_attn
    x_BTD = model.model.layers[1].input_layernorm(model.model.embed_tokens(ids))
    rope = transformer.rope_tables(torch.arange(24)[None], c, torch.float32)
    groups = c.num_heads // c.num_kv_heads
    for head in range(0, c.num_heads, groups):
        query, key = (
            transformer.rotate(norm(projection(x_BTD).view(16, 24, -1, c.head_dim)[:, :, h])[:, None], rope)[:, 0]
            for norm, projection, h in (
                (attention.q_norm, attention.q_proj, head),
                (attention.k_norm, attention.k_proj, head // groups),
            )
        )
        weights_BS = (query[:, 20:21] @ key[:, :21].mT * c.head_dim**-0.5).softmax(-1)[:, 0]
        assert weights_BS[:, 8].mean() > weights_BS[:, 20].mean()
        assert weights_BS[:, 8].mean() > 0.5
