"""The labelling room: what labellers do, and what those do who manage a queue, that is a project's owners and admins.

A labeller gets one task after the other by `next`, in an order of answers that is drawn for them, and judges, skips or
reports it. Nobody is told whose answers they are, nor what others have judged.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.data.records import Message, json_line
from chatwheel.engine.requests import SamplingParams
from chatwheel.errors import InputError
from chatwheel.feedback.room import assigning, judging, queues
from chatwheel.feedback.room.exporting import export_queue
from chatwheel.feedback.room.importing import import_text
from chatwheel.feedback.room.queues import NewAnswer, NewTask
from chatwheel.feedback.room.reading import judged_tasks
from chatwheel.feedback.room.report import disputes, people_of, queue_report
from chatwheel.feedback.room.sources import chat_prompts, tasks_of_queue
from chatwheel.server.catalog import bases
from chatwheel.server.identity import PrincipalDep, check_scope, needs
from chatwheel.server.labelling import (
    Draft,
    Json,
    Judgement,
    NewImport,
    NewQueue,
    NewSamples,
    NewSkip,
    NewTaskReport,
    NewTasks,
    QueueChange,
    TaskStateChange,
    assignment_view,
    complaint_view,
    dispute_view,
    queue_view,
    report_view,
)
from chatwheel.server.organization import listed
from chatwheel.server.routes.chat import fingerprint
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.sampling import check_context
from chatwheel.server.services import Services, ServicesDep
from chatwheel.server.spent import Spent
from chatwheel.server.streaming import closing, together, until_disconnect
from chatwheel.store import accounts
from chatwheel.store.accounts import ADMIN, ForbiddenError, NotFoundError, Principal
from chatwheel.store.registry import ModelEntry
from chatwheel.store.tables import LabellingJudgementRow, LabellingQueueRow, LabellingTaskRow


async def _may_manage(principal: PrincipalDep) -> None:
    if not (principal.may("project") or principal.may(ADMIN)):
        raise ForbiddenError(
            "This key may not do that: it has neither the scope 'project' nor 'admin'.", code="insufficient_permissions"
        )


_may_manage.scope = "project"  # type: ignore[attr-defined]
router = APIRouter(prefix="/v1/labelling", dependencies=[Depends(needs("labelling"))])
managing = APIRouter(prefix="/v1/labelling", dependencies=[Depends(_may_manage)])


# -- labellers


@router.get("/queues")
def list_queues(services: ServicesDep, who: PrincipalDep) -> Json:
    """The project's queues, the newest first; an admin's key sees those of all projects."""
    with services.database.read() as session:
        rows = queues.list_queues(session, None if who.may(ADMIN) else who.project_id)
        return listed([queue_view(session, row, who) for row in rows])


@router.get("/queues/{queue_id}")
def get_queue(queue_id: str, services: ServicesDep, who: PrincipalDep) -> Json:
    """A queue, its guidelines, and how far it is."""
    with services.database.read() as session:
        return queue_view(session, _seen(session, who, queue_id), who)


@router.post("/queues/{queue_id}/next")
async def next_task(queue_id: str, services: ServicesDep, who: PrincipalDep) -> Json | None:
    """The task that one has, or the next one; null where there is none (any more)."""

    def work(session: Session) -> Json | None:
        _seen(session, who, queue_id)
        row = assigning.next_assignment(session, queue_id, who.user_id)
        return None if row is None else assignment_view(session, row)

    return await services.write(work)


@router.get("/queues/{queue_id}/last")
def last_task(queue_id: str, services: ServicesDep, who: PrincipalDep) -> Json | None:
    """What one has judged or skipped last, to say it otherwise; null where there is nothing."""
    with services.database.read() as session:
        _seen(session, who, queue_id)
        row = judging.last_of(session, queue_id, who.user_id)
        return None if row is None else assignment_view(session, row)


@router.get("/assignments/{assignment_id}")
async def get_assignment(assignment_id: str, services: ServicesDep, who: PrincipalDep) -> Json:
    """A task that one has or had."""

    def work(session: Session) -> Json:
        return assignment_view(session, assigning.held_by(session, assignment_id, who.user_id)[0])

    return await services.write(work)


@router.put("/assignments/{assignment_id}/draft")
async def save_draft(assignment_id: str, body: Draft, services: ServicesDep, who: PrincipalDep) -> Json:
    """Keeps what one has so far, and the task in one's hands."""

    def work(session: Session) -> Json:
        draft = body.model_dump(exclude_none=True)
        return assignment_view(session, assigning.save_draft(session, assignment_id, who.user_id, draft))

    return await services.write(work)


@router.post("/assignments/{assignment_id}/judgement")
async def judge(assignment_id: str, body: Judgement, services: ServicesDep, who: PrincipalDep) -> Json:
    """Hands a judgement in; the same once more counts once, another one corrects it."""

    def work(session: Session) -> Json:
        judging.submit(session, who.user_id, assignment_id, body.said())
        return assignment_view(session, assigning.held_by(session, assignment_id, who.user_id)[0])

    return await services.write(work)


@router.post("/assignments/{assignment_id}/skip", status_code=204)
async def skip(assignment_id: str, body: NewSkip, services: ServicesDep, who: PrincipalDep) -> Response:
    """Gives the task to somebody else."""
    await services.write(lambda session: judging.skip(session, who.user_id, assignment_id, body.reason, body.comment))
    return Response(status_code=204)


@router.post("/assignments/{assignment_id}/report", status_code=204)
async def report_task(assignment_id: str, body: NewTaskReport, services: ServicesDep, who: PrincipalDep) -> Response:
    """Nobody is shown the task until who manages the queue has looked at it."""
    await services.write(lambda session: judging.report(session, who.user_id, assignment_id, body.reason, body.comment))
    return Response(status_code=204)


# -- those who manage


@managing.post("/queues", status_code=201)
def create_queue(body: NewQueue, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Json:
    """Makes a queue, of one's own project unless another one is named."""
    project = body.project_id or who.project_id
    if not who.manages(project):
        raise NotFoundError(f"project {project!r} not found, or not yours to manage")
    with services.database.write() as session:
        accounts.get_project(session, project)
        row = queues.create_queue(
            session,
            project,
            body.name,
            body.kind,
            guidelines=body.guidelines,
            labellers=body.labellers,
            patience=body.patience,
            labels=body.labels,
            by=who.user_id,
        )
        accounts.record(session, who, "labelling_queue.created", row.id, address=address, kind=row.kind)
        return queue_view(session, row, who)


@managing.patch("/queues/{queue_id}")
def change_queue(
    queue_id: str, body: QueueChange, services: ServicesDep, who: PrincipalDep, address: AddressDep
) -> Json:
    """Changes its name, guidelines or numbers, closes it, or opens it again."""
    with services.database.write() as session:
        queues.lock_queue(session, queue_id)
        row = _managed(session, who, queue_id)
        queues.change_queue(session, row, **body.model_dump(exclude_none=True))
        accounts.record(session, who, "labelling_queue.changed", row.id, address=address)
        return queue_view(session, row, who)


@managing.delete("/queues/{queue_id}", status_code=204)
def delete_queue(queue_id: str, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Response:
    """Takes it away with all that was judged in it."""
    with services.database.write() as session:
        queues.lock_queue(session, queue_id)
        session.delete(_managed(session, who, queue_id))
        accounts.record(session, who, "labelling_queue.deleted", queue_id, address=address)
    return Response(status_code=204)


@managing.post("/queues/{queue_id}/tasks")
async def add_tasks(queue_id: str, body: NewTasks, services: ServicesDep, who: PrincipalDep) -> Json:
    """Puts tasks in, those that are not there yet."""

    def work(session: Session) -> Json:
        row = _managed(session, who, queue_id)
        tasks = [one.task() for one in body.tasks]
        if body.from_queue is not None:
            tasks += tasks_of_queue(session, _managed(session, who, body.from_queue), row.kind)
        tasks += _chat_prompts(session, who, body.from_chats)
        if not tasks:
            raise InputError("tasks: there are none to put in; give some, or say where they come from", param="tasks")
        done = queues.add_tasks(session, row, tasks)
        return {"added": done.added, "already": done.already}

    return await services.write(work)


@managing.post("/queues/{queue_id}/import")
async def import_tasks(queue_id: str, body: NewImport, services: ServicesDep, who: PrincipalDep) -> Json:
    """Puts a file's records in, all or none; what is wrong is named with its line."""

    def work(session: Session) -> Json:
        row = _managed(session, who, queue_id)
        return asdict(import_text(session, row, body.name, body.content, format=body.format, ranks=body.ranks))

    return await services.write(work)


@managing.post("/queues/{queue_id}/sample")
async def sample_tasks(
    queue_id: str, body: NewSamples, request: Request, services: ServicesDep, who: PrincipalDep
) -> Json:
    """Lets a model answer prompts, and puts its answers in to be judged; it counts as that key's use of the model."""

    def prompts(session: Session) -> tuple[str, list[NewTask]]:
        row = _managed(session, who, queue_id)
        given = [NewTask([Message(role=t.role, content=t.content) for t in turns]) for turns in body.prompts]
        return row.kind, [*given, *_chat_prompts(session, who, body.from_chats)]

    kind, asked = await services.read(prompts)
    wanted = _wanted(kind, body.answers, asked)
    entry = await services.catalog.find_answering(who, body.model)
    tasks = await until_disconnect(request, _sampled(services, request, who, entry, body, asked, wanted))
    whole = [task for task in tasks if len(task.answers) >= min(wanted, 2)]

    def work(session: Session) -> Json:
        done = queues.add_tasks(session, _managed(session, who, queue_id), whole)
        return {"added": done.added, "already": done.already, "alike": len(tasks) - len(whole)}

    return await services.write(work)


@managing.get("/queues/{queue_id}/report")
def get_report(queue_id: str, services: ServicesDep, who: PrincipalDep) -> Json:
    """How far labellers agree, who can be relied on, who has which habit, and how long a task takes."""
    with services.database.read() as session:
        row = _managed(session, who, queue_id)
        return report_view(queue_report(session, row), row)


@managing.get("/queues/{queue_id}/adjudication")
def list_disputes(
    queue_id: str,
    services: ServicesDep,
    who: PrincipalDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Json:
    """The tasks on which labellers agree no better than chance, those first that are disputed most."""
    with services.database.read() as session:
        row = _managed(session, who, queue_id)
        found = disputes(row, judged_tasks(session, row))
        some = found[offset : offset + limit]
        people = {user for one in some for user in one.judged.by}
        names = people_of(session, people)
        rows = [dispute_view(one, names) for one in some]
        return listed(rows, has_more=len(found) > offset + limit) | {"total": len(found)}


@managing.get("/queues/{queue_id}/reported")
def list_reported(queue_id: str, services: ServicesDep, who: PrincipalDep) -> Json:
    """The tasks that labellers have reported, which nobody is shown meanwhile."""
    with services.database.read() as session:
        _managed(session, who, queue_id)
        query = select(LabellingTaskRow).where(
            LabellingTaskRow.queue_id == queue_id, LabellingTaskRow.state == "reported"
        )
        found = []
        for task in session.scalars(query.order_by(LabellingTaskRow.place).limit(100)).all():
            said = select(LabellingJudgementRow).where(
                LabellingJudgementRow.task_id == task.id, LabellingJudgementRow.action == "reported"
            )
            rows = session.scalars(said.order_by(LabellingJudgementRow.id)).all()
            found.append(complaint_view(task, [one.content for one in queues.answers_of(session, task.id)], rows))
        return listed(found)


@managing.post("/tasks/{task_id}/decision")
async def decide(task_id: str, body: Judgement, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Json:
    """An adjudicator's word, which counts for all labellers'; ranks are in the order of the task's answers."""

    def work(session: Session) -> Json:
        _managed(session, who, _queue_of(session, task_id))
        row = judging.decide(session, who.user_id, task_id, body.said())
        accounts.record(session, who, "labelling_task.decided", task_id, address=address)
        return {"id": task_id, "ranks": row.ranks, "labels": row.labels, "text": row.text}

    return await services.write(work)


@managing.post("/tasks/{task_id}/state")
async def set_task_state(
    task_id: str, body: TaskStateChange, services: ServicesDep, who: PrincipalDep, address: AddressDep
) -> Json:
    """Gives a reported task out again, or takes it out of the queue."""

    def work(session: Session) -> Json:
        _managed(session, who, _queue_of(session, task_id))
        row = judging.set_state(session, task_id, body.state)
        accounts.record(session, who, f"labelling_task.{body.state}", task_id, address=address)
        return {"id": row.id, "state": row.state}

    return await services.write(work)


@managing.get("/queues/{queue_id}/export", response_class=Response)
def export(
    queue_id: str,
    services: ServicesDep,
    who: PrincipalDep,
    format: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """What a queue has come to, as JSON Lines; labellers have names that are drawn anew each time."""
    with services.database.read() as session:
        row = _managed(session, who, queue_id)
        found = export_queue(session, row, format, secrets.token_hex(16))
        name = f"{row.id}-{found.format}.jsonl"
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "x-left-out": str(sum(found.left_out.values())),
        }
        content = b"".join(json_line(record) for record in found.records)
        return Response(content, media_type="application/jsonl", headers=headers)


def _seen(session: Session, who: Principal, queue_id: str) -> LabellingQueueRow:
    """One that they may label in. Raises NotFoundError."""
    row = session.get(LabellingQueueRow, queue_id)
    if row is None or not (row.project_id == who.project_id or who.may(ADMIN)):
        raise NotFoundError(f"labelling queue {queue_id!r} not found")
    return row


def _managed(session: Session, who: Principal, queue_id: str) -> LabellingQueueRow:
    """One that they may fill and read. Raises NotFoundError; ForbiddenError for one in which they may only label."""
    row = _seen(session, who, queue_id)
    if not who.manages(row.project_id):
        raise ForbiddenError("Only owners of the project and admins manage its labelling queues.")
    return row


def _queue_of(session: Session, task_id: str) -> str:
    row = session.get(LabellingTaskRow, task_id)
    if row is None:
        raise NotFoundError(f"labelling task {task_id!r} not found")
    return row.queue_id


def _chat_prompts(session: Session, who: Principal, limit: int) -> list[NewTask]:
    """Chats are everybody's: an admin's to take from."""
    if not limit:
        return []
    check_scope(who, ADMIN)
    found = chat_prompts(session, limit)
    if not found:
        raise InputError(
            "from_chats: there is no chat yet of anybody who lets models learn from theirs", param="from_chats"
        )
    return found


def _wanted(kind: str, answers: int, asked: list[NewTask]) -> int:
    """How many answers each prompt gets. Raises InputError."""
    if kind not in ("rank", "rate"):
        raise InputError(f"in a queue of the kind {kind!r} people write; answers are sampled to be ranked or rated")
    if kind == "rank" and answers < 2:
        raise InputError("answers: at least two are ranked", param="answers")
    wanted = answers if kind == "rank" else 1
    if not asked:
        raise InputError("prompts: there are none; give some, or take them from chats", param="prompts")
    if len(asked) > 100:
        raise InputError("prompts: at most 100 at a time, those of chats included", param="prompts")
    for number, task in enumerate(asked, start=1):
        queues.check_task("reply", task, f"prompt {number}")
    return wanted


async def _sampled(
    services: Services,
    request: Request,
    who: Principal,
    entry: ModelEntry,
    body: NewSamples,
    asked: list[NewTask],
    wanted: int,
) -> list[NewTask]:
    """Tasks with answers, those that are the same once."""
    sampling: dict[str, Any] = {"temperature": body.temperature, "top_p": body.top_p, "max_tokens": body.max_tokens}

    async def one(place: int, task: NewTask) -> NewTask:
        spent = Spent()
        metered = services.meter.request(
            who,
            endpoint="labelling",
            model=entry.name,
            priced_as=bases(entry),
            spent=spent,
            http=request,
            streamed=False,
        )
        async with metered as bill, services.models.use(entry) as assistant:
            messages = list(task.messages)
            prompt_ids = await assistant.encode(messages)
            check_context(len(prompt_ids), None, assistant.context_length, "prompts")
            bill.spent.prompt_tokens = len(prompt_ids)
            room = min(body.max_tokens, assistant.context_length - len(prompt_ids))

            async def answer(choice: int) -> NewAnswer:
                seed = body.seed + place * wanted + choice
                params = SamplingParams(temperature=body.temperature, top_p=body.top_p, max_tokens=room, seed=seed)
                pieces = []
                async with closing(assistant.stream(messages, params, prompt_ids=prompt_ids)) as deltas:
                    async for delta in deltas:
                        await bill.note(choice, delta)
                        pieces.append(delta.text)
                more = {"seed": seed, "fingerprint": fingerprint(entry)}
                return NewAnswer("".join(pieces).strip(), model=entry.name, sampling=sampling | more)

            answers = await together([answer(choice) for choice in range(wanted)])
        different = {one.content: one for one in reversed(answers) if one.content}
        return replace(task, answers=list(different.values())[::-1], source=task.source or "sampled")

    found = []
    for place, task in enumerate(asked):  # one prompt after the other: others are waiting for the model too
        found.append(await one(place, task))
    return found
