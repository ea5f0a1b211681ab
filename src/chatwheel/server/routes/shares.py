"""Read-only links to branches of conversations: made and revoked by their owner, read by whoever has one.

Nobody has one until it is made. What is read by it is the title and the turns of that branch, and nothing else: no ids,
no models, no ratings, no system prompt, of files the names alone.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.services import ServicesDep
from chatwheel.server.shapes import Body
from chatwheel.store import shares as store

router = APIRouter(prefix="/api", dependencies=[Depends(needs("conversations"))])
public = APIRouter(include_in_schema=False)


class NewShare(Body):
    """POST /api/conversations/{id}/shares. leaf: the last message of the branch; null for the newest one."""

    leaf: str | None = Field(None, max_length=40)


class ShareView(BaseModel):
    """A link: the page's own address with `#/s/` and the token."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    token: str
    leaf_id: str
    created_at: float


class ShareList(BaseModel):
    """The newest first."""

    data: list[ShareView]


class SharedMessage(BaseModel):
    """A turn as others read it."""

    role: str
    content: str
    files: list[str]


class Shared(BaseModel):
    """A branch as others read it."""

    title: str
    messages: list[SharedMessage]


@router.post("/conversations/{conversation_id}/shares", status_code=201)
def create_share(conversation_id: str, body: NewShare, services: ServicesDep, who: PrincipalDep) -> ShareView:
    """A link by which anybody reads the branch as it is down to that message; what comes after it is not shown."""
    with services.database.write() as session:
        return ShareView.model_validate(store.share(session, who.user_id, conversation_id, body.leaf))


@router.get("/conversations/{conversation_id}/shares")
def list_shares(conversation_id: str, services: ServicesDep, who: PrincipalDep) -> ShareList:
    """The links that open it."""
    with services.database.read() as session:
        rows = store.list_shares(session, who.user_id, conversation_id)
        return ShareList(data=[ShareView.model_validate(row) for row in rows])


@router.delete("/shares/{share_id}", status_code=204)
def revoke_share(share_id: str, services: ServicesDep, who: PrincipalDep) -> Response:
    """The link opens nothing any more."""
    with services.database.write() as session:
        store.revoke(session, who.user_id, share_id)
    return Response(status_code=204)


@public.get("/shared/{token}")
def read_shared(token: Annotated[str, Path(max_length=64)], services: ServicesDep, response: Response) -> Shared:
    """What a link shows, to whoever has it."""
    response.headers.update({"x-robots-tag": "noindex, nofollow", "cache-control": "no-store"})
    with services.database.read() as session:
        conversation, messages = store.read(session, token)
        turns = [
            SharedMessage(role=row.role, content=row.content, files=[one["name"] for one in row.attachments or ()])
            for row in messages
        ]
        return Shared(title=conversation.title, messages=turns)
