"""GET /report: the training run's report, one HTML file with its own styles and no script."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from chatwheel.server.services import Services, ServicesDep
from chatwheel.server.shapes import Ticket
from chatwheel.settings import Settings

router = APIRouter()

TICKET_SECONDS = 60
# It shows what models said: nothing in it may run, and its origin is not the page's.
REPORT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "font-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "sandbox allow-popups",
    )
)


def report_file(settings: Settings) -> Path | None:
    """The quickstart run's report, if there is one. Blocks."""
    file = settings.runs / "quickstart" / "report.html"
    return file if file.is_file() else None


@router.get("/report", include_in_schema=False)
def report(services: ServicesDep, ticket: str | None = None) -> FileResponse:
    """The report. Where a key is needed, a link carries a ticket in its place."""
    if ticket is not None and not _valid(services, ticket):
        raise HTTPException(401, "This link has expired; open the report from the page again.")
    file = report_file(services.settings)
    if file is None:
        raise HTTPException(404)
    return FileResponse(file, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


@router.post("/api/report/ticket")
def create_ticket(services: ServicesDep) -> Ticket:
    """A link to the report that needs no header and ends in a minute."""
    if not services.needs_key:
        return Ticket(url="report")
    until = str(int(time.time()) + TICKET_SECONDS)
    return Ticket(url=f"report?ticket={until}.{_sign(services, until)}")


def _valid(services: Services, ticket: str) -> bool:
    until, _, signature = ticket.partition(".")
    signed = hmac.compare_digest(_sign(services, until).encode(), signature.encode("utf-8", "replace"))
    return signed and time.time() <= int(until)


def _sign(services: Services, until: str) -> str:
    return hmac.new(services.ticket_secret, until.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
