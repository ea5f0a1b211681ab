"""POST /score: what a reward model thinks of answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from chatwheel.errors import InputError
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.metering import Asked
from chatwheel.server.routes.embeddings import AT_ONCE
from chatwheel.server.sampling import check_readable
from chatwheel.server.services import ServicesDep
from chatwheel.server.spent import Spent
from chatwheel.server.streaming import together, until_disconnect
from chatwheel.server.tokens import ScoreRequest, score_list
from chatwheel.store.registry import ModelEntry

if TYPE_CHECKING:
    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.server.models import ModelPool

router = APIRouter(dependencies=[Depends(needs("score"))])


@router.post("/score")
@router.post("/v1/score")
async def create_scores(body: ScoreRequest, request: Request, services: ServicesDep, who: PrincipalDep) -> Response:
    """A score for each conversation: demonstrations have 0 in the mean, and a deviation of 1."""
    entry = await services.catalog.find(who, body.model)
    if entry.kind != "reward":
        message = f"The model {body.model!r} writes answers; a reward model scores them."
        raise InputError(message, code="model_cannot_score", param="model")
    spent = Spent()
    asked = services.meter.request(who, endpoint="score", model=entry.name, spent=spent, http=request)
    scores = await until_disconnect(request, _score(services.models, entry, body, asked))
    return JSONResponse(score_list(entry.name, scores, spent.reading()))


async def _score(models: ModelPool, entry: ModelEntry, body: ScoreRequest, asked: Asked) -> list[float]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(assistant: Assistant, spent: Spent, ids: list[int]) -> float:
        async with turns:
            score = await assistant.read_score(ids)
        spent.prompt_tokens += len(ids)
        return score

    async with asked as bill, models.use(entry) as assistant:
        conversations = body.records()
        texts = await anyio.to_thread.run_sync(lambda: [assistant.encode_answered(turns) for turns in conversations])
        check_readable(texts, assistant.context_length, "messages")
        return await together([one(assistant, bill.spent, ids) for ids in texts])
