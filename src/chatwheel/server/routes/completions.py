"""POST /v1/completions: texts gone on with, without a conversation around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from chatwheel.engine.requests import Completion, Delta
from chatwheel.server.catalog import bases
from chatwheel.server.completions import (
    CompletionFormat,
    CompletionRequest,
    Prompt,
    Writer,
    finish_reason,
    mean_logprob,
)
from chatwheel.server.errors import logged_body
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.metering import Asked, Bill
from chatwheel.server.routes.chat import fingerprint
from chatwheel.server.sampling import check_context
from chatwheel.server.services import ServicesDep
from chatwheel.server.spent import Spent
from chatwheel.server.streaming import KEEP_ALIVE, Feed, FeedResponse, begun, closing, sse, together, until_disconnect
from chatwheel.store.registry import ModelEntry

if TYPE_CHECKING:
    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.server.models import ModelPool

router = APIRouter(dependencies=[Depends(needs("completions"))])
Json = dict[str, Any]


class _Piece(NamedTuple):
    """Of an answer to a prompt, in order: its text, its tokens in OpenAI's form, and how it ended."""

    prompt: int
    answer: int
    text: str
    logprobs: Json | None
    completion: Completion | None


@router.post("/v1/completions")
async def create_completion(
    body: CompletionRequest, request: Request, services: ServicesDep, who: PrincipalDep
) -> Response:
    """How a text goes on, whole or in pieces."""
    body.check()
    entry = await services.catalog.find_answering(who, body.model)
    shape, spent = CompletionFormat(model=entry.name, fingerprint=fingerprint(entry)), Spent()
    asked = services.meter.request(
        who,
        endpoint="completions",
        model=entry.name,
        priced_as=bases(entry),
        spent=spent,
        http=request,
        streamed=bool(body.stream),
    )
    if not body.stream:
        pieces: list[_Piece] = []
        await until_disconnect(request, _speak(services.models, entry, body, asked, pieces.append))
        return JSONResponse(shape.object(_choices(body, shape, pieces), spent.usage()))
    feed = await begun(request, Feed[_Piece](lambda put: _speak(services.models, entry, body, asked, put)))
    return FeedResponse(feed, _events(feed, shape, spent, body))


async def _speak(
    models: ModelPool, entry: ModelEntry, body: CompletionRequest, asked: Asked, put: Callable[[_Piece], None]
) -> None:
    """Puts the pieces of all answers as they come, and counts them."""

    async def one(assistant: Assistant, bill: Bill, number: int, prompt: Prompt, answer: int) -> None:
        writer = Writer(body, prompt, assistant.tokenizer)
        async with closing(_deltas(assistant, body, prompt, answer)) as deltas:
            async for delta in deltas:
                await bill.note(number * body.num_answers + answer, delta, number)
                put(_Piece(number, answer, *writer.piece(delta), delta.completion))

    async with asked as bill, models.use(entry) as assistant:
        prompts = await anyio.to_thread.run_sync(body.read, assistant.tokenizer)
        for prompt in prompts:
            check_context(len(prompt.ids), body.room, assistant.context_length, "prompt")
        bill.spent.prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        answers = range(body.num_answers)
        await together(
            [one(assistant, bill, i, prompt, answer) for i, prompt in enumerate(prompts) for answer in answers]
        )


async def _deltas(assistant: Assistant, body: CompletionRequest, prompt: Prompt, answer: int) -> AsyncIterator[Delta]:
    params = body.sampling(prompt, answer)
    if body.room or params.prompt_logprobs:
        async with closing(assistant.go_on(prompt.ids, params)) as deltas:
            async for delta in deltas:
                if body.room:
                    yield delta
                elif delta.completion is not None:  # a token was written only because nothing is computed without one
                    yield Delta(text="", prompt=delta.completion.prompt, completion=_nothing(delta.completion))
    else:
        empty = Completion(token_ids=(), logprobs=(), text="", finish_reason="length", prompt_tokens=len(prompt.ids))
        yield Delta(text="", completion=empty)


def _nothing(completion: Completion) -> Completion:
    return Completion(
        token_ids=(),
        logprobs=(),
        text="",
        finish_reason="length",
        prompt_tokens=completion.prompt_tokens,
        cached_tokens=completion.cached_tokens,
    )


def _choices(body: CompletionRequest, shape: CompletionFormat, pieces: list[_Piece]) -> list[Json]:
    """The answers that are given: of each prompt the likeliest, in the order of the prompts."""
    texts: defaultdict[tuple[int, int], list[_Piece]] = defaultdict(list)
    for piece in pieces:
        texts[piece.prompt, piece.answer].append(piece)
    whole = {place: parts[-1].completion for place, parts in texts.items()}
    choices: list[Json] = []
    for prompt in range(len(body.prompts())):
        order = list(range(body.num_answers))
        if body.num_answers > body.num_shown:
            order.sort(key=lambda answer: -mean_logprob(_ended(whole[prompt, answer])))
        for answer in order[: body.num_shown]:
            parts = texts[prompt, answer]
            found = [part.logprobs for part in parts if part.logprobs is not None]
            logprobs = {key: [*chain.from_iterable(each[key] for each in found)] for key in found[0]} if found else None
            reason = finish_reason(_ended(whole[prompt, answer]), body.room)
            choices.append(shape.choice(len(choices), "".join(part.text for part in parts), logprobs, reason))
    return choices


def _ended(completion: Completion | None) -> Completion:
    assert completion is not None, "a stream ends with its completion"
    return completion


async def _events(
    feed: Feed[_Piece], shape: CompletionFormat, spent: Spent, body: CompletionRequest
) -> AsyncIterator[str]:
    try:
        async for piece in feed.events():
            if piece is None:
                yield KEEP_ALIVE
                continue
            reason = None if piece.completion is None else finish_reason(piece.completion, body.room)
            choice = shape.choice(piece.prompt * body.num_shown + piece.answer, piece.text, piece.logprobs, reason)
            yield sse(shape.object([choice], with_usage=body.with_usage))
    except Exception as error:
        yield sse(logged_body(error, shape.id))
        return
    usage = sse(shape.object([], spent.usage())) if body.with_usage else ""
    yield usage + sse("[DONE]")
