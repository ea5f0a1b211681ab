"""The loss of pretraining and SFT against cross-entropy written out, a sequence at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from chatwheel.data.packing import pack
from chatwheel.data.records import Demonstration, Document
from chatwheel.errors import InputError
from chatwheel.model.chat_template import SPECIAL_TOKENS
from chatwheel.model.lora import LoRAConfig, add_lora
from chatwheel.model.transformer import CausalLM
from chatwheel.training.batches import RowOrder, Rows
from chatwheel.training.next_token import NextTokenObjective, held_out_loss, next_token_loss
from chatwheel.training.pretrain import bits_per_byte, pack_documents
from chatwheel.training.sft import pack_demonstrations
from tests.tiny import TEXT, causal, tokenizer, tokens

SEQUENCES = [tokens(n, seed=n).tolist() for n in (9, 20, 4, 13, 7, 16, 2, 1, 11)]
MASKS = [[(i * 7 + len(s)) % 3 > 0 for i in range(len(s))] for s in SEQUENCES]


@torch.no_grad()
def by_hand(model: CausalLM, sequences: list[list[int]], masks: list[list[bool]]) -> tuple[float, int]:
    """Summed -log p of each supervised token, and how many there are."""
    nats, count = 0.0, 0
    for sequence, mask in zip(sequences, masks, strict=True):
        log_probs = model(torch.tensor([sequence]))[0].double().log_softmax(-1)
        for i in range(1, len(sequence)):
            if mask[i]:
                nats -= float(log_probs[i - 1, sequence[i]])
                count += 1
    return nats, count


@pytest.mark.parametrize("adapted", [False, True])
def test_the_tokens_that_were_the_likeliest_are_counted(adapted: bool) -> None:
    model = causal(tied_embeddings=not adapted)
    if adapted:  # the output layer's slices go another way then
        add_lora(model, LoRAConfig(rank=2, targets=("lm_head",)), torch.Generator().manual_seed(0))
    expected = count = 0
    sequences = [list(sequence) for sequence in SEQUENCES]
    with torch.no_grad():
        for sequence, mask in zip(sequences, MASKS, strict=True):
            for i in range(1, len(sequence), 2):  # every other token is the likeliest
                sequence[i] = int(model(torch.tensor([sequence[:i]]))[0, -1].argmax())
            likeliest = model(torch.tensor([sequence]))[0].argmax(-1).tolist()
            expected += sum(likeliest[i - 1] == sequence[i] for i in range(1, len(sequence)) if mask[i])
            count += sum(mask[1:])
    packed = pack(sequences, 24, masks=MASKS)
    assert held_out_loss(model, packed, rows_at_once=2, dtype=torch.float32)["hits"] == expected
    objective = NextTokenObjective(
        model,
        packed,
        rows_per_step=len(packed),
        rows_at_once=2,
        seed=0,
        dtype=torch.float32,
        accuracy=True,
    )
    found = 0.0
    for batch in objective.batches(0):
        loss, metrics = objective.loss(batch)
        found += metrics["accuracy"]
        loss.backward()
    assert 0 < expected < count
    assert found == pytest.approx(expected / count)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_separate_sequences() -> None:
    model = causal()
    packed = pack(SEQUENCES, 24, masks=MASKS)
    nats, count = by_hand(model, SEQUENCES, MASKS)
    assert float(next_token_loss(model, Rows.of(packed), torch.float32)) == pytest.approx(nats, rel=1e-5)
    for at_once in (1, 2, 100):
        result = held_out_loss(model, packed, rows_at_once=at_once, dtype=torch.float32)
        assert result["nats"] == pytest.approx(nats, rel=1e-5)
        assert result["tokens"] == count


def gradients(model: CausalLM, rows_at_once: int) -> tuple[float, list[torch.Tensor]]:
    packed = pack(SEQUENCES, 24, masks=MASKS)
    objective = NextTokenObjective(
        model, packed, rows_per_step=len(packed), rows_at_once=rows_at_once, seed=0, dtype=torch.float32
    )
    total = 0.0
    for batch in objective.batches(0):
        loss, _ = objective.loss(batch)
        loss.backward()
        total += float(loss.detach())
    return total, [p.grad for p in model.parameters() if p.grad is not None]


def test_a_step_does_not_depend_on_how_it_is_split() -> None:
    nats, count = by_hand(causal(), SEQUENCES, MASKS)
    whole, expected = gradients(causal(), 100)
    assert whole == pytest.approx(nats / count, rel=1e-5)
    for rows_at_once in (1, 2, 3):
        loss, found = gradients(causal(), rows_at_once)
        assert loss == pytest.approx(whole, rel=1e-5)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_tokens_that_are_not_supervised_teach_nothing() -> None:
    """Only the tokens before and at a supervised one have any part in its loss."""
    model = causal()
    sequence = tokens(10).tolist()
    mask = [False] * 5 + [True] + [False] * 4
    loss = next_token_loss(model, Rows.of(pack([sequence], 10, masks=[mask])), torch.float32)
    changed = [*sequence[:6], 11, 12, 13, 14]
    same = next_token_loss(model, Rows.of(pack([changed], 10, masks=[mask])), torch.float32)
    assert float(loss) == float(same)
    other = next_token_loss(model, Rows.of(pack([[12, *sequence[1:]]], 10, masks=[mask])), torch.float32)
    assert float(loss) != float(other)


def test_rows_without_anything_to_learn_are_harmless() -> None:
    model = causal()
    packed = pack([tokens(5).tolist()], 5, masks=[[False] * 5])
    objective = NextTokenObjective(model, packed, rows_per_step=1, rows_at_once=1, seed=0, dtype=torch.float32)
    (batch,) = objective.batches(0)
    loss, _ = objective.loss(batch)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_documents_stand_between_ends_of_text() -> None:
    packed = pack_documents([Document(text=t) for t in TEXT], tokenizer(), 64)
    border = tokenizer().end_of_text_id
    found = []
    for row, segments in enumerate(packed.segments):
        for number in range(1, int(segments.max()) + 1):
            found.append(packed.tokens[row][segments == number].tolist())
    assert sorted(found) == sorted([border, *tokenizer().encode(t), border] for t in TEXT)


def test_a_document_that_spells_a_special_token_does_not_contain_one() -> None:
    text = f"before {' '.join(SPECIAL_TOKENS)} after"
    packed = pack_documents([Document(text=text)], tokenizer(), 64)
    special = {tokenizer().encode(token)[0] for token in SPECIAL_TOKENS}
    inside = packed.tokens[packed.segments > 0].tolist()[1:-1]
    assert not special & set(inside)
    assert "before" in tokenizer().decode(inside)


def test_no_documents_is_one_line() -> None:
    with pytest.raises(InputError, match="no documents"):
        pack_documents([], tokenizer(), 64)


def test_demonstrations_teach_the_assistant_s_words_only() -> None:
    def demonstration(question: str, answer: str) -> Demonstration:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return Demonstration.model_validate({"messages": messages})

    records = [demonstration("What is the capital?", "Paris."), demonstration("首都?", "巴黎。")]
    packed, dropped = pack_demonstrations([*records, demonstration("x" * 500, "long")], tokenizer(), 40)
    assert dropped == 1
    supervised = packed.tokens[packed.supervised].tolist()
    assert supervised.count(tokenizer().end_id) == 2
    said = tokenizer().decode(supervised)
    assert sorted(said) == sorted("Paris.巴黎。")
    with pytest.raises(InputError, match=r"3 were longer|1 were longer"):
        pack_demonstrations([demonstration("x" * 500, "long")], tokenizer(), 40)


def test_bits_per_byte_by_hand() -> None:
    model = causal()
    texts = TEXT[:3]
    border = tokenizer().end_of_text_id
    sequences = [[border, *tokenizer().encode(t), border] for t in texts]
    nats, _ = by_hand(model, sequences, [[True] * len(s) for s in sequences])
    expected = nats / math.log(2) / sum(len(t.encode()) for t in texts)
    assert bits_per_byte(model, tokenizer(), texts, 128) == pytest.approx(expected, rel=1e-5)


def test_the_order_of_rows_is_whole_shuffled_epochs_whenever_one_asks() -> None:
    order = RowOrder(num_rows=10, rows_per_step=4, seed=3)
    flat = np.concatenate([order.batch(i) for i in range(10)])
    epochs = flat.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert (RowOrder(10, 4, 3).batch(7) == order.batch(7)).all()
    assert (order.batch(0) == flat[:4]).all()
    assert not all((RowOrder(10, 4, 4).batch(i) == order.batch(i)).all() for i in range(3))


def test_more_rows_a_step_than_there_are() -> None:
    order = RowOrder(num_rows=3, rows_per_step=8, seed=0)
    assert sorted(np.bincount(np.concatenate([order.batch(i) for i in range(3)])).tolist()) == [8, 8, 8]


def test_the_primer_comes_first_and_then_the_whole_text() -> None:
    packed = pack([[n] * 8 for n in range(1, 7)], 8)
    primer = pack([[n] * 8 for n in range(11, 14)], 8)
    arguments = {"rows_per_step": 2, "rows_at_once": 2, "seed": 0, "dtype": torch.float32}
    plain = NextTokenObjective(causal(), packed, **arguments)
    primed = NextTokenObjective(causal(), packed, primer=primer, primer_steps=3, **arguments)

    def rows(objective: NextTokenObjective, step: int) -> list[int]:
        return [int(first) for part, _ in objective.batches(step) for first in part.tokens[:, 0]]

    assert sorted(rows(primed, 0) + rows(primed, 1)[:1]) == [11, 12, 13]
    assert all(row > 10 for row in rows(primed, 2))
    assert [rows(primed, 3 + step) for step in range(4)] == [rows(plain, step) for step in range(4)]
    # Without a primer's rows its steps are the text's own.
    without = NextTokenObjective(causal(), packed, primer_steps=3, **arguments)
    assert rows(without, 0) == rows(plain, 0)


def test_layers_computed_again_give_the_same_gradients_and_keep_less() -> None:
    packed = pack(SEQUENCES, 24, masks=MASKS)

    def gradients_and_kept(recompute: bool) -> tuple[list[torch.Tensor], int]:
        model, kept = causal(num_layers=6), 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        model.model.recompute = recompute
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = next_token_loss(model, Rows.of(packed), torch.float32)
        before_backward = kept
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None], before_backward

    (plain, everything), (again, little) = gradients_and_kept(False), gradients_and_kept(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < everything / 2
