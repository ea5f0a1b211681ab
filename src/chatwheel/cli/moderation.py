"""`chatwheel moderation`: train the classifier, measure moderation, judge a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train and measure moderation; judge a text.", no_args_is_help=True)

Data = Annotated[
    list[Path],
    typer.Option("--data", help="Labelled texts: COLD's or Davidson's CSV, OpenAI's test set, {text, categories}."),
]
Ordinary = Annotated[
    list[Path] | None, typer.Option(help="Texts in which nothing is to be found: documents, conversations.")
]
Words = Annotated[list[Path] | None, typer.Option("--words", help="A word list to compare with, a word a line.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Home = Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")]


@app.command()
def train(
    data: Data,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A directory; models/moderation of the home if not given.")
    ] = None,
    ordinary: Ordinary = None,
    held_out_ordinary: Annotated[
        list[Path] | None, typer.Option(help="The same, never trained on: how often it is flagged is measured.")
    ] = None,
    words: Words = None,
    ordinary_texts: Annotated[int, typer.Option(min=1, help="At most so many pieces of each ordinary file.")] = 3000,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    license: Annotated[list[str] | None, typer.Option(help="FILE=LICENCE, for the card; may be repeated.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Train the classifier on the training part of labelled texts, and measure it on the held-out part. In
    models/moderation of the home, the server takes it in place of the one that ships, from its next start on."""
    from chatwheel.cli.display import Display
    from chatwheel.safety.classifier import FILE
    from chatwheel.safety.evaluation import in_words
    from chatwheel.safety.job import TrainingFiles, train_classifier
    from chatwheel.safety.training import TrainingSettings
    from chatwheel.settings import Settings

    chosen = {"epochs": epochs, "learning_rate": learning_rate, "weight_decay": weight_decay}
    settings = TrainingSettings(seed=seed, **{k: v for k, v in chosen.items() if v is not None})  # type: ignore[arg-type]
    files = TrainingFiles(data, ordinary or (), held_out_ordinary or (), words or (), license or (), ordinary_texts)
    directory = output or Settings.load(home).models / "moderation"
    with Display() as display:
        card = train_classifier(files, settings, directory, display.say)
        for line in in_words(card["measured"]):
            display.say(line.replace("[", r"\["))
        display.say(f"Written: {directory / FILE}")
    if as_json:
        print(json.dumps(card, ensure_ascii=False))


@app.command()
def evaluate(
    data: Data,
    words: Words = None,
    ordinary: Ordinary = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the part that training takes: for files it was not trained on.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Precision, recall, F1 and AUC of moderation on the held-out part of labelled texts, with 95 % intervals, beside a
    word list."""
    from chatwheel.safety.evaluation import evaluate, in_words
    from chatwheel.safety.examples import read_examples, read_ordinary, read_words
    from chatwheel.safety.moderation import Moderator
    from chatwheel.settings import Settings

    examples = [e for e in read_examples(data) if everything or e.part == "held_out"]
    result = evaluate(
        Moderator.load(Settings.load(home).models),
        examples,
        read_words(words or ()),
        read_ordinary(ordinary or (), "held_out"),
    )
    print(json.dumps(result, ensure_ascii=False) if as_json else "\n".join(in_words(result)))


@app.command()
def judge(
    text: Annotated[str, typer.Argument(help="What is judged.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Which categories a text falls into; exit code 0 either way."""
    from dataclasses import asdict

    from chatwheel.safety.moderation import Moderator
    from chatwheel.settings import Settings

    moderator = Moderator.load(Settings.load(home).models)
    (result,) = moderator.moderate([text])
    if as_json:
        print(json.dumps({"model": moderator.name, **asdict(result)}, ensure_ascii=False))
        return
    print("flagged" if result.flagged else "not flagged")
    for category, score in result.category_scores.items():
        mark = " *" if result.categories[category] else ""
        print(f"  {category:<24}{score:.3f} of {moderator.thresholds[category]:.2f}{mark}")
