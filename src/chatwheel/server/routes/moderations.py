"""POST /v1/moderations."""

from __future__ import annotations

import threading
from functools import partial

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from chatwheel.safety.moderation import Moderator, Result
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.moderations import ModerationRequest, answer
from chatwheel.server.services import ServicesDep
from chatwheel.server.streaming import until_disconnect

router = APIRouter(dependencies=[Depends(needs("moderations"))])

QUICK = 100_000
"""Characters up to which a request is judged at once, in some tens of milliseconds. Longer ones wait for each other:
several at a time would only take the processor from everything else."""


@router.post("/v1/moderations")
async def create_moderation(
    body: ModerationRequest, request: Request, services: ServicesDep, who: PrincipalDep
) -> Response:
    """Which categories of harm each input falls into."""
    moderator = services.moderator
    body.check_model(moderator.name)
    texts = body.texts()
    async with services.meter.request(who, endpoint="moderations", model=moderator.name, http=request) as bill:
        results = await until_disconnect(request, _judged(moderator, texts, services.long_moderations))
        bill.spent.prompt_tokens = sum(result.tokens for result in results)
    return JSONResponse(answer(moderator.name, results))


async def _judged(moderator: Moderator, texts: list[str], one_at_a_time: anyio.CapacityLimiter) -> list[Result]:
    """In a thread, which ends soon when nobody waits for it any more."""
    stopped = threading.Event()
    work = partial(moderator.moderate, texts, stopped.is_set)
    limiter = one_at_a_time if sum(map(len, texts)) > QUICK else None
    try:
        return await anyio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
    finally:
        stopped.set()
