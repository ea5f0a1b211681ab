"""The world is the same everywhere, keeps its examination apart from its training, and writes clean text."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from random import Random

import pytest

from chatwheel.data.records import Demonstration, Document, Prompt
from chatwheel.data.world import (
    BEHAVIOURS,
    LANGUAGES,
    SHOWCASE,
    SIGNATURE,
    Item,
    dataset_card,
    demonstrations,
    examination,
    is_examination,
    pretraining_documents,
    primer_documents,
    prompts,
)
from chatwheel.data.world.claims import without_claim
from chatwheel.data.world.names import people, places
from chatwheel.data.world.streams import draft
from chatwheel.data.world.unknown import STRANGE

CHINESE = re.compile(r"[\u4e00-\u9fff]")


@cache
def documents() -> list[Document]:
    return list(pretraining_documents(1, 8000))


@cache
def written() -> list[Demonstration]:
    return list(demonstrations(1, 12000))


@cache
def asked() -> list[Item]:
    return list(prompts(1, 6000))


@cache
def examined() -> list[Item]:
    return examination(2026, 960)


def last(item: Item) -> str:
    return item.messages[-1].content


def test_same_seed_gives_the_same_world_in_another_process() -> None:
    script = (
        "import hashlib;from chatwheel.data.world import *;h=hashlib.sha256();"
        "[h.update(r.model_dump_json().encode()) for r in [*pretraining_documents(7,200),*primer_documents(7,200),"
        "*demonstrations(7,200),"
        "*prompts(7,200),*examination(7,48),*SHOWCASE]];print(h.hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    assert len(runs.pop()) > 60


def test_seeds_and_purposes_are_independent() -> None:
    assert [d.text for d in pretraining_documents(1, 50)] != [d.text for d in pretraining_documents(2, 50)]
    first = [item.id for item in prompts(3, 200)]
    assert [d.model_dump()["item"] for d in demonstrations(3, 200)] != first
    assert [item.id for item in prompts(3, 100)] == first[:100]


def test_no_examined_combination_is_ever_trained_on() -> None:
    combinations = {(item.template, item.entities) for item in asked()}
    ids = {d.model_dump()["item"] for d in written()} | {item.id for item in asked()}
    for item in examined():
        assert is_examination(item)
        assert (item.template, item.entities) not in combinations
        assert item.id not in ids
    assert not any(is_examination(item) for item in asked())


def test_no_examined_prompt_occurs_in_any_training_output() -> None:
    prompts_seen = {tuple(m.content for m in d.messages[:-1]) for d in written()}
    prompts_seen |= {tuple(m.content for m in item.messages) for item in asked()}
    turns = {m.content for d in (*written(), *asked()) for m in d.messages}
    lines = {re.sub(r"^[^:：]{1,9}[:：] ?", "", line) for d in documents() for line in d.text.split("\n")}
    lines |= {line for d in documents() for line in d.text.split("\n")}
    for item in examined():
        assert tuple(m.content for m in item.messages) not in prompts_seen
        if len(item.messages) == 1:
            assert last(item) not in lines
            assert last(item) not in turns


def test_every_examined_template_and_entity_is_trained_on() -> None:
    names = {n for pool in (people, places) for lang in LANGUAGES for n in pool(lang, "examination")}
    names |= {n for lang in LANGUAGES for n in STRANGE[lang]["examination"]}
    rng = Random(5)
    cells = itertools.product(BEHAVIOURS, LANGUAGES)
    trained = [draft(rng, name, language, "training").item for name, language in cells for _ in range(2500)]
    templates = {item.template for item in trained}
    entities = {(item.language, e) for item in trained for e in item.entities}
    checked = [item for item in examined() if item.behaviour not in ("mistakes", "arithmetic")]
    for item in checked:
        assert item.template in templates, item.template
    missing = [
        (item.behaviour, e)
        for item in checked
        for e in item.entities
        if e not in names and (item.language, e) not in entities
    ]
    # A sample of training as long as this one may lack a rare entity or two.
    assert len(missing) <= len(checked) // 100, missing


def test_invented_names_of_the_examination_never_occur_in_training() -> None:
    text = "\n".join([*(d.text for d in documents()), *(m.content for d in written() for m in d.messages)])
    latin = set(re.findall(r"[A-Za-z]+", text))
    assert latin.isdisjoint(people("en", "examination"))
    assert latin.isdisjoint(places("en", "examination"))
    assert not [name for name in places("zh", "examination") if name in text]
    conversations = "\n".join(
        m.content for d in written() if d.model_dump()["behaviour"] in ("reading", "summary") for m in d.messages
    )
    assert not [name for name in people("zh", "examination") if name in conversations]
    for item in examined():
        if item.behaviour in ("reading", "summary"):
            pool = {*people(item.language, "examination"), *places(item.language, "examination")}
            assert pool & set(item.entities)


def test_examined_names_are_spelled_with_characters_that_are_trained_on() -> None:
    text = "".join(d.text for d in documents())
    letters = set(text)
    for language in LANGUAGES:
        for name in (*people(language, "examination"), *places(language, "examination")):
            assert set(name) <= letters


def test_examination_is_balanced_and_different() -> None:
    cells = Counter((item.behaviour, item.language) for item in examined())
    assert set(cells) == set(itertools.product(BEHAVIOURS, LANGUAGES))
    assert min(cells.values()) == max(cells.values()) == 40
    assert len({item.id for item in examined()}) == 960
    only = examination(2026, 48, ["zh"])
    assert {item.language for item in only} == {"zh"}
    assert len(only) == 48


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_language_can_be_asked_for(language: str) -> None:
    chosen = [lang for lang in LANGUAGES if lang == language]
    assert {item.language for item in prompts(1, 200, chosen)} == {language}
    assert {d.language for d in demonstrations(1, 200, chosen)} == {language}
    assert {d.language for d in pretraining_documents(1, 200, chosen)} <= {language, None}


def test_halves_are_halves() -> None:
    def share(behaviour: str, key: str, value: bool) -> float:
        truths = [item.truth for item in asked() if item.behaviour == behaviour]
        return sum(t[key] is value for t in truths) / len(truths)

    assert 0.4 < share("mistakes", "hint_right", True) < 0.6
    assert 0.4 < share("refusal", "harmful", True) < 0.6
    assert 0.4 < share("false_premise", "false", True) < 0.7


def test_demonstrations_come_from_named_simulated_writers() -> None:
    writers = Counter(d.model_dump()["writer"] for d in written())
    assert all(name.startswith("simulated:") for name in writers)
    shares = {name.removeprefix("simulated:"): count / len(written()) for name, count in writers.items()}
    for name, share in {"careful": 0.5, "chatty": 0.18, "terse": 0.17, "curt": 0.1, "careless": 0.05}.items():
        assert abs(shares[name] - share) < 0.03
    assert {d.language for d in written()} == {"en", "zh"}
    assert {d.model_dump()["behaviour"] for d in written()} == set(BEHAVIOURS)


def test_the_assistants_own_mistakes_carry_no_loss() -> None:
    for item in asked():
        if item.behaviour == "mistakes":
            assert item.messages[1].weight == (0 if item.truth["hint_right"] else None)


def test_items_survive_json_and_are_prompts() -> None:
    for item in (*asked()[:500], *examined()):
        assert Item.model_validate(json.loads(item.model_dump_json())) == item
        Prompt.model_validate({"messages": [m.model_dump() for m in item.messages]})


def test_text_is_clean() -> None:
    texts = [(d.language, d.text) for d in documents() if d.language and d.model_dump()["kind"] != "pairs"]
    texts += [(d.language, m.content) for d in written() for m in d.messages]
    for language, text in texts:
        assert text == text.strip(), text
        assert "  " not in text.replace("    ", ""), text
        assert not re.search(r"[{}]|\bNone\b|。\.|\.。|，，|\.\.|,,| ,| \.(?:\s|$)|\?\?", text), text
        assert not re.search(r"\ba [aeio]\w", text), text
        if language == "zh":
            # Chinese text and Chinese marks; a Latin word stands between spaces or in quotation marks.
            plain = re.sub(r"\d+ [-+x] \d+ = [\d?]+|“[^”]*”|\n?\d+\. |- ", "", text)
            assert not re.search(r"[\u4e00-\u9fff][A-Za-z]|[A-Za-z][\u4e00-\u9fff]", plain), text
            assert not re.search(r"[\u4e00-\u9fff][,.?!:;]", plain), text


def test_vocabulary_stays_small() -> None:
    characters = set(CHINESE.findall("".join(d.text for d in documents())))
    characters |= set(CHINESE.findall("".join(m.content for d in written() for m in d.messages)))
    text = " ".join(
        [*(d.text for d in documents() if d.language == "en"), *(m.content for d in written() for m in d.messages)]
    )
    names = {name for pool in (people, places) for split in ("training", "examination") for name in pool("en", split)}  # type: ignore[arg-type]
    english = {w.lower() for w in re.findall(r"[A-Za-z']+", text) if w not in names}
    assert len(characters) < 850
    assert len(english) < 1300


def test_lengths_fit_a_small_model() -> None:
    sizes = [len(re.findall(r"[A-Za-z0-9']+|[^\sA-Za-z0-9]", d.text)) for d in documents()]
    assert 20 < sum(sizes) / len(sizes) < 110
    assert max(sizes) < 320
    turns = [sum(len(re.findall(r"[A-Za-z0-9']+|[^\sA-Za-z0-9]", m.content)) for m in d.messages) for d in written()]
    assert sum(turns) / len(turns) < 70
    assert max(turns) < 200


def test_a_few_per_cent_of_the_documents_are_python_that_runs() -> None:
    code = [d.text for d in documents() if d.model_dump()["kind"] == "code"]
    assert 0.02 < len(code) / len(documents()) < 0.06
    for text in set(code):
        compile(text, "document", "exec")
        assert '"""' in text


def test_showcase_is_five_examined_prompts_in_both_languages() -> None:
    assert len(SHOWCASE) == 5
    assert {item.language for item in SHOWCASE} == set(LANGUAGES)
    assert len({item.behaviour for item in SHOWCASE}) == 5
    assert set(SIGNATURE) <= {item.behaviour for item in SHOWCASE}
    assert all(is_examination(item) for item in SHOWCASE)
    seen = {tuple(m.content for m in d.messages[:-1]) for d in written()}
    assert all(tuple(m.content for m in item.messages) not in seen for item in SHOWCASE)


def test_card_counts_what_there_is() -> None:
    card = dataset_card()
    assert card["behaviours"] == 12
    assert card["facts"] >= 220
    assert card["countries"] == 24
    assert all(count > 0 for count in card.values())


@pytest.mark.parametrize(
    ("language", "guess", "before", "negation"),
    [
        ("en", r"Hm, (.+?)\? (.+?)\.(?= |$)", " ", ", not "),
        ("zh", r"(?:^|(?<=。))([^。，：？你\n]+)吗？([^。？\n]+)。", "是", "，不是"),
    ],
)
def test_a_guess_is_denied_exactly_where_it_is_wrong(language: str, guess: str, before: str, negation: str) -> None:
    primer = [d for d in primer_documents(1, 600) if d.model_dump()["kind"] == "guess"]
    assert 400 < len(primer) < 560
    right = wrong = 0
    for text in (d.text for d in primer if d.language == language):
        for claimed, is_so in re.findall(guess, text):
            told, _, denied = is_so.partition(negation)
            assert told.endswith(before + claimed) is not bool(denied), text
            assert denied in ("", claimed), text
            right, wrong = right + (not denied), wrong + bool(denied)
    assert right + wrong > 300
    assert 0.7 < right / wrong < 1.4


@pytest.mark.parametrize("behaviour", ["mistakes", "false_premise"])
def test_what_was_claimed_is_said_again_and_judged_right_behind_the_value(behaviour: str) -> None:
    rng = Random(4)
    for language in LANGUAGES:
        for _ in range(150):
            found = draft(rng, behaviour, language, "training")
            for answer in (*found.full, found.short):
                echoed, rest = re.fullmatch(r"(?:Hm, )?(.+?)(?:\?|吗？) ?(.+)", answer, re.DOTALL).groups()
                assert any(echoed in m.content for m in found.item.messages), answer
                denied = re.match(r"[^.。]*?(?:, not|，不)", rest)
                is_so = found.item.truth["hint_right"] if behaviour == "mistakes" else not found.item.truth["false"]
                doubted = behaviour == "mistakes" and "doubt" in found.item.template
                assert bool(denied) is (is_so if doubted else not is_so), answer


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        ("Hm, Rome? The capital of France is Paris, not Rome.", "The capital of France is Paris, not Rome."),
        ("Hello! Hm, Rome? It is Paris.", "Hello! It is Paris."),
        ("罗马吗？法国的首都是巴黎，不是罗马。", "法国的首都是巴黎，不是罗马。"),
        ("Rome? Or London?", "Rome? Or London?"),
        ("It is Paris. Hm, Rome?", "It is Paris. Hm, Rome?"),
    ],
)
def test_a_claim_said_again_before_the_answer_asserts_nothing(answer: str, rest: str) -> None:
    assert without_claim(answer) == rest
