"""The page: static files that web/ was built into."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, PlainTextResponse, Response

STATIC = Path(__file__).parent.parent / "static"
FOREVER = "public, max-age=31536000, immutable"
NOT_BUILT = "The API is up, but the page has not been built: run `make setup`, or build web/ with npm.\n"

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> Response:
    """The page; always asked anew, so that a new version is seen at once."""
    file = STATIC / "index.html"
    if not file.is_file():
        return PlainTextResponse(NOT_BUILT, 503)
    return FileResponse(file, headers={"cache-control": "no-cache"})


@router.get("/assets/{name}")
def asset(name: str) -> FileResponse:
    """A script or a style sheet; its name has its hash, so it may be kept for ever."""
    return _file(STATIC / "assets" / name, FOREVER)


@router.get("/{name}")
def root_file(name: str) -> FileResponse:
    """The icon and the few files beside the page."""
    return _file(STATIC / name, "no-cache")


def _file(path: Path, cache: str) -> FileResponse:
    # One path segment each, so nothing outside the folder can be named; hidden files are none of the page's.
    if path.name.startswith(".") or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, headers={"cache-control": cache})
