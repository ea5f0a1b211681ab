"""GET /report: a training run's report, one HTML file with its own styles and no script."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse

from chatwheel.server.identity import check_scope, needs
from chatwheel.server.services import Services, ServicesDep
from chatwheel.server.shapes import Ticket
from chatwheel.settings import Settings
from chatwheel.store.runs import NAME

router = APIRouter()

QUICKSTART = "quickstart"
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


def report_file(settings: Settings, run: str = QUICKSTART) -> Path | None:
    """A run's report, if there is one. Blocks."""
    if not NAME.fullmatch(run):
        return None
    file = settings.runs / run / "report.html"
    return file if file.is_file() else None


@router.get("/report", include_in_schema=False)
def report(request: Request, services: ServicesDep, ticket: str | None = None, run: str = QUICKSTART) -> FileResponse:
    """The report. A link cannot carry a key: it has a ticket in its place."""
    if ticket is None:
        check_scope(request.scope["state"]["principal"], "runs")
    elif not _valid(services, ticket, run):
        raise HTTPException(401, "This link has expired; open the report from the page again.")
    file = report_file(services.settings, run)
    if file is None:
        raise HTTPException(404)
    return FileResponse(file, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


@router.post("/api/report/ticket", dependencies=[Depends(needs("runs"))])
def create_ticket(services: ServicesDep, run: str = QUICKSTART) -> Ticket:
    """A link to a run's report that needs no header and ends in a minute."""
    if report_file(services.settings, run) is None:
        raise HTTPException(404)
    named = "" if run == QUICKSTART else f"run={run}"
    until = str(int(time.time()) + TICKET_SECONDS)
    signed = f"ticket={until}.{_sign(services, until, run)}"
    return Ticket(url=f"report?{signed}&{named}".rstrip("&"))


def _valid(services: Services, ticket: str, run: str) -> bool:
    until, _, signature = ticket.partition(".")
    signed = hmac.compare_digest(_sign(services, until, run).encode(), signature.encode("utf-8", "replace"))
    return signed and time.time() <= int(until)


def _sign(services: Services, until: str, run: str) -> str:
    text = f"{until} {run}".encode("utf-8", "replace")
    return hmac.new(services.ticket_secret, text, hashlib.sha256).hexdigest()
