"""`chatwheel generate`: one prompt, one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    prompt: Annotated[str, typer.Argument(help="What the user says; - reads standard input.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or directory, or its name on the Hub.")],
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer one prompt."""
    import asyncio
    import json
    import sys

    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.data.records import Message
    from chatwheel.engine.requests import SamplingParams
    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry

    text = sys.stdin.read() if prompt == "-" else prompt
    assistant = Assistant.load(Registry(Settings.load(home).models, hub=True).resolve(model))
    params = SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed)
    completion = asyncio.run(assistant.answer([Message(role="user", content=text)], params))
    if as_json:
        value = {
            "model": model,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": len(completion.token_ids),
            "logprob": round(sum(completion.logprobs), 4),
        }
        print(json.dumps(value, ensure_ascii=False))
    else:
        print(completion.text)
