"""The page's conversations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from chatwheel.feedback.comparisons import comparisons_of
from chatwheel.feedback.corrections import corrections_of
from chatwheel.feedback.ratings import ratings_of
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.services import ServicesDep
from chatwheel.server.shapes import (
    ConversationChange,
    ConversationList,
    ConversationView,
    ConversationWithMessages,
    NewConversation,
    SearchHit,
    SearchHits,
    with_messages,
)
from chatwheel.store import conversations as store
from chatwheel.store.search import search
from chatwheel.store.tables import new_id

router = APIRouter(prefix="/api/conversations", dependencies=[Depends(needs("conversations"))])


@router.get("")
def list_conversations(
    services: ServicesDep,
    who: PrincipalDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    before: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> ConversationList:
    """The newest first; `before` (the last one's updated_at) goes on."""
    with services.database.read() as session:
        rows = store.list_conversations(session, who.user_id, limit, before)
        return ConversationList(data=[ConversationView.model_validate(row) for row in rows])


@router.post("", status_code=201)
async def create_conversation(body: NewConversation, services: ServicesDep, who: PrincipalDep) -> ConversationView:
    """An empty conversation with a model."""
    conversation_id = new_id("conv")
    # By conversation, so that one person meets both the current model and the candidate.
    entry = await services.catalog.find_answering(who, body.model, conversation_id)
    row = await services.write(
        lambda session: store.create_conversation(
            session, who.user_id, entry.name, language=body.language, conversation_id=conversation_id
        )
    )
    return ConversationView.model_validate(row)


@router.get("/search")
def search_conversations(
    services: ServicesDep,
    who: PrincipalDep,
    q: Annotated[str, Query(max_length=1000)],
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> SearchHits:
    """Titles and messages, of all branches, that have all words of `q`; the last one may be unfinished. Chinese is
    found by any characters that stand together. A query without a letter or a digit finds nothing."""
    with services.database.read() as session:
        return SearchHits(data=[SearchHit.of(found) for found in search(session, who.user_id, q, limit)])


@router.get("/{conversation_id}")
def get_conversation(conversation_id: str, services: ServicesDep, who: PrincipalDep) -> ConversationWithMessages:
    """With all its messages and ratings."""
    with services.database.read() as session:
        row = store.get_conversation(session, who.user_id, conversation_id)
        messages = store.list_messages(session, conversation_id)
        return with_messages(
            row,
            messages,
            ratings_of(session, conversation_id),
            corrections_of(session, conversation_id),
            comparisons_of(session, conversation_id),
        )


@router.patch("/{conversation_id}")
def rename_conversation(
    conversation_id: str, body: ConversationChange, services: ServicesDep, who: PrincipalDep
) -> ConversationView:
    """A new title."""
    with services.database.write() as session:
        row = store.rename_conversation(session, who.user_id, conversation_id, body.title)
        return ConversationView.model_validate(row)


@router.delete("/{conversation_id}", status_code=204)
def delete_conversation(conversation_id: str, services: ServicesDep, who: PrincipalDep) -> Response:
    """With its messages and their ratings."""
    with services.database.write() as session:
        store.delete_conversation(session, who.user_id, conversation_id)
    return Response(status_code=204)
