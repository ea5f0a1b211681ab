"""Personas, a user's custom instruction, and prompts to fill in: each user's own.

A conversation keeps a copy of what it began with. Its system turn is the persona's prompt, then an empty line, then the
user's instruction; the persona's temperature and length hold where a request names none.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.services import ServicesDep
from chatwheel.server.shapes import Body
from chatwheel.store import personas as store
from chatwheel.store.tables import PersonaRow, PromptRow

router = APIRouter(prefix="/api", dependencies=[Depends(needs("conversations"))])
LONGEST_SYSTEM = 20_000
LONGEST_INSTRUCTION = 5000


class NewPersona(Body):
    """POST and PUT /api/personas. model: null for the one that is chosen; temperature and max_tokens: null for the
    usual ones."""

    name: str = Field(min_length=1, max_length=100, pattern=r"\S")
    system_prompt: str = Field("", max_length=LONGEST_SYSTEM)
    model: str | None = Field(None, min_length=1, max_length=1000)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)


class PersonaView(BaseModel):
    """A persona."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    system_prompt: str
    model: str | None
    temperature: float | None
    max_tokens: int | None
    created_at: float


class PersonaList(BaseModel):
    """The oldest first."""

    data: list[PersonaView]


class NewPrompt(Body):
    """POST and PUT /api/prompts. `{{name}}` in the content is a field to fill in."""

    title: str = Field(min_length=1, max_length=100, pattern=r"\S")
    content: str = Field(min_length=1, max_length=LONGEST_SYSTEM)


class PromptView(BaseModel):
    """A prompt to fill in."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    title: str
    content: str
    created_at: float


class PromptList(BaseModel):
    """The oldest first."""

    data: list[PromptView]


class Instruction(Body):
    """PUT /api/instruction; empty takes it back."""

    content: str = Field(max_length=LONGEST_INSTRUCTION)


@router.get("/personas")
def list_personas(services: ServicesDep, who: PrincipalDep) -> PersonaList:
    """One's own."""
    with services.database.read() as session:
        rows = store.list_own(session, PersonaRow, who.user_id)
        return PersonaList(data=[PersonaView.model_validate(row) for row in rows])


@router.post("/personas", status_code=201)
def create_persona(body: NewPersona, services: ServicesDep, who: PrincipalDep) -> PersonaView:
    """A name, a system prompt, and perhaps a model and how it samples."""
    with services.database.write() as session:
        return PersonaView.model_validate(store.add(session, PersonaRow, who.user_id, body.model_dump()))


@router.put("/personas/{persona_id}")
def change_persona(persona_id: str, body: NewPersona, services: ServicesDep, who: PrincipalDep) -> PersonaView:
    """Replaces it. Conversations that began with it stay as they are."""
    with services.database.write() as session:
        row = store.change(session, PersonaRow, who.user_id, persona_id, body.model_dump())
        return PersonaView.model_validate(row)


@router.delete("/personas/{persona_id}", status_code=204)
def delete_persona(persona_id: str, services: ServicesDep, who: PrincipalDep) -> Response:
    """Conversations that began with it stay as they are."""
    with services.database.write() as session:
        store.remove(session, PersonaRow, who.user_id, persona_id)
    return Response(status_code=204)


@router.get("/instruction")
def get_instruction(services: ServicesDep, who: PrincipalDep) -> Instruction:
    """What every new conversation of one's own is told."""
    with services.database.read() as session:
        return Instruction(content=store.instruction_of(session, who.user_id))


@router.put("/instruction")
def set_instruction(body: Instruction, services: ServicesDep, who: PrincipalDep) -> Instruction:
    """For conversations that begin from now on."""
    with services.database.write() as session:
        return Instruction(content=store.set_instruction(session, who.user_id, body.content))


@router.get("/prompts")
def list_prompts(services: ServicesDep, who: PrincipalDep) -> PromptList:
    """One's own."""
    with services.database.read() as session:
        rows = store.list_own(session, PromptRow, who.user_id)
        return PromptList(data=[PromptView.model_validate(row) for row in rows])


@router.post("/prompts", status_code=201)
def create_prompt(body: NewPrompt, services: ServicesDep, who: PrincipalDep) -> PromptView:
    """Words to ask with, which the page offers beside its own."""
    with services.database.write() as session:
        return PromptView.model_validate(store.add(session, PromptRow, who.user_id, body.model_dump()))


@router.put("/prompts/{prompt_id}")
def change_prompt(prompt_id: str, body: NewPrompt, services: ServicesDep, who: PrincipalDep) -> PromptView:
    """Replaces it."""
    with services.database.write() as session:
        return PromptView.model_validate(store.change(session, PromptRow, who.user_id, prompt_id, body.model_dump()))


@router.delete("/prompts/{prompt_id}", status_code=204)
def delete_prompt(prompt_id: str, services: ServicesDep, who: PrincipalDep) -> Response:
    """Takes it away."""
    with services.database.write() as session:
        store.remove(session, PromptRow, who.user_id, prompt_id)
    return Response(status_code=204)
