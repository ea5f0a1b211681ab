"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from chatwheel.server.catalog import bases
from chatwheel.server.embeddings import EmbeddingRequest, embedding_list
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.metering import Asked
from chatwheel.server.sampling import check_readable
from chatwheel.server.services import ServicesDep
from chatwheel.server.spent import Spent
from chatwheel.server.streaming import together, until_disconnect
from chatwheel.store.registry import ModelEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.server.models import ModelPool

router = APIRouter(dependencies=[Depends(needs("embeddings"))])
AT_ONCE = 32
"""Inputs of one request in the engine: more would fill its queue for all others."""


@router.post("/v1/embeddings")
async def create_embeddings(
    body: EmbeddingRequest, request: Request, services: ServicesDep, who: PrincipalDep
) -> Response:
    """A vector for each text."""
    body.check()
    entry = await services.catalog.find_answering(who, body.model)
    spent = Spent()
    asked = services.meter.request(
        who, endpoint="embeddings", model=entry.name, priced_as=bases(entry), spent=spent, http=request
    )
    vectors = await until_disconnect(request, _read(services.models, entry, body, asked))
    return JSONResponse(embedding_list(entry.name, vectors, spent.reading()))


async def _read(
    models: ModelPool, entry: ModelEntry, body: EmbeddingRequest, asked: Asked
) -> Sequence[list[float] | str]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(assistant: Assistant, spent: Spent, ids: list[int]) -> list[float] | str:
        async with turns:
            found = body.vector(await assistant.read_embedding(ids))
        spent.prompt_tokens += len(ids)
        return found

    async with asked as bill, models.use(entry) as assistant:
        inputs = await anyio.to_thread.run_sync(body.read, assistant.tokenizer)
        check_readable(inputs, assistant.context_length, "input")
        return await together([one(assistant, bill.spent, ids) for ids in inputs])
