"""FLOPs against what PyTorch counts of the products that are really computed, and the peak they are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from chatwheel.data.packing import pack
from chatwheel.model.lora import LoRAConfig, add_lora
from chatwheel.model.transformer import CausalLM, ScalarModel, packed_mask, window_mask
from chatwheel.training.batches import Rows
from chatwheel.training.next_token import NextTokenObjective
from chatwheel.training.reward import EncodedRanking, RewardConfig, RewardObjective
from chatwheel.training.throughput import Work, forward_flops, matrix_peak, training_flops
from tests.tiny import causal, config, scalar, tokens


def counted(model: CausalLM | ScalarModel, length: int, backwards: bool) -> int:
    """Of one row without padding, all its tokens predicted."""
    x = tokens(1, length)
    with FlopCounterMode(display=False) as counter:
        y = model(x)
        if backwards:
            y.sum().backward()
    return int(counter.get_total_flops())


# The products compute all T x T scores, of which a causal mask lets (T + 1) / 2 a token through: counted as PaLM does.
def whole_row(length: int) -> Work:
    return Work(tokens=length, seen=length * length, predicted=length)


def test_forwards_is_what_pytorch_counts() -> None:
    for tied in (True, False):
        model = causal(tied_embeddings=tied)
        assert forward_flops(model, whole_row(64)) == counted(model, 64, backwards=False)


def test_forwards_and_backwards_is_what_pytorch_counts() -> None:
    model = causal()
    assert training_flops(model, whole_row(64)) == pytest.approx(counted(model, 64, backwards=True), rel=1e-9)
    assert training_flops(model, whole_row(64)) == 3 * forward_flops(model, whole_row(64))


def test_a_frozen_matrix_has_no_gradient_of_its_own() -> None:
    model = causal()
    whole = training_flops(model, whole_row(64))
    add_lora(model, LoRAConfig(rank=4), torch.Generator().manual_seed(0))
    ours, real = training_flops(model, whole_row(64)), counted(model, 64, backwards=True)
    assert ours < whole
    # The first layer's inputs need no gradient at all, which is counted here as if they did.
    first = model.model.layers[0].self_attn
    saved = 2 * 64 * sum(p.weight.numel() for p in (first.q_proj, first.k_proj, first.v_proj))
    saved += 2 * 64 * sum(p.adapter.lora_A.numel() for p in (first.q_proj, first.k_proj, first.v_proj))
    assert ours == pytest.approx(real + saved, rel=1e-9)


def test_a_head_of_one_value_is_not_counted() -> None:
    model = scalar()
    c = config()
    layers = 2 * (c.hidden_size * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads) + 3 * 32 * 48)
    work = Work(tokens=10, seen=55)
    assert training_flops(model, work) == 6 * layers * 10 + 12 * 2 * 4 * 8 * 55


def test_work_is_of_real_tokens_and_what_each_of_them_sees() -> None:
    packed = pack([[1, 2, 3], [4, 5]], 8, masks=[[False, True, True], [False, True]], pad=0)
    assert Work.of(packed, config()) == Work(tokens=5, seen=1 + 2 + 3 + 1 + 2, predicted=3)
    assert Work.of_answers([[1, 2]], [[3]], config()) == Work(tokens=3, seen=6, predicted=1)


MISTRAL = {"qk_norm": False, "sliding_window": 4}


@pytest.mark.parametrize("changes", [MISTRAL, {"sliding_window": 5, "num_full_layers": 1}], ids=["all", "some layers"])
def test_what_lies_beyond_a_window_is_not_seen(changes: dict[str, Any]) -> None:
    model = causal(**changes)
    packed = pack([tokens(n, seed=n).tolist() for n in (20, 3, 31, 9)], 32)
    rows = Rows.of(packed)
    causally = packed_mask(rows.segments, torch.float32)
    layers = [model.config.window(i) for i in range(model.config.num_layers)]
    masks = [causally if w is None else window_mask(causally, rows.positions, w) for w in layers]
    seen = sum(int((mask[:, 0][rows.segments > 0] == 0).sum()) for mask in masks if mask is not None)
    assert Work.of(packed, model.config).seen * len(layers) == seen
    full = Work.of(packed, config())
    c = model.config
    fewer = 12 * c.num_heads * c.head_dim * (len(layers) * full.seen - seen)
    assert training_flops(model, full) - training_flops(model, Work.of(packed, c)) == pytest.approx(fewer)
    # An answer alone in its row is read as in any other.
    alone = pack([tokens(31, seed=31).tolist()], 32)
    x = alone.tokens[0, :31].tolist()
    assert Work.of_answers([x[:20]], [x[20:]], c).seen == Work.of(alone, c).seen


def test_the_steps_of_a_reward_model_count_the_window_too() -> None:
    ids = tokens(40).tolist()
    rankings = [EncodedRanking([[*ids[:30], *ids[30:34]], [*ids[:30], *ids[34:]]], [(0, 1)])]

    def flops(**changes: Any) -> float:
        config = RewardConfig(rankings_per_step=1, row_length=64)
        return RewardObjective(scalar(**changes), rankings, config, 0, torch.float32).flops(0)

    # The prompt once, and the branches behind it: positions 0..29, 30..33 and 30..35.
    places = [*range(30), *range(30, 34), *range(30, 36)]
    fewer = sum(place + 1 - min(place + 1, 4) for place in places)
    c = config()
    without = flops(qk_norm=False)
    assert without - flops(**MISTRAL) == pytest.approx(12 * c.num_layers * c.num_heads * c.head_dim * fewer)


def test_a_step_s_flops_are_of_its_rows() -> None:
    model = causal().train()
    packed = pack([tokens(n, seed=n).tolist() for n in (20, 13, 31, 9)], 32)
    objective = NextTokenObjective(model, packed, rows_per_step=2, rows_at_once=1, seed=0, dtype=torch.float32)
    batches = objective.batches(0)
    assert len(batches) == 2
    expected = sum(training_flops(model, Work.of(rows, model.config)) for rows, _ in batches)
    assert objective.flops(0) == pytest.approx(expected)
    # Padding and pairs that the mask hides are computed, but are no work: what is computed is more.
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            objective.loss(batch)[0].backward()
    assert objective.flops(0) < counter.get_total_flops()
    assert Rows.of(batches[0][0]).tokens.shape == (1, 32)


def test_the_peak_is_a_speed_and_quickly_measured() -> None:
    state = torch.get_rng_state()
    peak = matrix_peak(torch.float32, size=256, seconds=0.2)
    assert torch.equal(torch.get_rng_state(), state)  # a dropout may draw from there
    a = torch.from_numpy(np.ones((256, 256), np.float32))
    with FlopCounterMode(display=False) as counter:
        a @ a
    assert counter.get_total_flops() == 2 * 256**3
    assert 1e8 < peak < 1e14
