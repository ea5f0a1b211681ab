"""GET /health, GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client.exposition import choose_encoder

from chatwheel import __version__
from chatwheel.server.identity import needs
from chatwheel.server.metrics import registry
from chatwheel.server.services import ServicesDep

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the server is up. It says nothing about who uses it, so it needs no key."""
    return {"status": "ok", "version": __version__}


@router.get("/metrics", dependencies=[Depends(needs("runs"))])
async def metrics(request: Request, services: ServicesDep) -> Response:
    """The loaded models' engines, as Prometheus reads them."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry(services.models.metrics)), media_type=content_type)
