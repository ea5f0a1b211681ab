"""Rules and classifier together, the formats of labelled texts, the figures, and the real data beside the word list."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from chatwheel.errors import InputError
from chatwheel.safety.categories import CATEGORIES
from chatwheel.safety.classifier import CARD, FILE, SHIPPED, Classifier
from chatwheel.safety.evaluation import WordList, evaluate
from chatwheel.safety.examples import Example, read_examples, read_ordinary, read_words
from chatwheel.safety.job import TrainingFiles, train_classifier
from chatwheel.safety.measures import auc, best_threshold, f1, quality
from chatwheel.safety.moderation import Moderator, StoppedError
from chatwheel.safety.training import TrainingSettings, train
from tests.safety.test_classifier import toy

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "moderation"


@pytest.fixture(scope="module")
def moderator() -> Moderator:
    return Moderator.load()


def test_flagged_is_what_reaches_its_threshold(moderator: Moderator) -> None:
    texts = ["I will kill you", "You are so kind", "你这个傻逼给我滚", "怎么煮鸡蛋", "you stupid bitch"]
    for result in moderator.moderate(texts):
        assert tuple(result.categories) == tuple(result.category_scores) == CATEGORIES
        for name, score in result.category_scores.items():
            assert result.categories[name] == (score >= moderator.thresholds[name])
        assert result.flagged == any(result.categories.values())
    assert [result.flagged for result in moderator.moderate(texts)] == [True, False, True, False, True]


def test_everyday_questions_pass(moderator: Moderator) -> None:
    texts = [
        "What is the capital of France?",
        "Write a poem about autumn leaves.",
        "How do I sort a list in Python?",
        "Can you explain photosynthesis to a child?",
        "My grandmother died last year and I miss her.",
        "法国的首都是哪里？",
        "写一首关于秋天的诗",
        "怎么用Python排序列表？",
        "明天北京的天气怎么样",
        "我奶奶去年去世了，我很想她",
    ]
    assert [result.flagged for result in moderator.moderate(texts)] == [False] * len(texts)


def test_an_insult_in_a_long_text_is_not_diluted(moderator: Moderator) -> None:
    long = "The weather is nice and people walk home. " * 200
    quiet, loud = moderator.moderate([long, long + "You stupid worthless bitch! " + long])
    assert not quiet.flagged
    assert loud.categories["harassment"]
    assert quiet.tokens >= len(long.split())


def test_texts_do_not_depend_on_each_other(moderator: Moderator) -> None:
    texts = ["I hate you", "我爱你", "x" * 5000, "", "how to make a bomb"]
    alone = [moderator.moderate([text])[0] for text in texts]
    for one, together in zip(alone, moderator.moderate(texts), strict=True):
        np.testing.assert_allclose(
            list(one.category_scores.values()), list(together.category_scores.values()), rtol=1e-6
        )
        assert one.categories == together.categories
    assert moderator.moderate([]) == []


def test_it_stops_when_nobody_waits(moderator: Moderator) -> None:
    asked = iter([False, False, True])
    with pytest.raises(StoppedError):
        moderator.moderate(["a long text " * 10_000], lambda: next(asked))


def test_formats(tmp_path: Path) -> None:
    cold = tmp_path / "cold.csv"
    cold.write_text(",split,topic,label,TEXT\n1,train,race,1,坏话\n2,dev,race,0,好话\n3,dev,race,0,好话\n", "utf-8-sig")
    tweets = tmp_path / "tweets.csv.gz"
    rows = [
        "0,3,0,0,3,0,hateful words",
        "1,3,0,3,0,1,rude words",
        "2,3,0,0,3,2,nice words",
        "3,3,0,0,3,2,RT @a: nice words!",
    ]
    tweets.write_bytes(
        gzip.compress("\n".join([",count,hate_speech,offensive_language,neither,class,tweet", *rows]).encode())
    )
    openai = tmp_path / "openai.jsonl"
    openai.write_text('{"prompt": "abc def", "S": 1, "V2": 0}\n')
    ours = tmp_path / "ours.jsonl"
    ours.write_text('{"text": "our own", "categories": {"illicit": true}}\n')
    found = read_examples([cold, tweets, openai, ours])
    assert [(e.text, e.labels) for e in found] == [
        ("坏话", {"harassment": True}),
        ("好话", {"harassment": False, "hate": False}),
        ("hateful words", {"hate": True, "harassment": True}),
        ("rude words", {"hate": False, "harassment": True}),
        ("nice words", {"hate": False, "harassment": False}),
        ("abc def", {"sexual": True, "violence/graphic": False}),
        ("our own", {"illicit": True}),
    ]
    assert [e.part for e in found[:2]] == ["train", "held_out"]
    assert found[5].part == "held_out"
    assert [e.language for e in found[:3]] == ["zh", "zh", "en"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"text": "x", "categories": {"rudeness": true}}', "'rudeness' is no category"),
        ('{"text": "x", "categories": {"hate": 1}}', "'hate' is no category, or not true or false"),
        ('{"text": " ", "categories": {"hate": true}}', "the text is empty"),
        ('{"label": "2", "TEXT": "x"}', "label is '2', expected a number from 0 to 1"),
        ('{"words": "x"}', "expected the fields label and TEXT"),
        ("{", "not JSON"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text('{"text": "fine", "categories": {}}\n' + content + "\n")
    with pytest.raises(InputError) as caught:
        read_examples([path])
    assert fault in caught.value.message
    assert f"{path}, line 2" in caught.value.message


def test_figures_are_what_a_plain_loop_says() -> None:
    draw = np.random.default_rng(0)
    truth, scores = draw.random(200) < 0.3, np.round(draw.random(200), 1)
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    assert auc(truth, scores) == pytest.approx(sum(pairs) / len(pairs))
    flagged = scores >= 0.5
    right = sum(1 for t, f in zip(truth, flagged, strict=True) if t and f)
    precision, recall = right / flagged.sum(), right / truth.sum()
    assert f1(truth, flagged) == pytest.approx(2 * precision * recall / (precision + recall))
    found = quality(truth, flagged, scores)
    assert (found.precision[0], found.recall[0]) == pytest.approx((precision, recall))
    for value, low, high in (found.precision, found.recall, found.f1, found.auc):
        assert low < value < high
    # A share of 60 or so: the bootstrap's interval is near the normal one.
    assert found.recall[2] - found.recall[1] == pytest.approx(
        3.92 * (recall * (1 - recall) / truth.sum()) ** 0.5, rel=0.3
    )


def test_a_threshold_flags_few_ordinary_texts() -> None:
    truth, scores = np.array([True] * 50 + [False] * 50), np.linspace(1, 0, 100)
    assert best_threshold([(truth, scores)], np.zeros(0), 0.005) == pytest.approx(0.5, abs=0.02)
    assert best_threshold([(truth, scores)], np.full(100, 0.7), 0.005) > 0.7


def test_the_word_list_finds_words() -> None:
    words = WordList(["ass", "blow job", "傻比"])
    assert words.finds("kiss my ASS!")
    assert not words.finds("in my class")
    assert words.finds("你真是个傻比啊")
    assert not WordList([]).finds("anything")


def test_from_files_to_a_classifier_and_its_card(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text("".join(json.dumps({"text": e.text, "categories": e.labels}) + "\n" for e in toy(900)))
    ordinary = tmp_path / "ordinary.jsonl"
    ordinary.write_text(
        '{"text": "Trees and rivers.\\n\\nclouds"}\n{"messages": [{"role": "user", "content": "hi"}]}\n'
    )
    assert [e.text for e in read_ordinary([ordinary], "train")] == ["Trees and rivers.", "clouds", "hi"]
    files = TrainingFiles([path], [ordinary], words=[], licences=["toy.jsonl=CC0"])
    card = train_classifier(files, TrainingSettings(epochs=3, weight_decay=0.0, batch_size=32), tmp_path / "out")
    assert card == json.loads((tmp_path / "out" / CARD).read_text())
    assert card["data"]["toy.jsonl"]["licence"] == "CC0"
    assert Classifier.load(tmp_path / "out" / FILE).lineage["texts"] == card["texts"]
    assert [row["language"] for row in card["measured"]["categories"]] == ["en", "zh"]
    for row in card["measured"]["categories"]:
        assert row["moderation"]["f1"][0] > 0.95
    with pytest.raises(InputError, match="expected FILE=LICENCE"):
        train_classifier(TrainingFiles([path], licences=["no.csv=MIT"]), TrainingSettings(), tmp_path / "out")


def real(name: str) -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not on this machine")
    return SHARED / name


def some(name: str, part: str, number: int) -> list[Example]:
    return [e for e in read_examples([real(name)]) if e.part == part][:number]


@pytest.mark.parametrize("name", ["cold_dev_zh.csv.gz", "tweets_en.csv.gz"])
def test_it_beats_the_word_list_on_real_texts(moderator: Moderator, name: str) -> None:
    words = read_words([real("wordlist_en.txt.gz"), real("wordlist_zh.txt.gz")])
    rows = evaluate(moderator, some(name, "held_out", 1500), words)["categories"]
    (row,) = (row for row in rows if row["category"] == "harassment")
    assert row["f1_lead"][1] > 0, row


def test_a_few_real_texts_already_teach_more_than_the_word_list() -> None:
    learnt = some("cold_train_zh.csv.gz", "train", 3000)
    found = train(learnt, [], TrainingSettings(), {})
    words = read_words([real("wordlist_zh.txt.gz")])
    (row,) = evaluate(Moderator(found), some("cold_dev_zh.csv.gz", "held_out", 1000), words)["categories"]
    assert row["f1_lead"][1] > 0, row
    assert SHIPPED.is_file()
