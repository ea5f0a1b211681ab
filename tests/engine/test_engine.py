"""The engine against transformers' generate and against a plain forward pass, alone and in company."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from chatwheel.engine.draft_model import DraftModel
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams
from chatwheel.errors import ContextLengthError, InputError, OverloadedError
from chatwheel.model import transformer
from chatwheel.model.checkpoint import save_model
from chatwheel.model.transformer import CausalLM
from tests.engine.compiled import needs_kernels, ways
from tests.tiny import causal, tokenizer, tokens


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(tokens(length, seed=seed).tolist())


def ask(length: int, *, seed: int = 0, **params: object) -> Request:
    """A prompt of so many tokens. Random models seldom end; `ignore_eos` keeps lengths certain."""
    values = {"ignore_eos": True, "seed": seed} | params
    return Request(prompt_ids=prompt(length, seed), params=SamplingParams(**values))  # type: ignore[arg-type]


def engine(model: CausalLM | None = None, **options: Any) -> Engine:
    return Engine(model or causal(), tokenizer(), **options)


def run_all(machine: Engine) -> dict[int, tuple[str, Completion]]:
    """Steps to the end: the streamed text and the completion of each request."""
    texts: dict[int, str] = {}
    done: dict[int, tuple[str, Completion]] = {}
    while not machine.idle:
        for request_id, delta in machine.step():
            assert request_id not in done, "nothing comes after the completion"
            texts[request_id] = texts.get(request_id, "") + delta.text
            if delta.completion is not None:
                done[request_id] = (texts[request_id], delta.completion)
    return done


@pytest.mark.parametrize("qk_norm", [True, False])
def test_greedy_answers_are_those_of_transformers(qk_norm: bool, tmp_path: Path) -> None:
    model = causal(qk_norm=qk_norm)
    save_model(tmp_path / "m", model, tokenizer(), {})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=40,
        eos_token_id=[tokenizer().end_id, tokenizer().end_of_text_id],
        pad_token_id=tokenizer().end_of_text_id,
    )
    lengths = (1, 3, 17, 64, 120)
    requests = [ask(n, seed=n, temperature=0.0, max_tokens=40, ignore_eos=False) for n in lengths]
    for request, ours in zip(requests, engine(model).generate(requests), strict=True):
        ids = torch.tensor([request.prompt_ids])
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
        assert list(ours.token_ids) == expected[0, len(request.prompt_ids) :].tolist()
        assert ours.prompt_tokens == len(request.prompt_ids)


@pytest.mark.parametrize("longest_plain", [512, 30], ids=["two products", "fused kernel"])
def test_log_probs_are_those_of_a_plain_forward_pass(longest_plain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "LONGEST_PLAIN", longest_plain)
    model = causal()
    requests = [ask(n, seed=n, max_tokens=m) for n, m in ((1, 80), (40, 9), (5, 200), (100, 60), (7, 1))]
    for request, answer in zip(requests, engine(model).generate(requests), strict=True):
        whole = torch.tensor([[*request.prompt_ids, *answer.token_ids]])
        log_probs = model(whole)[0].log_softmax(-1)
        begin = len(request.prompt_ids)
        expected = log_probs[begin - 1 : -1].gather(-1, whole[0, begin:, None])[:, 0]
        assert len(answer.logprobs) == len(answer.token_ids) == request.params.max_tokens
        torch.testing.assert_close(torch.tensor(answer.logprobs), expected.detach(), atol=1e-4, rtol=0)


def test_an_answer_is_the_same_alone_and_among_31_others_that_come_and_go() -> None:
    model = causal()
    subject = ask(23, seed=99, max_tokens=60, temperature=0.9, top_p=0.95, top_k=50)
    (alone,) = engine(model, max_running=1).generate([subject])
    dice = random.Random(5)
    machine = engine(model, max_running=8)
    others = [
        ask(dice.randint(1, 90), seed=i, max_tokens=dice.randint(1, 70), temperature=dice.choice([0.0, 0.7, 1.5]))
        for i in range(31)
    ]
    waiting = [*others[:10], subject, *others[10:]]
    ids = [machine.submit(r) for r in waiting[:14]]
    leaving = dict(enumerate(ids[:10:3]))
    done: dict[int, Completion] = {}
    for step in range(1000):
        done |= {i: d.completion for i, d in machine.step() if d.completion is not None}
        if step % 4 == 0 and len(ids) < len(waiting):
            ids.append(machine.submit(waiting[len(ids)]))
        if step in leaving:
            machine.cancel(leaving[step])
        if machine.idle and len(ids) == len(waiting):
            break
    together = done[ids[10]]
    assert together.token_ids == alone.token_ids
    assert together.text == alone.text
    torch.testing.assert_close(torch.tensor(together.logprobs), torch.tensor(alone.logprobs), atol=1e-4, rtol=0)


def test_requests_that_share_a_prompt_are_answered_as_if_alone() -> None:
    model = causal()
    prompts = [tuple(tokens(n, seed=n).tolist()) for n in (39, 39, 4, 39, 4, 42)]
    requests = [
        Request(prompt_ids=p, params=SamplingParams(temperature=1.0, max_tokens=12, seed=i, ignore_eos=True))
        for i, p in enumerate(prompts)
    ]
    alone = [Engine(model, tokenizer()).generate([r])[0].token_ids for r in requests]
    together = Engine(model, tokenizer()).generate(requests)
    assert [c.token_ids for c in together] == alone
    assert [c.cached_tokens for c in together] == [0, 32, 0, 32, 0, 0]


def test_a_seed_decides_the_answer_and_no_seed_is_a_fresh_one() -> None:
    machine = engine()
    seeds = [1, 1, 2, None, None]
    a, same, b, c, d = machine.generate(
        [Request(prompt_ids=prompt(5), params=SamplingParams(seed=s, max_tokens=30, ignore_eos=True)) for s in seeds]
    )
    assert a.token_ids == same.token_ids
    assert len({a.token_ids, b.token_ids, c.token_ids, d.token_ids}) == 4


def test_streamed_pieces_are_the_whole_text() -> None:
    machine = engine(max_running=3)
    for n in range(8):
        machine.submit(ask(n + 1, seed=n, max_tokens=30, stop=("a", "的"), temperature=1.2))
    done = run_all(machine)
    assert len(done) == 8
    for text, completion in done.values():
        assert text == completion.text
        assert "a" not in text
        assert "的" not in text


def test_who_wants_no_pieces_gets_the_same_answers() -> None:
    requests = [ask(n + 1, seed=n, max_tokens=30, stop=("a", "的")[:n], temperature=1.2) for n in range(3)]
    streaming, silent = engine(), engine()
    for request in requests:
        streaming.submit(request)
        silent.submit(request)
    deltas = []
    while not silent.idle:
        deltas += silent.step(stream=False)
    assert {i: d.completion for i, d in deltas} == {i: c for i, (_, c) in run_all(streaming).items()}
    assert [d.text for _, d in deltas] == [d.completion.text for _, d in deltas if d.completion is not None]


def test_the_end_of_turn_token_ends_an_answer_and_is_not_its_text() -> None:
    model = causal()
    plain = engine(model).generate([ask(4, temperature=0.0, max_tokens=50)])[0]
    place = 6
    first = plain.token_ids[place]
    end = tokenizer().end_id
    # Swap that token with the end of the turn: the model now says the end at that place.
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[[first, end]] = embedding[[end, first]].clone()
    swapped = engine(model).generate([ask(4, temperature=0.0, max_tokens=50, ignore_eos=False)])[0]
    cut = plain.token_ids.index(first) + 1
    assert swapped.finish_reason == "stop"
    assert swapped.token_ids == (*plain.token_ids[: cut - 1], end)
    assert swapped.text == tokenizer().decode(plain.token_ids[: cut - 1])
    going_on = engine(model).generate([ask(4, temperature=0.0, max_tokens=50)])[0]
    assert len(going_on.token_ids) == 50


def test_a_stop_string_ends_an_answer() -> None:
    model = causal()
    whole = engine(model).generate([ask(4, temperature=0.0, max_tokens=60)])[0]
    assert whole.finish_reason == "length"
    stop = whole.text[10:13]
    cut = engine(model).generate([ask(4, temperature=0.0, max_tokens=60, stop=(stop,))])[0]
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids


@pytest.mark.parametrize("wanted", [None, 10_000, 16, 15, 1])
def test_max_tokens_ends_at_the_context(wanted: int | None) -> None:
    model = causal(max_positions=32)
    (answer,) = engine(model).generate([ask(16, max_tokens=wanted)])
    assert len(answer.token_ids) == min(wanted or 16, 16)
    assert answer.finish_reason == "length"


def test_a_prompt_that_fills_the_context_but_for_one_token() -> None:
    model = causal(max_positions=32)
    (answer,) = engine(model).generate([ask(31)])
    assert len(answer.token_ids) == 1


@pytest.mark.parametrize("length", [32, 33, 500])
def test_a_prompt_without_room_is_refused(length: int) -> None:
    machine = engine(causal(max_positions=32))
    with pytest.raises(ContextLengthError, match=f"context is 32 tokens, the messages have {length}") as caught:
        machine.submit(ask(length))
    assert caught.value.code == "context_length_exceeded"
    assert machine.idle


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        engine().submit(ask(0))


def test_a_full_queue_is_refused_and_nobody_else_suffers() -> None:
    machine = engine(max_running=1, max_waiting=2)
    kept = [machine.submit(ask(3, seed=i, max_tokens=4)) for i in range(2)]
    with pytest.raises(OverloadedError):
        machine.submit(ask(3))
    assert set(run_all(machine)) == set(kept)


def test_a_batch_with_a_bad_request_runs_nothing_and_leaves_nothing_behind() -> None:
    machine = engine(causal(max_positions=32))
    good = ask(4, seed=1, max_tokens=6)
    with pytest.raises(ContextLengthError):
        machine.generate([good, ask(4, max_tokens=1), ask(100)])
    assert machine.idle
    (before,), after = machine.generate([good]), machine.generate([good, good])
    assert [a.token_ids for a in after] == [before.token_ids] * 2


def test_cancelling_gives_what_there_is_and_frees_the_slot() -> None:
    machine = engine(max_running=2)
    first, second, third = (machine.submit(ask(5, seed=i, max_tokens=20)) for i in range(3))
    for _ in range(5):
        machine.step()
    partial = machine.cancel(first)
    assert partial is not None
    assert partial.finish_reason == "cancelled"
    assert len(partial.token_ids) == 5
    assert machine.cancel(first) is None
    waiting = machine.submit(ask(5, seed=9, max_tokens=20))
    assert machine.cancel(waiting) is not None  # before it ran
    assert set(run_all(machine)) == {second, third}


def test_survivors_of_a_cancellation_go_on_as_if_nothing_happened() -> None:
    model = causal()
    requests = [ask(10 + i, seed=i, max_tokens=30, temperature=0.0) for i in range(5)]
    alone = [engine(model).generate([r])[0] for r in requests]
    machine = engine(model)
    ids = [machine.submit(r) for r in requests]
    for _ in range(6):
        machine.step()
    machine.cancel(ids[0])
    machine.step()
    machine.cancel(ids[3])
    done = run_all(machine)
    assert {i: done[ids[i]][1].token_ids for i in (1, 2, 4)} == {i: alone[i].token_ids for i in (1, 2, 4)}


def test_a_trainer_that_moves_the_weights_moves_the_engine() -> None:
    model, other = causal(seed=1), causal(seed=2)
    machine = engine(model)
    request = ask(8, temperature=0.0, max_tokens=20)
    before = machine.generate([request])[0]
    with torch.no_grad():
        for mine, new in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(new)
    after = machine.generate([request])[0]
    assert before.token_ids != after.token_ids
    assert after.token_ids == engine(other).generate([request])[0].token_ids


@pytest.mark.parametrize("weights", ["float32", pytest.param("int8", marks=needs_kernels)])
def test_nothing_old_is_read_after_a_step_that_leaves_no_trace(weights: str) -> None:
    """PyTorch's fused optimizers change weights without counting it."""
    model = causal()
    machine = engine(model, weights=weights)
    request = ask(40, temperature=0.0, max_tokens=20)
    before = machine.generate([request])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(tokens(1, 8)).sum().backward()
    optimizer.step()
    machine.update_weights()
    after = machine.generate([request])
    assert before[0].token_ids != after[0].token_ids
    assert after == engine(model, weights=weights).generate([request])
    assert after[0].cached_tokens == 0


@needs_kernels
@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("tied", [True, False])
def test_released_weights_are_in_memory_once_and_say_the_same(weights: str, tied: bool) -> None:
    model, request = causal(tied_embeddings=tied), ask(40, temperature=0.0, max_tokens=20)
    expected = engine(model, weights=weights).generate([request])
    machine = engine(model, weights=weights, release=True)
    assert machine.generate([request]) == expected
    assert all(parameter.dim() == 1 for parameter in model.parameters())  # norms, and what is empty
    assert machine.generate([request])[0].token_ids == expected[0].token_ids


def test_what_runs_when_the_weights_move_is_read_again_and_leaves_nothing_old() -> None:
    model, other = causal(seed=1), causal(seed=2)
    machine = engine(model)
    running = machine.submit(ask(50, temperature=0.0, max_tokens=40))
    for _ in range(5):
        machine.step()
    with torch.no_grad():
        for mine, new in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(new)
    done = run_all(machine)  # what it published on its way must be the new model's
    again = ask(50, temperature=0.0, max_tokens=10)
    (found,) = machine.generate([again])
    (fresh,) = engine(other).generate([again])
    assert found.cached_tokens > 0
    assert found.token_ids == fresh.token_ids
    torch.testing.assert_close(torch.tensor(found.logprobs), torch.tensor(fresh.logprobs), atol=1e-4, rtol=0)
    assert len(done[running][1].token_ids) == 40


def test_bfloat16_answers_are_close() -> None:
    model = causal()
    request = ask(20, temperature=0.0, max_tokens=30)
    (answer,) = Engine(model, tokenizer(), dtype=torch.bfloat16).generate([request])
    whole = torch.tensor([[*request.prompt_ids, *answer.token_ids]])
    log_probs = model(whole)[0].log_softmax(-1)[19:-1].gather(-1, whole[0, 20:, None])[:, 0]
    assert (torch.tensor(answer.logprobs) - log_probs).abs().mean() < 0.1


def test_many_more_requests_than_slots_are_all_answered_in_order() -> None:
    requests = [ask(1 + i % 13, seed=i, max_tokens=1 + i % 5, temperature=0.0) for i in range(100)]
    answers = engine(max_running=7).generate(requests)
    assert [len(a.token_ids) for a in answers] == [r.params.max_tokens for r in requests]
    assert [a.prompt_tokens for a in answers] == [len(r.prompt_ids) for r in requests]
    (lonely,) = engine().generate([requests[57]])
    assert answers[57].token_ids == lonely.token_ids


COMPANY = {
    "plain": {},
    "window": {"sliding_window": 20},
    "bias": {"qkv_bias": True, "qk_norm": False},
    # no width is a multiple of a vector's
    "odd": {"hidden_size": 20, "intermediate_size": 37, "head_dim": 6, "num_heads": 3, "num_kv_heads": 1},
    # products are cut over k, and not at its end
    "deep": {"num_layers": 1, "hidden_size": 40, "intermediate_size": 555},
    # a head is read in two parts
    "wide heads": {"num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 80},
    # more heads share keys than go together
    "crowded": {"num_layers": 1, "num_heads": 34, "num_kv_heads": 2, "head_dim": 4},
}
# The types of weights, and for those of fewer bits every way of multiplying them that this processor has.
WAYS = [("float32", ""), *((weights, way) for weights in ("bfloat16", "int8", "int4") for way in ways())]


@needs_kernels
@pytest.mark.parametrize(("weights", "way"), WAYS)
@pytest.mark.parametrize("changes", COMPANY.values(), ids=COMPANY.keys())
def test_the_same_bits_alone_and_in_any_company(
    weights: str, way: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probs for equality too: whatever joins or leaves, gives way, shares blocks or is cut into chunks."""
    monkeypatch.setenv("CHATWHEEL_NATIVE", way)
    model = causal(**changes)
    dice = random.Random(7)
    common = tokens(40, seed=1).tolist()
    requests = [
        Request(
            prompt_ids=(*common[: dice.choice([0, 20, 40])], *tokens(dice.randint(1, 60), seed=i).tolist()),
            params=SamplingParams(
                temperature=dice.choice([0.0, 0.8, 1.3]),
                top_p=dice.choice([1.0, 0.9]),
                max_tokens=dice.randint(1, 60),
                seed=i,
                ignore_eos=True,
                frequency_penalty=dice.choice([0.0, 0.5]),
            ),
            key=dice.choice("ab"),
            priority=dice.randrange(2),
        )
        for i in range(32)
    ]
    alone = [engine(model, max_running=1, weights=weights).generate([r])[0] for r in requests]
    for options in (
        {"max_running": 32, "max_step_tokens": 4096},
        {"max_running": 5, "max_step_tokens": 17},
        {"max_running": 16, "cache_tokens": 400},  # not enough for all: some give way
        {"max_running": 3, "speculate": 4},
    ):
        together = engine(model, weights=weights, **options).generate(requests)
        for one, other in zip(alone, together, strict=True):
            assert (one.token_ids, one.logprobs, one.text) == (other.token_ids, other.logprobs, other.text), options


def rounded(weight: torch.Tensor, weights: str) -> torch.Tensor:
    """What a matrix is in fewer bits: a scale for a row of int8, and for 64 numbers of int4 (llama.cpp's Q4_0)."""
    if weights == "bfloat16":
        return weight.bfloat16().float()
    if weights == "int8":
        scale = weight.abs().amax(1, keepdim=True) / 127
        return (weight / scale).round() * scale
    parts = []
    for part in weight.split(64, dim=1):
        scale = part.gather(1, part.abs().argmax(1, keepdim=True)) / -8
        parts.append((part / scale).round().clamp(-8, 7) * scale)
    return torch.cat(parts, 1)


@needs_kernels
@pytest.mark.parametrize(("weights", "way"), WAYS[1:])
@pytest.mark.parametrize("changes", COMPANY.values(), ids=COMPANY.keys())
def test_fewer_bits_are_those_of_rounded_weights(
    weights: str, way: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probs beside a plain forward pass in fp32 with the weights rounded here; what is left is bf16 in the cache,
    and by tiles in what is multiplied: an error of a number's two hundredth part, averaged away in sums."""
    monkeypatch.setenv("CHATWHEEL_NATIVE", way)
    model = causal(**changes)
    request = ask(90, max_tokens=30, temperature=0.7)
    answer = engine(model, weights=weights).generate([request])[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                outer = "embed" in name or "lm_head" in name
                parameter.copy_(rounded(parameter, "int8" if outer and weights == "int4" else weights))
        whole = torch.tensor([[*request.prompt_ids, *answer.token_ids]])
        expected = model(whole)[0].log_softmax(-1)[89:-1].gather(-1, whole[0, 90:, None])[:, 0]
    assert (torch.tensor(answer.logprobs) - expected).abs().mean() < 0.03


@needs_kernels
@pytest.mark.parametrize(("weights", "way"), WAYS)
def test_the_number_of_threads_changes_no_bit(weights: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWHEEL_NATIVE", way)
    requests = [ask(n, seed=n, max_tokens=20) for n in (3, 50, 17)]
    before = torch.get_num_threads()
    answers = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        answers.append(engine(weights=weights).generate(requests))
    torch.set_num_threads(before)
    assert answers[0] == answers[1] == answers[2]


@needs_kernels
def test_guesses_from_the_text_save_steps_and_change_nothing() -> None:
    model = causal()
    with torch.no_grad():  # a model that repeats what it said: the next token depends on the last one alone
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    request = ask(30, seed=3, temperature=0.0, max_tokens=120)
    steps: dict[int, int] = {}
    found = {}
    for speculate in (0, 5):
        machine = engine(model, speculate=speculate)
        request_id, steps[speculate] = machine.submit(request), 0
        while request_id not in found.setdefault(speculate, {}):
            steps[speculate] += 1
            found[speculate] |= {i: d.completion for i, d in machine.step() if d.completion is not None}
    assert list(found[0].values()) == list(found[5].values())
    assert steps[0] == 120
    assert steps[5] < 80


def counted(machine: Engine, requests: list[Request]) -> tuple[list[Completion], int]:
    """Answers, and the steps that they took."""
    before = machine.counts.steps
    return machine.generate(requests), machine.counts.steps - before


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_draft_model_that_thinks_alike_saves_steps_and_changes_nothing(temperature: float) -> None:
    requests = [ask(n, seed=n, temperature=temperature, max_tokens=60) for n in (30, 7, 55)]
    plain, many = counted(engine(), requests)
    drafted, few = counted(engine(draft=causal(), speculate=4), requests)
    assert [a.token_ids for a in drafted] == [a.token_ids for a in plain]
    assert [a.finish_reason for a in drafted] == ["length"] * 3
    assert few < many / 3, "five tokens a step, but for the first and the last"


@needs_kernels
def test_a_draft_model_that_thinks_otherwise_changes_no_bit() -> None:
    model, other = causal(), causal(num_layers=1, hidden_size=32, num_heads=2, num_kv_heads=1, max_positions=100)
    with torch.no_grad():
        other.model.embed_tokens.weight.mul_(3)
    dice = random.Random(2)
    requests = [
        ask(
            dice.randint(1, 95),
            seed=i,
            temperature=dice.choice([0.0, 0.3, 1.0]),
            frequency_penalty=dice.choice([0.0, 0.4]),
            max_tokens=dice.randint(1, 50),
        )
        for i in range(20)
    ]
    requests += [ask(90, seed=99, max_tokens=40), ask(3, seed=98, max_tokens=20, prompt_logprobs=True)]
    plain = engine(model, max_running=1).generate(requests)
    for options in (
        {"max_running": 4},
        {"max_running": 3, "max_step_tokens": 11},
        {"max_running": 6, "cache_tokens": 208},
    ):
        machine = engine(model, draft=other, speculate=3, **options)
        assert machine.generate(requests) == plain, options
    assert machine.counts.preemptions > 0


@needs_kernels
def test_a_draft_model_follows_weights_that_move_and_sleeps_with_the_engine() -> None:
    model = causal()
    machine = engine(model, draft=causal(), speculate=4)
    request = ask(20, temperature=0.0, max_tokens=30)
    machine.generate([request])
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.5)
    moved = machine.generate([request])
    assert moved == engine(model).generate([request])
    machine.sleep()
    assert machine.generate([request]) == moved


def test_a_draft_model_of_fewer_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="the draft model has 50 tokens"):
        engine(draft=causal(vocab_size=50), speculate=2)


def test_before_a_least_length_no_stop_string_cuts_the_text() -> None:
    free = ask(5, seed=2, temperature=0.0, max_tokens=30)
    (answer,) = engine().generate([free])
    word = answer.text[:4]
    (longer,) = engine().generate([replace(free, params=replace(free.params, stop=(word,), min_tokens=20))])
    assert len(longer.token_ids) > 20
    assert longer.text.startswith(word)
    again = answer.text.find(word, 1)
    assert longer.text == (answer.text if again < 0 else longer.text)


@needs_kernels
def test_a_draft_model_that_fails_guesses_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(20, temperature=0.0, max_tokens=30)
    machine = engine(draft=causal(), speculate=4)

    def fails(*_: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(DraftModel, "propose", fails)
    assert machine.generate([request]) == engine().generate([request])
    assert machine.counts.guesses == 0


def test_likeliest_tokens_and_the_prompts_log_probs() -> None:
    model = causal()
    params = SamplingParams(max_tokens=9, seed=1, ignore_eos=True, top_logprobs=4, prompt_logprobs=True)
    request = Request(prompt_ids=prompt(50), params=params)
    # Small steps: the prompt comes in several chunks; and again, when its blocks are in the cache.
    machine = engine(model, max_running=2, max_step_tokens=12)
    for answer in machine.generate([request, request]):
        whole = torch.tensor([[*request.prompt_ids, *answer.token_ids]])
        log_probs_TV = model(whole)[0].log_softmax(-1).detach()
        assert [p.token_id for p in answer.prompt] == list(request.prompt_ids[1:])
        expected = log_probs_TV[:49].gather(-1, whole[0, 1:50, None])[:, 0]
        torch.testing.assert_close(torch.tensor([p.logprob for p in answer.prompt]), expected, atol=1e-4, rtol=0)
        top = [*(p.top for p in answer.prompt), *answer.top]
        values, ids = log_probs_TV[:58].topk(4)
        assert [[token for token, _ in place] for place in top] == ids.tolist()
        torch.testing.assert_close(torch.tensor([[v for _, v in place] for place in top]), values, atol=1e-4, rtol=0)


def test_the_prompts_log_probs_are_there_once_whoever_gives_way() -> None:
    params = SamplingParams(max_tokens=40, seed=1, ignore_eos=True, prompt_logprobs=True)
    requests = [Request(prompt_ids=prompt(60, seed), params=params) for seed in range(3)]
    machine = engine(cache_tokens=208, speculate=3)
    together = machine.generate(requests)
    assert machine.counts.preemptions > 0
    for request, answer in zip(requests, together, strict=True):
        (alone,) = engine().generate([request])
        assert [p.token_id for p in answer.prompt] == list(request.prompt_ids[1:])
        assert answer.token_ids == alone.token_ids


def test_the_prompts_log_probs_come_with_an_answer_of_one_token() -> None:
    params = SamplingParams(max_tokens=1, seed=1, ignore_eos=True, prompt_logprobs=True)
    (answer,) = engine().generate([Request(prompt_ids=prompt(20), params=params)])
    assert [p.token_id for p in answer.prompt] == list(prompt(20)[1:])


def test_stop_tokens_and_a_least_length() -> None:
    free = ask(5, seed=2, temperature=0.0, max_tokens=30)
    (answer,) = engine().generate([free])
    stop = answer.token_ids[10]
    first = answer.token_ids.index(stop)
    (ended,) = engine().generate([replace(free, params=replace(free.params, stop_token_ids=(stop,)))])
    assert (ended.token_ids, ended.finish_reason) == (answer.token_ids[: first + 1], "stop")
    (longer,) = engine().generate([replace(free, params=replace(free.params, stop_token_ids=(stop,), min_tokens=20))])
    assert stop not in longer.token_ids[:20]


def test_a_request_whose_time_is_up_ends_and_others_go_on() -> None:
    machine = engine(max_running=1)
    slow = machine.submit(replace(ask(5, max_tokens=50), timeout=0.0))
    other = machine.submit(ask(5, max_tokens=5))
    done = {}
    while not machine.idle:
        done |= {i: d.completion for i, d in machine.step() if d.completion is not None}
    assert done[slow].finish_reason == "cancelled"
    assert len(done[other].token_ids) == 5


def test_a_cache_too_small_for_a_request_is_said() -> None:
    machine = engine(cache_tokens=64)
    with pytest.raises(ContextLengthError, match="the cache holds 64"):
        machine.submit(ask(40, max_tokens=60))
    assert machine.idle


def test_a_sleeping_engine_wakes_to_the_same_answers() -> None:
    machine = engine()
    request = ask(40, seed=5, max_tokens=20)
    before = machine.generate([request])
    machine.sleep()
    assert machine.generate([request]) == before


def test_a_token_that_does_not_exist_is_refused() -> None:
    for bad in (-1, 400):
        with pytest.raises(InputError, match="not among the model's 400"):
            engine().submit(Request(prompt_ids=(5, bad)))
    with pytest.raises(InputError, match="no token 400"):
        engine().submit(Request(prompt_ids=(5,), params=SamplingParams(logit_bias={400: 1.0})))

    with pytest.raises(InputError, match="stop_token_ids: the model has no token 9999"):
        engine().submit(Request(prompt_ids=(5,), params=SamplingParams(stop_token_ids=(9999,), min_tokens=2)))


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": -1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"presence_penalty": float("inf")},
        {"frequency_penalty": float("nan")},
        {"max_tokens": 0},
        {"min_tokens": -1},
        {"top_logprobs": -1},
    ],
)
def test_a_parameter_that_means_nothing_is_named(params: dict[str, Any]) -> None:
    (name,) = params
    with pytest.raises(InputError, match=rf"^{name} is .*; it must be") as error:
        SamplingParams(**params)
    assert error.value.param == name


@pytest.mark.parametrize(
    "options", [{"max_running": 0}, {"cache_tokens": 0}, {"cache_tokens": -5}, {"speculate": -1}, {"weights": "int3"}]
)
def test_an_engine_that_cannot_be_is_refused_at_once(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=name):
        engine(**options)


def test_a_huge_top_k_is_all_tokens() -> None:
    huge, none = (ask(5, seed=2, max_tokens=10, top_k=top_k) for top_k in (3_000_000_000, 0))
    assert engine().generate([huge]) == engine().generate([none])


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="a limit of memory by the system")
def test_threads_that_cannot_be_started_are_one_line() -> None:
    code = (
        "import resource\n"
        "import torch\n"
        "from chatwheel.engine.native.bindings import load_kernels\n"
        "from chatwheel.engine.native.runner import NativeRunner\n"
        "from tests.tiny import causal\n"
        "model, kernels = causal(), load_kernels()\n"
        "NativeRunner(kernels, model, num_blocks=4, threads=2)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))\n"
        "NativeRunner(kernels, model, num_blocks=4, threads=5000)\n"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 1, outcome.stderr
    assert "no memory, or no thread, left for the engine" in outcome.stderr.strip().splitlines()[-1]
