"""GET /health."""

from __future__ import annotations

from fastapi import APIRouter

from chatwheel import __version__

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the server is up. It says nothing about who uses it, so it needs no key."""
    return {"status": "ok", "version": __version__}
