"""`chatwheel evaluate`: a model on a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or directory, or its name on the Hub.")],
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            "-s",
            help="world; behaviours: the four signature ones; rankings: a reward model on held-out pairs.",
        ),
    ] = "world",
    language: Annotated[
        Literal["en", "zh", "both"] | None, typer.Option(help="Of the items: the model's own, if it says which.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="How many held-out items: as in the model's own run.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", "-t", min=0, max=2, help="0, the default, is greedy; 1 draws answers as PPO does."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the draw, where the temperature is not 0; 0 unless given.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Rankings for --suite rankings, in any format of `chatwheel data import`.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model on held-out examination items, greedily decoded unless told otherwise; a reward model on
    rankings, beside chance, the longer answer, and TF-IDF with logistic regression."""
    import json

    from chatwheel.data.world import LANGUAGES
    from chatwheel.errors import InputError
    from chatwheel.evaluation.rankings import evaluate_rankings, in_words
    from chatwheel.evaluation.suites import evaluate
    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry

    if suite == "rankings":
        given = {"--language": language, "--count": count, "--temperature": temperature, "--seed": seed}
        if other := [name for name, value in given.items() if value is not None]:
            raise InputError(
                f"{other[0]} is for examinations: --suite rankings reads all of its pairs, and samples none"
            )
    elif data is not None:
        raise InputError(f"--data is for --suite rankings, not for {suite}")
    languages = None if language is None else LANGUAGES if language == "both" else (language,)
    settings = Settings.load(home)
    entry = Registry(settings.models, hub=True).entry(model)
    if suite == "rankings":
        result = {"suite": suite, "model": model, **evaluate_rankings(entry, settings.runs, data)}
        print(json.dumps(result, ensure_ascii=False) if as_json else "\n".join([f"{model}:", *in_words(result)]))
        return
    temperature, seed = temperature or 0.0, seed or 0
    result = evaluate(entry, suite, languages=languages, count=count, temperature=temperature, seed=seed)
    result = {"suite": suite, "model": model, "temperature": temperature, "seed": seed, **result}
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    print(f"{model} on {suite}: {result['accuracy']:.1%} of {result['n']} right")
    for kind in ("behaviours", "languages"):
        for name, accuracy in result[kind].items():
            print(f"  {name:<16}{accuracy:6.1%}")
