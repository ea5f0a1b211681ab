"""GET /health, GET /ready, GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client.exposition import choose_encoder
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from chatwheel import __version__
from chatwheel.errors import ChatwheelError
from chatwheel.server.errors import LOG, error_body
from chatwheel.server.identity import needs
from chatwheel.server.metrics import registry
from chatwheel.server.services import ServicesDep

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the server is up. It says nothing about who uses it, so it needs no key."""
    return {"status": "ok", "version": __version__}


@router.get("/ready")
async def ready(services: ServicesDep) -> Response:
    """Whether the server can answer: 200, or 503 with the reason."""
    reason = "the server is shutting down" if services.closing.is_set() else None
    if reason is None:
        try:
            await services.read(lambda session: session.execute(select(1)))
        except (SQLAlchemyError, ChatwheelError) as error:
            LOG.warning("not ready: %s", error)
            reason = "the database cannot be reached"
    if reason is None:
        return JSONResponse({"status": "ready"})
    return JSONResponse(error_body(f"Not ready: {reason}.", "server_error", code="not_ready"), 503)


@router.get("/metrics", dependencies=[Depends(needs("runs"))], response_class=PlainTextResponse)
async def metrics(request: Request, services: ServicesDep) -> Response:
    """The loaded models' engines, as Prometheus reads them."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry(services.models.metrics)), media_type=content_type)
