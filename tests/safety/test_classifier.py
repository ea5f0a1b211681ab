"""The classifier: learns what can be told apart, the same each time, and refuses files that are not its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from chatwheel.errors import InputError
from chatwheel.safety.classifier import CARD, SHIPPED, Classifier
from chatwheel.safety.examples import Example
from chatwheel.safety.features import BUCKETS, bags
from chatwheel.safety.moderation import Moderator
from chatwheel.safety.normalisation import normalised
from chatwheel.safety.training import TrainingSettings, train

SETTINGS = TrainingSettings(epochs=3, weight_decay=0.0, batch_size=32)


def toy(number: int = 600) -> list[Example]:
    """Texts that one word tells apart, in both languages."""
    draw = random.Random(0)
    words = {"en": ["tree", "house", "river", "cloud", "stone"], "zh": ["树", "房子", "河流", "云彩", "石头"]}
    marks = {"en": "grumblefutz", "zh": "魑魅魍魉"}
    examples = []
    for number_of in range(number):
        language, bad = ("en", "zh")[number_of % 2], number_of % 4 < 2
        chosen = [draw.choice(words[language]) for _ in range(6)] + [marks[language]] * bad
        text = f"{number_of} " + " ".join(draw.sample(chosen, len(chosen)))
        examples.append(Example(text, {"harassment": bad}, language, "toy", "train"))
    return examples


def test_it_learns_what_can_be_told_apart() -> None:
    found = train(toy(), [], SETTINGS, {})
    assert found.labels == ("harassment",)
    assert found.weights.shape == (1, BUCKETS)
    good, bad, zh_good, zh_bad = found.scores(
        [normalised(t) for t in ("a cloud over the house", "a cloud of grumblefutz", "石头和河流", "石头和魑魅魍魉")]
    )[:, 0]
    threshold = found.thresholds["harassment"]
    assert max(good, zh_good) < threshold <= min(bad, zh_bad)


def test_the_same_data_and_seed_give_the_same_file(tmp_path: Path) -> None:
    first = train(toy(), [], SETTINGS, {}).save(tmp_path / "a")
    again = train(toy(), [], SETTINGS, {}).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert first.digest == again.digest
    other = TrainingSettings(epochs=3, weight_decay=0.0, batch_size=32, seed=1)
    assert train(toy(), [], other, {}).save(tmp_path / "c").digest != first.digest


def test_what_is_not_known_teaches_nothing() -> None:
    # Half of the texts say nothing of `hate`: it is learnt from the others alone.
    known = [Example(e.text, e.labels | {"hate": e.labels["harassment"]}, "en", "toy", "train") for e in toy(900)]
    unknown = [Example(f"grumblefutz {n} tree", {"harassment": False}, "en", "toy", "train") for n in range(400)]
    found = train([*known, *unknown], [], SETTINGS, {})
    assert found.labels == ("harassment", "hate")
    harassment, hate = found.scores([normalised("grumblefutz 12 tree")])[0]
    assert hate > harassment


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(InputError, match="no category has 200 examples"):
        train(toy(100), [], SETTINGS, {})


def test_neighbours_change_no_score() -> None:
    found = Classifier.load(SHIPPED)
    texts = ["you are kind", "", "今天天气很好", "you idiot", "\x00", "x" * 400]
    together = found.scores(texts)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(found.scores([text])[0], together[row], rtol=1e-6)


def test_n_grams_are_what_they_say() -> None:
    # " ab " has 3 runs of two characters, 2 of three and 1 of four, and is one word.
    found = bags(["ab", "你好"])
    assert found.begins.tolist() == [0, 7]
    assert found.words.tolist() == [1, 2]
    # " 你好 ": 你, 好 (1); " 你", "你好" (2), "好 " ends with a space and so is a run of letters (2); " 你好" (3),
    # "你好 " (3, a space), " 你好 " (4, a space); the words 你, 好 and 你 好.
    assert len(found.buckets) - 7 == 8 + 3
    lengths = np.add.reduceat(found.values**2, found.begins)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def other_kind(content: bytes) -> bytes:
    return save(load(content))


def changed(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["chatwheel"])
        change(about)
        return save(load(content), {"chatwheel": json.dumps(about)})

    return damage


def not_finite(content: bytes) -> bytes:
    tensors = load(content)
    tensors["weights"] = tensors["weights"] * np.float16(np.nan)
    return changed_tensors(content, tensors)


def too_small(content: bytes) -> bytes:
    tensors = load(content)
    return changed_tensors(content, tensors | {"weights": tensors["weights"][:, :100].copy()})


def changed_tensors(content: bytes, tensors: dict[str, np.ndarray]) -> bytes:
    length = int.from_bytes(content[:8], "little")
    return save(tensors, json.loads(content[8 : 8 + length])["__metadata__"])


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda _: b"",
        lambda _: b"not safetensors at all",
        other_kind,
        not_finite,
        too_small,
        changed(lambda about: about.update(features=99)),
        changed(lambda about: about.update(labels=["rudeness", "hate"])),
        changed(lambda about: about.pop("thresholds")),
        changed(lambda about: about.update(thresholds={"harassment": 2.0, "hate": 0.5})),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "moderation" / SHIPPED.name
    path.parent.mkdir()
    path.write_bytes(damage(SHIPPED.read_bytes()))
    with pytest.raises(InputError) as caught:
        Moderator.load(tmp_path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert "train it again" in caught.value.message


def test_the_card_is_of_the_file_that_ships() -> None:
    import hashlib

    card = json.loads(SHIPPED.with_name(CARD).read_text())
    found = Classifier.load(SHIPPED)
    assert card["file"]["sha256"] == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert card["thresholds"] == found.thresholds
    assert card["data"] == found.lineage["data"]
    assert all(data["licence"] for data in card["data"].values())
    assert SHIPPED.stat().st_size < 2**20
