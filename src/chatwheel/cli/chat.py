"""`chatwheel chat`: a conversation in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or directory, or its name on the Hub.")],
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="The model's own default if not given.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
) -> None:
    """Chat with a model. /new forgets the conversation, /quit ends (so do Ctrl+D and Ctrl+C)."""
    import asyncio
    import dataclasses

    from rich.console import Console

    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.data.records import Message
    from chatwheel.errors import ContextLengthError
    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry

    console = Console(highlight=False)
    assistant = Assistant.load(Registry(Settings.load(home).models, hub=True).resolve(model))
    params = assistant.default_params
    if temperature is not None:
        params = dataclasses.replace(params, temperature=temperature)

    async def answer(messages: list[Message]) -> str:
        text = ""
        async for delta in assistant.stream(messages, params):
            console.print(delta.text, end="", markup=False)
            text += delta.text
        console.print()
        return text

    messages: list[Message] = []
    console.print(f"[bold]{model}[/]  [dim]/new forgets, /quit ends[/]")
    while True:
        try:
            said = console.input("[bold cyan]› [/]").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if said == "/quit":
            return
        if said == "/new":
            messages.clear()
        elif said:
            messages.append(Message(role="user", content=said))
            try:
                messages.append(Message(role="assistant", content=asyncio.run(answer(messages))))
            except ContextLengthError as error:
                messages.pop()
                console.print(f"[red]{error.message}; /new begins again[/]")
