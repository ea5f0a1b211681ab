"""What people say about answers: thumbs, choices between two, better words of their own, reports; and their consent.

`POST /api/messages/{id}/alternative` streams a second answer to the same question, as `regenerate` does; its `start`
has a `comparison` with the ids of the two answers in the order in which they are to be shown.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from chatwheel.feedback import comparisons, consent, corrections, reports
from chatwheel.feedback.ratings import rate
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.services import ServicesDep
from chatwheel.server.shapes import (
    ComparisonView,
    Consent,
    CorrectionView,
    NewChoice,
    NewCorrection,
    NewRating,
    NewReport,
    RatingView,
    ReportList,
    ReportView,
)
from chatwheel.store import accounts

router = APIRouter(prefix="/api", dependencies=[Depends(needs("conversations"))])
admin = APIRouter(prefix="/api/reports", dependencies=[Depends(needs(accounts.ADMIN))])


@router.put("/messages/{message_id}/rating")
def rate_message(message_id: str, body: NewRating, services: ServicesDep, who: PrincipalDep) -> RatingView | None:
    """One rating an answer; again replaces, 0 takes back."""
    with services.database.write() as session:
        row = rate(session, who.user_id, message_id, body.value, body.comment, body.reasons)
        return RatingView.model_validate(row) if row else None


@router.put("/messages/{message_id}/correction")
def correct_message(message_id: str, body: NewCorrection, services: ServicesDep, who: PrincipalDep) -> CorrectionView:
    """What the answer should have been; again replaces."""
    with services.database.write() as session:
        return CorrectionView.model_validate(corrections.correct(session, who.user_id, message_id, body.content))


@router.delete("/messages/{message_id}/correction", status_code=204)
def take_correction_back(message_id: str, services: ServicesDep, who: PrincipalDep) -> Response:
    """As if it had not been corrected."""
    with services.database.write() as session:
        corrections.take_back(session, who.user_id, message_id)
    return Response(status_code=204)


@router.post("/messages/{message_id}/report", status_code=204)
def report_message(message_id: str, body: NewReport, services: ServicesDep, who: PrincipalDep) -> Response:
    """An admin should look at it."""
    with services.database.write() as session:
        reports.report(session, who.user_id, message_id, body.reason, body.comment)
    return Response(status_code=204)


@router.put("/comparisons/{comparison_id}")
def choose(comparison_id: str, body: NewChoice, services: ServicesDep, who: PrincipalDep) -> ComparisonView:
    """Which of the two is better; again replaces."""
    with services.database.write() as session:
        row = comparisons.choose(session, who.user_id, comparison_id, body.choice)
        models = comparisons.models_of(session, row)
        return ComparisonView.model_validate(row).model_copy(update={"models": models})


@router.get("/consent")
def get_consent(services: ServicesDep, who: PrincipalDep) -> Consent:
    """Whether models may learn from one's chats."""
    with services.database.read() as session:
        return Consent(improve=accounts.get_user(session, who.user_id).improve_since is not None)


@router.put("/consent")
def set_consent(body: Consent, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Consent:
    """From now on, or no more: nothing of one's own is in any later export then."""
    with services.database.write() as session:
        row = consent.set_consent(session, who.user_id, body.improve)
        accounts.record(
            session, who, "consent.given" if body.improve else "consent.refused", who.user_id, address=address
        )
        return Consent(improve=row.improve_since is not None)


@admin.get("")
def list_reports(
    services: ServicesDep,
    handled: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> ReportList:
    """Those that nobody has handled yet, the oldest first, or the others, the last handled first."""
    with services.database.read() as session:
        found = reports.list_reports(session, handled=handled, limit=limit, offset=offset)
        return ReportList(data=[ReportView.of(report, answer) for report, answer in found])


@admin.post("/{message_id}/{reason}/handled", status_code=204)
def handle_report(
    message_id: str, reason: str, services: ServicesDep, who: PrincipalDep, address: AddressDep
) -> Response:
    """Somebody has looked at it."""
    with services.database.write() as session:
        reports.handle(session, message_id, reason, who.user_id)
        accounts.record(session, who, "report.handled", message_id, address=address, reason=reason)
    return Response(status_code=204)
