"""Asking, asking again, and stopping.

Server-sent events of an answer: `start` {conversation, user_message?, message, comparison?}, then `note` {left_out} if
the oldest turns no longer fit the model, `delta` {text}, `error` {error}, and at last `done` {id, status}; `error`
alone is the last one where the key ends between the answer's end and its being read. Whom a limit refuses gets a 429,
and nothing is saved.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from chatwheel.data.records import Message
from chatwheel.feedback.comparisons import compare
from chatwheel.feedback.ratings import answer_of
from chatwheel.server.answers import Event
from chatwheel.server.callers import KeyEndedError
from chatwheel.server.errors import logged_body
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.routes.chat import fingerprint
from chatwheel.server.services import Services, ServicesDep
from chatwheel.server.shapes import Alternative, ComparisonView, ConversationView, MessageView, NewMessage, Sampling
from chatwheel.server.streaming import KEEP_ALIVE, Feed, FeedResponse, begun, sse
from chatwheel.store import conversations as store
from chatwheel.store.accounts import Principal
from chatwheel.store.personas import brief_of, system_turn
from chatwheel.store.tables import ConversationRow, MessageRow, new_id

router = APIRouter(prefix="/api", dependencies=[Depends(needs("conversations"))])


@router.post("/conversations/{conversation_id}/messages")
async def create_message(
    conversation_id: str, body: NewMessage, request: Request, services: ServicesDep, who: PrincipalDep
) -> Response:
    """Saves the user's message, then streams the answer."""

    def save(session: Session) -> MessageRow:
        conversation = store.get_conversation(session, who.user_id, conversation_id)
        parent_id = body.parent_id
        if "parent_id" not in body.model_fields_set:
            leaf = store.latest_leaf(session, conversation_id)
            parent_id = leaf.id if leaf else None
        return store.add_user_message(session, conversation, body.content, parent_id)

    def look(session: Session) -> ConversationRow:
        conversation = store.get_conversation(session, who.user_id, conversation_id)
        store.check_parent(session, conversation, body.parent_id)  # before it counts as a request
        return conversation

    conversation = await services.read(look)
    model = body.model or conversation.model
    return await _answer(services, who, request, model, conversation_id, save, body, is_new=True)


@router.post("/messages/{message_id}/regenerate")
async def regenerate(
    message_id: str, body: Sampling, request: Request, services: ServicesDep, who: PrincipalDep
) -> Response:
    """Streams another answer to the same question; the first one stays, as its sibling."""

    def find(session: Session) -> MessageRow:
        message = store.get_message(session, who.user_id, message_id)
        return message if message.role == "user" else store.get_message(session, who.user_id, message.parent_id or "")

    def own(session: Session) -> tuple[str, str]:
        message = store.get_message(session, who.user_id, message_id)
        conversation = store.get_conversation(session, who.user_id, message.conversation_id)
        return message.model or conversation.model, conversation.id

    model, conversation_id = await services.read(own)
    return await _answer(services, who, request, body.model or model, conversation_id, find, body, is_new=False)


@router.post("/messages/{message_id}/alternative")
async def compare_message(
    message_id: str, body: Alternative, request: Request, services: ServicesDep, who: PrincipalDep
) -> Response:
    """Streams a second answer to the same question, to be compared with this one."""

    def find(session: Session) -> MessageRow:
        message = answer_of(session, who.user_id, message_id)
        return store.get_message(session, who.user_id, message.parent_id or "")

    answer = await services.read(lambda session: answer_of(session, who.user_id, message_id))
    model = body.model or answer.model or ""
    about = answer.conversation_id
    return await _answer(services, who, request, model, about, find, body, is_new=False, beside=message_id)


@router.post("/messages/{message_id}/stop")
async def stop(message_id: str, services: ServicesDep, who: PrincipalDep) -> MessageView:
    """Ends an answer that is being written, on whichever server; what there is of it stays."""
    await services.read(lambda session: store.get_message(session, who.user_id, message_id))  # it is theirs
    await services.answers.stop(message_id)
    return MessageView.model_validate(
        await services.read(lambda session: store.get_message(session, who.user_id, message_id))
    )


async def _answer(
    services: Services,
    who: Principal,
    request: Request,
    model: str,
    conversation_id: str,
    question_of: Callable[[Session], MessageRow],
    sampling: Sampling,
    *,
    is_new: bool,
    beside: str | None = None,
) -> Response:
    """is_new: whether the question is. beside: the answer that this one is to be compared with."""
    entry = await services.catalog.find_answering(who, model, conversation_id)

    message_id = new_id("msg")
    brief = await services.read(partial(brief_of, conversation_id=conversation_id))
    usual = {} if brief is None else {"temperature": brief.temperature, "max_tokens": brief.max_tokens}
    own = {name: value for name, value in usual.items() if value is not None and name not in sampling.model_fields_set}
    sampling = sampling.model_copy(update=own)

    def save(session: Session) -> tuple[Sequence[Message], Event]:
        question = question_of(session)
        turns = [*system_turn(brief), *store.prompt_of(store.thread(session, question))]
        answer = store.add_answer(
            session,
            question,
            entry.name,
            message_id,
            services.instance,
            sampling=sampling.model_dump(include={"temperature", "top_p", "max_tokens", "seed"}),
            fingerprint=fingerprint(entry),
            beside=beside is not None,
        )
        conversation = store.get_conversation(session, who.user_id, question.conversation_id)
        start = _start(conversation, answer, question if is_new else None)
        if beside is not None:
            row = compare(session, who.user_id, beside, answer.id)
            start.data["comparison"] = ComparisonView.model_validate(row).model_dump()
            start.data["message"]["model"] = None  # until somebody has chosen
        return turns, start

    async def begin() -> tuple[Sequence[Message], Event]:
        return await services.write(save)

    feed = services.answers.start(message_id, entry, begin, sampling.params(), who, request)
    return FeedResponse(await begun(request, feed), _events(feed))


def _start(conversation: ConversationRow, answer: MessageRow, question: MessageRow | None) -> Event:
    """question: a new one."""
    data = {
        "conversation": ConversationView.model_validate(conversation).model_dump(),
        "message": MessageView.model_validate(answer).model_dump(),
    }
    if question is not None:
        data["user_message"] = MessageView.model_validate(question).model_dump()
    return Event("start", data)


async def _events(feed: Feed[Event]) -> AsyncIterator[str]:
    try:
        async for event in feed.events():
            yield sse(event.data, event.name) if event else KEEP_ALIVE
    except KeyEndedError as error:  # the answer had ended: who writes it can't tell any more
        yield sse(logged_body(error, "an answer"), "error")
