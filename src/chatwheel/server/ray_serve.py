"""The server as a deployment of Ray Serve: `serve run chatwheel.server.ray_serve:build replicas=2`.

Each replica is a process with models of its own, on any machine of the Ray cluster; what they agree on is in the
database, and files and models are in the home, which all machines see at the same path. The environment of whoever
deploys says where those are, as for `chatwheel serve`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve

from chatwheel.errors import InputError
from chatwheel.settings import Settings
from chatwheel.store.accounts import is_guarded
from chatwheel.store.database import Database

GRACE_SECONDS = 30.0


class Options(BaseModel):
    """What `serve run` takes behind the name, or `args` in Ray Serve's YAML file.

    models: names with commas between; all, if left out. cpus, gpus: that Ray sets aside for a replica. requests: that a
    replica works on at once; others wait in Ray's queue.
    """

    model_config = ConfigDict(extra="forbid")

    replicas: int = Field(1, ge=1)
    models: str = ""
    weights: Literal["float32", "bfloat16", "int8", "int4"] | None = None
    speculate: int = Field(0, ge=0, le=16)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    requests: int = Field(256, ge=1)
    grace: float = Field(GRACE_SECONDS, ge=0)


def build(arguments: dict[str, Any]) -> Any:
    """Ray Serve's application. Raises InputError for options that are none, and where no key was ever made: Ray's
    proxy answers other machines, too."""
    try:
        options = Options.model_validate(arguments)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    settings, api_key = Settings.load(), os.environ.get("CHATWHEEL_API_KEY") or None
    _check(settings, api_key)
    deployment = serve.deployment(
        name="chatwheel",
        num_replicas=options.replicas,
        max_ongoing_requests=options.requests,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        graceful_shutdown_timeout_s=options.grace,
    )
    return deployment(serve.ingress(_maker(settings, api_key, options))()).bind()


def _check(settings: Settings, api_key: str | None) -> None:
    database = Database.open(settings.database_url)
    try:
        with database.read() as session:
            if api_key is None and not is_guarded(session):
                raise InputError(
                    "Ray Serve can be reached by others: make a key first (`chatwheel keys create NAME`), give an "
                    "admin a password (`chatwheel users password NAME`), or set CHATWHEEL_API_KEY to a long random key"
                )
    finally:
        database.close()


def _maker(settings: Settings, api_key: str | None, options: Options) -> Callable[[], FastAPI]:
    """What a replica calls to make its application."""
    names = [name for name in options.models.split(",") if name]
    weights, speculate = options.weights, options.speculate

    def make() -> FastAPI:
        from chatwheel.server.app import create_app
        from chatwheel.server.models import ModelPool, load_assistant
        from chatwheel.store.registry import Registry

        load = partial(load_assistant, weights=weights, speculate=speculate)
        return create_app(
            settings=settings,
            models_pool=ModelPool(Registry(settings.models, hub=True), names, load=load),
            database=Database.open(settings.database_url),
            api_key=api_key,
            check_host=False,
        )

    return make
