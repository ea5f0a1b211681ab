"""The engine in its thread: many callers, one batch; nobody hangs, whatever fails or closes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Delta, Request, SamplingParams
from chatwheel.engine.service import EngineService
from chatwheel.errors import ChatwheelError, ContextLengthError, OverloadedError
from tests.tiny import causal, tokenizer, tokens

PATIENCE = 20.0  # seconds before a hang is called one


def ask(seed: int = 0, max_tokens: int = 30, length: int = 6) -> Request:
    params = SamplingParams(seed=seed, max_tokens=max_tokens, ignore_eos=True)
    return Request(prompt_ids=tuple(tokens(length, seed=seed).tolist()), params=params)


@pytest.fixture
def engine() -> Engine:
    return Engine(causal(), tokenizer(), max_running=8, max_waiting=16)


@pytest.fixture
def service(engine: Engine) -> Iterator[EngineService]:
    service = EngineService(engine)
    yield service
    closing = threading.Thread(target=service.close)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive(), "close() hangs"


async def collect(service: EngineService, request: Request) -> tuple[str, Completion]:
    text = ""
    async for delta in service.stream(request):
        text += delta.text
        if delta.completion is not None:
            return text, delta.completion
    raise AssertionError("a stream ends with its completion")


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE))


def test_concurrent_streams_share_the_engine(engine: Engine, service: EngineService) -> None:
    widths: list[int] = []
    plan = engine._scheduler.plan

    def watched(*arguments: Any) -> Any:
        made = plan(*arguments)
        widths.append(len(made.chunks))
        return made

    engine._scheduler.plan = watched  # type: ignore[method-assign]

    async def all_at_once() -> list[tuple[str, Completion]]:
        return await asyncio.gather(*(collect(service, ask(i)) for i in range(12)))

    answers = run(all_at_once())
    expected = Engine(engine.model, tokenizer()).generate([ask(i) for i in range(12)])
    assert [completion.token_ids for _, completion in answers] == [e.token_ids for e in expected]
    assert all(text == completion.text for text, completion in answers)
    assert max(widths) == 8


def test_blocking_and_streaming_callers_agree(service: EngineService) -> None:
    assert service.generate(ask(3)) == run(collect(service, ask(3)))[1]  # nobody else: the same batch of one


def test_callers_in_many_threads_and_loops(service: EngineService) -> None:
    results: dict[int, Completion] = {}

    def caller(i: int) -> None:
        results[i] = run(collect(service, ask(i)))[1] if i % 2 else service.generate(ask(i))

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(results) == list(range(10))
    for i, result in results.items():
        assert result.token_ids == service.generate(ask(i)).token_ids


def test_closing_a_stream_cancels_the_request(engine: Engine, service: EngineService) -> None:
    steps = 0
    step = engine.step

    def slow_step() -> list[tuple[int, Delta]]:
        nonlocal steps
        steps += 1
        time.sleep(0.005)
        return step()

    engine.step = slow_step  # type: ignore[method-assign]

    async def leave_early() -> None:
        async with aclosing(service.stream(ask(max_tokens=240))) as deltas:  # type: ignore[type-var]
            async for _ in deltas:
                break

    run(leave_early())
    deadline = time.monotonic() + PATIENCE
    while not engine.idle and time.monotonic() < deadline:
        time.sleep(0.005)
    assert engine.idle
    assert steps < 120  # of 240, had it gone on to its end
    assert service._listeners == {}


def test_a_cancelled_task_cancels_the_request(engine: Engine, service: EngineService) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(collect(service, ask(max_tokens=240)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(give_up())
    service.generate(ask(max_tokens=1))  # behind the cancellation in the same inbox
    assert engine.idle


def test_errors_reach_their_caller_and_nobody_else(service: EngineService) -> None:
    async def mixed() -> list[Any]:
        calls = [collect(service, ask(1)), collect(service, ask(2, length=300)), collect(service, ask(3))]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = run(mixed())
    assert isinstance(second, ContextLengthError)
    assert len(first[1].token_ids) == len(third[1].token_ids) == 30
    with pytest.raises(ContextLengthError):
        service.generate(ask(length=300))


def test_an_unexpected_error_is_not_a_hang(
    engine: Engine, service: EngineService, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonsense = Request(prompt_ids=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        service.generate(nonsense)
    with pytest.raises(TypeError):
        run(collect(service, nonsense))
    assert len(service.generate(ask()).token_ids) == 30
    assert engine._runner is not None
    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "forward", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.generate(ask())
    assert engine.idle
    assert len(service.generate(ask()).token_ids) == 30


def test_overload_is_said_to_the_caller(engine: Engine) -> None:
    engine._scheduler.max_waiting = 2
    entered, go_on = threading.Event(), threading.Event()
    step = engine.step

    def slow_step() -> list[tuple[int, Delta]]:
        entered.set()
        go_on.wait(PATIENCE)
        return step()

    engine.step = slow_step  # type: ignore[method-assign]
    service = EngineService(engine)

    async def crowd() -> list[Any]:
        first = asyncio.create_task(collect(service, ask(max_tokens=2)))
        await asyncio.to_thread(entered.wait, PATIENCE)
        rest = [asyncio.create_task(collect(service, ask(i, max_tokens=2))) for i in range(4)]
        await asyncio.sleep(0.05)
        go_on.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    results = run(crowd())
    assert any(isinstance(r, OverloadedError) for r in results)
    assert isinstance(results[0], tuple)
    service.close()


def test_close_ends_what_is_under_way_with_an_error(engine: Engine) -> None:
    service = EngineService(engine)

    async def caught_in_the_middle() -> None:
        deltas = service.stream(ask(max_tokens=240))
        await anext(deltas)
        await asyncio.to_thread(service.close)
        async for _ in deltas:
            pass

    with pytest.raises(ChatwheelError, match="shut down"):
        run(caught_in_the_middle())
    assert not service._thread.is_alive()
    service.close()  # a second time does nothing


def test_after_close_a_call_is_an_error_and_not_a_hang(engine: Engine) -> None:
    service = EngineService(engine)
    service.close()
    with pytest.raises(ChatwheelError, match="shut down"):
        run(collect(service, ask()))
    with pytest.raises(ChatwheelError, match="shut down"):
        service.generate(ask())


def test_a_caller_whose_loop_is_gone_does_not_stop_the_others(service: EngineService) -> None:
    loop = asyncio.new_event_loop()
    deltas = service.stream(ask(max_tokens=200))
    loop.run_until_complete(anext(deltas))
    loop.close()  # rudely: the stream was not closed
    assert len(service.generate(ask(4)).token_ids) == 30


def test_a_cancellation_that_fails_harms_nobody_else(
    engine: Engine, service: EngineService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise KeyError("lost")

    async def leave_at_once() -> None:
        async with aclosing(service.stream(ask(max_tokens=200))) as deltas:  # type: ignore[type-var]
            async for _ in deltas:
                return

    run(leave_at_once())
    with monkeypatch.context() as broken:
        broken.setattr(engine, "cancel", fails)
        run(leave_at_once())
        deadline = time.monotonic() + PATIENCE
        while service._inbox.qsize() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert run(collect(service, ask()))[1].finish_reason == "length"
    assert not service.dead


def test_what_fails_alone_is_told_alone(
    engine: Engine, service: EngineService, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = engine.step

    def one_fails(*, stream: bool = True) -> list[tuple[int, Delta]]:
        return [
            (i, Delta(text="", error=ChatwheelError("lost")) if i == 0 and d.completion is not None else d)
            for i, d in step(stream=stream)
        ]

    monkeypatch.setattr(engine, "step", one_fails)

    async def both() -> list[Any]:
        return await asyncio.gather(collect(service, ask(1)), collect(service, ask(2)), return_exceptions=True)

    found = run(both())
    assert sum(isinstance(f, ChatwheelError) for f in found) == 1
    assert sum(isinstance(f, tuple) for f in found) == 1
    assert service.metrics.finished["error"] == 1
