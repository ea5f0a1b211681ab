"""The page's conversations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query, Response
from sqlalchemy.orm import Session

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
from chatwheel.server.transfer import SavedConversation, markdown_of, parse
from chatwheel.store import conversations as store
from chatwheel.store.personas import begin_with, brief_of, get_own, keep_brief
from chatwheel.store.retention import touched_at
from chatwheel.store.search import search
from chatwheel.store.tables import ConversationRow, PersonaRow, new_id

OF_THE_BRIEF = {"persona", "system_prompt", "temperature", "max_tokens"}
NOT_OF_THE_ROW = {"format", "version", "messages"} | OF_THE_BRIEF
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

    def add(session: Session) -> ConversationRow:
        persona = get_own(session, PersonaRow, who.user_id, body.persona) if body.persona else None
        row = store.create_conversation(
            session, who.user_id, entry.name, language=body.language, conversation_id=conversation_id
        )
        begin_with(session, conversation_id, who.user_id, persona)
        return row

    return ConversationView.model_validate(await services.write(add))


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


@router.post("/import", status_code=201)
def import_conversations(given: Annotated[Any, Body()], services: ServicesDep, who: PrincipalDep) -> ConversationList:
    """Adds conversations, all of them or none: one that was exported here as JSON, one of ChatGPT's export
    (`conversations.json`), or a list of them. Of ChatGPT's, text is kept and what answers nothing is left out. A body
    has at most 10 MB; send a larger file's conversations a few at a time."""
    saved = parse(given)

    def add(session: Session) -> ConversationList:
        rows = []
        for one in saved:
            row = ConversationRow(user_id=who.user_id, **one.model_dump(exclude=NOT_OF_THE_ROW))
            row.updated_at = touched_at(session, one.updated_at)
            rows.append(store.import_conversation(session, row, one.turns()))
            if one.system_prompt or one.persona:
                keep_brief(session, row.id, one.model_dump(include=OF_THE_BRIEF))
        return ConversationList(data=[ConversationView.model_validate(row) for row in rows])

    return services.database.transact(add)


@router.get(
    "/{conversation_id}/export",
    response_class=Response,
    responses={200: {"content": {"application/json": {}, "text/markdown": {}}}},
)
def export_conversation(
    conversation_id: str,
    services: ServicesDep,
    who: PrincipalDep,
    format: Annotated[Literal["json", "markdown"], Query()] = "json",
    leaf: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """The whole tree as JSON, which can be imported again, or a branch as Markdown: the one that ends with the message
    `leaf`, or else with the newest one. Without feedback."""
    with services.database.read() as session:
        row = store.get_conversation(session, who.user_id, conversation_id)
        if format == "json":
            saved = SavedConversation.of(
                row, store.list_messages(session, conversation_id), brief_of(session, conversation_id)
            )
            body, kind, ending = saved.model_dump_json(indent=1), "application/json", "json"
        else:
            branch = store.branch(session, conversation_id, leaf)
            body, kind, ending = markdown_of(row.title, branch), "text/markdown; charset=utf-8", "md"
    headers = {"content-disposition": f'attachment; filename="{conversation_id}.{ending}"'}
    return Response(body, media_type=kind, headers=headers)


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
            brief_of(session, conversation_id),
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
    """With its messages and their ratings. Nobody finds it any more, and half a minute later it is gone for good."""
    with services.database.write() as session:
        store.delete_conversation(session, who.user_id, conversation_id)
    return Response(status_code=204)


@router.post("/{conversation_id}/restore")
def restore_conversation(conversation_id: str, services: ServicesDep, who: PrincipalDep) -> ConversationView:
    """As if it had not been deleted, within half a minute."""
    with services.database.write() as session:
        return ConversationView.model_validate(store.restore_conversation(session, who.user_id, conversation_id))
