"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from chatwheel import __version__
from chatwheel.engine.requests import Completion, Delta
from chatwheel.engine.tools import ToolUse
from chatwheel.server.chat_completions import (
    AnswerFormat,
    ChatRequest,
    call_delta,
    check_context,
    finish_reason,
    first_delta,
)
from chatwheel.server.errors import logged_body
from chatwheel.server.services import ServicesDep
from chatwheel.server.streaming import KEEP_ALIVE, Feed, FeedResponse, closing, sse, until_disconnect
from chatwheel.store.registry import ModelEntry

if TYPE_CHECKING:
    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.server.models import ModelPool

router = APIRouter()
Piece = tuple[int, Delta]


@router.post("/v1/chat/completions")
async def create_chat_completion(body: ChatRequest, request: Request, services: ServicesDep) -> Response:
    """An answer to a conversation, whole or in pieces."""
    body.check()
    tools = await anyio.to_thread.run_sync(body.tool_use)  # schemas are compiled to see whether they are some
    entry = await anyio.to_thread.run_sync(services.models.answering_entry, body.model)
    answer = AnswerFormat(model=entry.name, fingerprint=fingerprint(entry))
    if not body.stream:
        choices = await until_disconnect(request, _complete(services.models, entry, body, tools))
        return JSONResponse(answer.completion(choices))
    feed = Feed[Piece](lambda put: _stream(services.models, entry, body, tools, put))
    try:
        await until_disconnect(request, feed.first())  # an error before the first token still has its own status
    except BaseException:
        feed.cancel()
        raise
    return FeedResponse(feed, _events(feed, answer, body))


def fingerprint(entry: ModelEntry) -> str:
    """Names the code and the weights: the same one and the same seed give the same answer."""
    text = f"{__version__} {entry.name} {entry.created}"
    return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


async def _complete(models: ModelPool, entry: ModelEntry, body: ChatRequest, tools: ToolUse | None) -> list[Completion]:
    async with models.use(entry) as assistant:
        await _check_room(assistant, body, tools)
        answers = (assistant.complete(body.records(), body.sampling(choice), tools) for choice in range(body.n or 1))
        return await _together([asyncio.ensure_future(answer) for answer in answers])


async def _stream(
    models: ModelPool, entry: ModelEntry, body: ChatRequest, tools: ToolUse | None, put: Callable[[Piece], None]
) -> None:
    """Puts the pieces of all choices as they come."""

    async def one(assistant: Assistant, choice: int) -> None:
        async with closing(assistant.stream(body.records(), body.sampling(choice), tools)) as deltas:
            async for delta in deltas:
                put((choice, delta))

    async with models.use(entry) as assistant:
        await _check_room(assistant, body, tools)
        await _together([asyncio.ensure_future(one(assistant, choice)) for choice in range(body.n or 1)])


async def _check_room(assistant: Assistant, body: ChatRequest, tools: ToolUse | None) -> None:
    prompt_tokens = await anyio.to_thread.run_sync(assistant.count_tokens, body.records(), tools)
    check_context(prompt_tokens, body.sampling().max_tokens, assistant.context_length)


async def _together(tasks: list[asyncio.Future[Any]]) -> list[Any]:
    """All results; if one fails or the caller is cancelled, the others are too."""
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _events(feed: Feed[Piece], answer: AnswerFormat, body: ChatRequest) -> AsyncIterator[str]:
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    done: dict[int, Completion] = {}
    begun: set[int] = set()
    try:
        async for piece in feed.events():
            if piece is None:
                yield KEEP_ALIVE
                continue
            index, delta = piece
            if index not in begun:
                begun.add(index)
                yield sse(answer.chunk(index, first_delta(delta), with_usage=with_usage))
            if delta.text:
                yield sse(answer.chunk(index, {"content": delta.text}, with_usage=with_usage))
            for call in delta.calls:
                yield sse(answer.chunk(index, call_delta(call), with_usage=with_usage))
            if delta.completion:
                done[index] = delta.completion
                yield sse(answer.chunk(index, {}, finish_reason(delta.completion), with_usage=with_usage))
    except Exception as error:
        yield sse(logged_body(error, answer.id))
        return
    if with_usage:
        yield sse(answer.usage_chunk([done[index] for index in sorted(done)]))
    yield sse("[DONE]")
