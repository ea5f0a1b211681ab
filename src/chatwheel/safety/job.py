"""From files to a trained classifier and its card: data, training, measuring, writing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chatwheel import __version__
from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError
from chatwheel.safety.classifier import CARD, FILE
from chatwheel.safety.evaluation import evaluate
from chatwheel.safety.examples import MOST_ORDINARY, read_examples, read_ordinary, read_words
from chatwheel.safety.moderation import Moderator
from chatwheel.safety.training import TrainingSettings, train

Json = dict[str, Any]

MAPPING = {
    "COLD, label 1": "harassment; of hate nothing is known (it covers attacks on groups and on persons alike)",
    "Davidson, class 0 (hate speech)": "hate and harassment",
    "Davidson, class 1 (offensive)": "harassment, not hate",
    "OpenAI's test set": "as its categories say; held out",
    "ordinary texts": "in no category",
}
LIMITS = (
    "It knows English and Chinese as people write on Twitter, Zhihu and Weibo, and what their annotators called "
    "offensive; dialects, quotations, irony and other languages are judged worse. COLD is on race, region and gender "
    "only. The tweets were collected by a lexicon of slurs, so that what is offensive without one is hardly seen, and "
    "annotators called African American English offensive more often than it is (Sap et al., 2019). "
    "Naming a group raises the score, most of all in Chinese, also where nothing bad is said of it. Hate in Chinese, "
    "and the eleven other categories, are found by rules alone. It is a first filter, not a judge of people."
)


@dataclass(frozen=True)
class TrainingFiles:
    """labelled: texts with categories. ordinary, held_out_ordinary: texts without any, trained on and not. words: lists
    to compare with. licences: `FILE=LICENCE`. most_ordinary: pieces that are taken of each ordinary file."""

    labelled: Sequence[Path]
    ordinary: Sequence[Path] = ()
    held_out_ordinary: Sequence[Path] = ()
    words: Sequence[Path] = ()
    licences: Sequence[str] = ()
    most_ordinary: int = MOST_ORDINARY


def train_classifier(
    files: TrainingFiles, settings: TrainingSettings, directory: Path, say: Callable[[str], None] = lambda _: None
) -> Json:
    """Writes the classifier and its card into the directory; returns the card."""
    licences = _licences(files)
    examples = read_examples(files.labelled)
    ordinary = read_ordinary(files.ordinary, "train", files.most_ordinary)
    unseen = read_ordinary(files.held_out_ordinary, "held_out", files.most_ordinary)
    lineage: Json = {
        "chatwheel": __version__,
        "data": {
            path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "licence": licences.get(path.name)}
            for path in (*files.labelled, *files.ordinary)
        },
        "texts": {part: sum(e.part == part for e in (*examples, *ordinary)) for part in ("train", "held_out")},
        "mapping": MAPPING,
        "settings": asdict(settings),
    }
    say(f"{lineage['texts']['train']:,} texts to learn from, {lineage['texts']['held_out']:,} held out")
    classifier = train(examples, ordinary, settings, lineage, say)
    classifier = classifier.save(directory / FILE)
    held_out = [e for e in examples if e.part == "held_out"]
    card: Json = {
        "model": Moderator(classifier).name,
        "made": datetime.now(UTC).date().isoformat(),
        "file": {"name": FILE, "sha256": hashlib.sha256((directory / FILE).read_bytes()).hexdigest()},
        "labels": list(classifier.labels),
        "thresholds": classifier.thresholds,
        **lineage,
        "limits": LIMITS,
        "measured": evaluate(Moderator(classifier), held_out, read_words(files.words), unseen),
    }
    write_atomically(directory / CARD, [json.dumps(card, ensure_ascii=False, indent=1).encode() + b"\n"])
    return card


def _licences(files: TrainingFiles) -> dict[str, str]:
    names = {path.name for path in (*files.labelled, *files.ordinary)}
    found = {}
    for written in files.licences:
        name, _, licence = written.partition("=")
        if name not in names or not licence:
            raise InputError(
                f"--license {written}: expected FILE=LICENCE with the name of a file of --data or --ordinary"
            )
        found[name] = licence
    return found
