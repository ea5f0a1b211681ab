"""POST /v1/chat/completions."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from chatwheel import __version__
from chatwheel.engine.tools import ToolUse
from chatwheel.server.catalog import bases
from chatwheel.server.chat_completions import AnswerFormat, ChatRequest, Piece
from chatwheel.server.errors import logged_body
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.logprobs import content_logprobs
from chatwheel.server.metering import Asked, Bill
from chatwheel.server.sampling import check_context
from chatwheel.server.services import ServicesDep
from chatwheel.server.spent import Spent
from chatwheel.server.streaming import KEEP_ALIVE, Feed, FeedResponse, begun, closing, sse, together, until_disconnect
from chatwheel.store.registry import ModelEntry

if TYPE_CHECKING:
    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.server.models import ModelPool

router = APIRouter(dependencies=[Depends(needs("chat"))])


@router.post("/v1/chat/completions")
async def create_chat_completion(
    body: ChatRequest, request: Request, services: ServicesDep, who: PrincipalDep
) -> Response:
    """An answer to a conversation, whole or in pieces."""
    body.check()
    # In a thread only where there are schemas, which are compiled to see whether they are some.
    tools = await anyio.to_thread.run_sync(body.tool_use) if body.tools else body.tool_use()
    entry = await services.catalog.find_answering(who, body.model)
    answer, spent = AnswerFormat(model=entry.name, fingerprint=fingerprint(entry)), Spent()
    asked = services.meter.request(
        who,
        endpoint="chat",
        model=entry.name,
        priced_as=bases(entry),
        spent=spent,
        http=request,
        streamed=bool(body.stream),
    )
    if not body.stream:
        pieces: list[Piece] = []
        await until_disconnect(request, _speak(services.models, entry, body, tools, asked, pieces.append))
        return JSONResponse(answer.completion(pieces, spent.usage()))
    feed = await begun(request, Feed[Piece](lambda put: _speak(services.models, entry, body, tools, asked, put)))
    return FeedResponse(feed, _events(feed, answer, spent, with_usage=body.with_usage))


def fingerprint(entry: ModelEntry) -> str:
    """Names the code and the weights: the same one and the same seed give the same answer."""
    text = f"{__version__} {entry.name} {entry.created}"
    return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


async def _speak(
    models: ModelPool,
    entry: ModelEntry,
    body: ChatRequest,
    tools: ToolUse | None,
    asked: Asked,
    put: Callable[[Piece], None],
) -> None:
    """Puts the pieces of all choices as they come, and counts them."""

    messages = body.records()

    async def one(assistant: Assistant, prompt_ids: tuple[int, ...], choice: int, bill: Bill) -> None:
        params = body.sampling(choice)
        async with closing(assistant.stream(messages, params, tools, prompt_ids=prompt_ids)) as deltas:
            async for delta in deltas:
                await bill.note(choice, delta)
                logprobs = content_logprobs(delta.tokens, assistant.tokenizer) if body.logprobs else None
                put(Piece(choice, delta, logprobs))

    async with asked as bill, models.use(entry) as assistant:
        prompt_ids = await assistant.encode(messages, tools)
        check_context(len(prompt_ids), body.sampling().max_tokens, assistant.context_length)
        bill.spent.prompt_tokens = len(prompt_ids)
        await together([one(assistant, prompt_ids, choice, bill) for choice in range(body.n or 1)])


async def _events(feed: Feed[Piece], answer: AnswerFormat, spent: Spent, *, with_usage: bool) -> AsyncIterator[str]:
    begun: set[int] = set()
    try:
        async for piece in feed.events():
            if piece is None:
                yield KEEP_ALIVE
                continue
            chunks = answer.chunks(piece, first=piece.choice not in begun, with_usage=with_usage)
            yield "".join(map(sse, chunks))  # together: each sending takes as long as making a chunk
            begun.add(piece.choice)
    except Exception as error:
        yield sse(logged_body(error, answer.id))
        return
    usage = sse(answer.usage_chunk(spent.usage())) if with_usage else ""
    yield usage + sse("[DONE]")
