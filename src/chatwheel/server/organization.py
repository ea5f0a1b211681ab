"""The JSON of users, projects, keys, prices and usage: OpenAI's administration objects, with what is ours beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.store.accounts import SCOPES, USUAL, NewKey, Principal, Scope
from chatwheel.store.prices import DOLLAR
from chatwheel.store.sign_in import SIGN_IN_FAILED
from chatwheel.store.tables import ApiKeyRow, AuditRow, MemberRow, PriceRow, ProjectRow, UserRow

Json = dict[str, Any]
MOST_DOLLARS = 10**9
Name = Field(min_length=1, max_length=200)


class _Body(BaseModel):
    """What a client sends: exact types, no unknown fields, no infinities."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Limits(_Body):
    """null takes a limit away. monthly_budget: in dollars."""

    requests_per_minute: int | None = Field(None, ge=1, le=2**31 - 1)
    tokens_per_minute: int | None = Field(None, ge=1, le=2**31 - 1)
    monthly_budget: float | None = Field(None, ge=0, le=MOST_DOLLARS)

    def limits(self) -> dict[str, int | None]:
        """Those that were given, as the tables have them."""
        names = {"requests_per_minute", "tokens_per_minute"} & self.model_fields_set
        found: dict[str, int | None] = {name: getattr(self, name) for name in names}
        if "monthly_budget" in self.model_fields_set:
            found["budget"] = None if self.monthly_budget is None else round(self.monthly_budget * DOLLAR)
        return found


class _ProjectLimits(_Limits):
    """file_bytes: that the project's files may take, null is the installation's default."""

    file_bytes: int | None = Field(None, ge=0, lt=10**18)

    def limits(self) -> dict[str, int | None]:
        """Those that were given, as the tables have them."""
        return super().limits() | ({"file_bytes": self.file_bytes} if "file_bytes" in self.model_fields_set else {})


class NewProject(_ProjectLimits):
    """POST /v1/organization/projects."""

    name: str = Name


class ProjectChange(_ProjectLimits):
    """POST /v1/organization/projects/{project_id}."""

    name: str | None = Field(None, min_length=1, max_length=200)


class NewApiKey(_Limits):
    """POST /v1/organization/projects/{project_id}/api_keys. user_id: whose, your own unless given. expires_in: in
    seconds."""

    name: str = Name
    user_id: str | None = Field(None, max_length=40)
    scopes: list[Scope] = Field(default_factory=lambda: list(USUAL), min_length=1)
    models: list[str] | None = Field(None, max_length=1000)
    expires_in: int | None = Field(None, ge=1, le=10**10)


class Rotation(_Body):
    """POST .../api_keys/{key_id}/rotate. keep_seconds: how long the old secret still opens."""

    keep_seconds: int = Field(0, ge=0, le=30 * 86400)


class NewUser(_Body):
    """POST /v1/organization/users."""

    name: str = Name
    role: Literal["admin", "member"] = "member"


class UserChange(_Body):
    """POST /v1/organization/users/{user_id}."""

    role: Literal["admin", "member"] | None = None
    disabled: bool | None = None


class Membership(_Body):
    """POST /v1/organization/projects/{project_id}/users."""

    user_id: str = Field(max_length=40)
    role: Literal["owner", "member"] = "member"


class Price(_Body):
    """POST /v1/organization/prices: dollars for a million tokens. model: a name, or its beginning and `*`."""

    model: str = Field(min_length=1, max_length=300)
    input: float = Field(ge=0, le=MOST_DOLLARS)
    cached_input: float | None = Field(None, ge=0, le=MOST_DOLLARS)
    output: float = Field(ge=0, le=MOST_DOLLARS)
    training: float = Field(0.0, ge=0, le=MOST_DOLLARS)


MILLION_DOLLARS = DOLLAR / 10**6
"""Billionths of a dollar a token are so many times the dollars for a million."""


def user_view(row: UserRow) -> Json:
    """A user."""
    return {
        "object": "organization.user",
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "added_at": int(row.created_at),
        "disabled_at": _seconds(row.disabled_at),
    }


def project_view(row: ProjectRow) -> Json:
    """A project."""
    return {
        "object": "organization.project",
        "id": row.id,
        "name": row.name,
        "created_at": int(row.created_at),
        "archived_at": _seconds(row.archived_at),
        "status": "active" if row.archived_at is None else "archived",
        **_limits(row),
        "file_bytes": row.file_bytes,
    }


def member_view(member: MemberRow, user: UserRow) -> Json:
    """A user in a project."""
    return {
        "object": "organization.project.user",
        "id": user.id,
        "name": user.name,
        "role": member.role,
        "added_at": int(member.created_at),
    }


def key_view(row: ApiKeyRow) -> Json:
    """A key, without what opens."""
    return {
        "object": "organization.project.api_key",
        "id": row.id,
        "name": row.name,
        "redacted_value": row.hint,
        "project_id": row.project_id,
        "owner": {"type": "user", "user": {"id": row.user_id}},
        "scopes": row.scopes,
        "models": row.models,
        "created_at": int(row.created_at),
        "expires_at": _seconds(row.expires_at),
        "revoked_at": _seconds(row.revoked_at),
        "last_used_at": _seconds(row.last_used_at),
        **_limits(row),
    }


def new_key_view(made: NewKey) -> Json:
    """A new key, with what opens: this once."""
    return {**key_view(made.row), "value": made.secret}


def price_view(row: PriceRow) -> Json:
    """A price, in dollars for a million tokens."""
    names = ("input", "cached_input", "output", "training")
    return {"object": "price", "model": row.model} | {n: getattr(row, n) / MILLION_DOLLARS for n in names}


def audit_view(row: AuditRow) -> Json:
    """A line of the record."""
    return {
        "object": "organization.audit_log",
        "id": str(row.id),
        "type": row.action,
        "effective_at": int(row.created_at),
        "target": row.target,
        "project": {"id": row.project_id} if row.project_id else None,
        "actor": {
            "type": _actor(row),
            "user": {"id": row.user_id} if row.user_id else None,
            "api_key": {"id": row.key_id} if row.key_id else None,
            "ip_address": row.address,
        },
        "details": row.details,
    }


def _actor(row: AuditRow) -> str:
    if row.action == SIGN_IN_FAILED:
        return "anonymous"
    return "api_key" if row.key_id else "session" if row.user_id else "command_line"


def me_view(who: Principal, user: UserRow, project: ProjectRow) -> Json:
    """GET /v1/me."""
    return {
        "object": "principal",
        "user": user_view(user),
        "project": project_view(project),
        "api_key_id": who.key_id,
        "scopes": [scope for scope in SCOPES if who.may(scope)],
        "models": list(who.models) if who.models is not None else None,
    }


def usage_page(kind: str, rows: Sequence[Mapping[str, Any]], groups: Sequence[str], width: int) -> Json:
    """OpenAI's page of buckets: `completions`, or `costs`."""
    buckets: dict[int, Json] = {}
    for row in rows:
        bucket = buckets.setdefault(
            row["start"],
            {"object": "bucket", "start_time": row["start"], "end_time": row["start"] + width, "results": []},
        )
        bucket["results"].append(_result(kind, row, groups))
    return {"object": "page", "data": list(buckets.values()), "has_more": False, "next_page": None}


def _result(kind: str, row: Mapping[str, Any], groups: Sequence[str]) -> Json:
    named = {name: row.get(name) for name in ("project_id", "user_id", "api_key_id", "model")}
    more = {name: row[name] for name in groups if name not in named}
    amount = {"value": row["cost"] / DOLLAR, "currency": "usd"}
    if kind == "costs":
        return {"object": "organization.costs.result", "amount": amount, "line_item": None, **named, **more}
    return {
        "object": f"organization.usage.{kind}.result",
        "input_tokens": row["input_tokens"],
        "input_cached_tokens": row["cached_tokens"],
        "output_tokens": row["output_tokens"],
        "num_model_requests": row["num_requests"],
        "amount": amount,
        **named,
        **more,
    }


def listed(rows: Sequence[Json], *, has_more: bool = False) -> Json:
    """OpenAI's list."""
    return {
        "object": "list",
        "data": list(rows),
        "first_id": rows[0].get("id") if rows else None,
        "last_id": rows[-1].get("id") if rows else None,
        "has_more": has_more,
    }


def _limits(row: ProjectRow | ApiKeyRow) -> Json:
    return {
        "requests_per_minute": row.requests_per_minute,
        "tokens_per_minute": row.tokens_per_minute,
        "monthly_budget": None if row.budget is None else row.budget / DOLLAR,
    }


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
