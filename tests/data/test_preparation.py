"""The mixture: the nine files, the same each time, with nothing shared by training and held-out parts."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from chatwheel.data.mixture import DocumentSource, FilesData, Source
from chatwheel.data.preparation import prepare, prompt_of
from chatwheel.data.records import Conversation, Demonstration, Document, Message, Prompt, Ranking, Rating, read_records
from chatwheel.data.splits import key_of
from chatwheel.data.workers import Workers
from chatwheel.errors import InputError

RECIPE = Path(__file__).parents[2] / "recipes" / "real-small.yaml"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
FILES = {
    "documents": Document,
    "documents.held_out": Document,
    "demonstrations": Demonstration,
    "demonstrations.held_out": Demonstration,
    "prompts": Prompt,
    "rankings": Ranking,
    "rankings.held_out": Ranking,
    "ratings": Rating,
    "ratings.held_out": Rating,
}


ASKED = ("demonstrations", "rankings", "ratings")


def write(path: Path, values: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(v) + "\n" for v in values).encode()))


@pytest.fixture
def config(tmp_path: Path) -> FilesData:
    root = tmp_path / "data"
    write(root / "docs.gz", [{"text": f"Document number {i}. " + "word " * (i % 7)} for i in range(300)])
    write(root / "zh.gz", [{"text": f"第{i}篇文章。" + "内容" * 20} for i in range(100)])
    write(root / "qa.gz", [{"question": f"Question {i}?", "answer": f"Answer {i}."} for i in range(200)])
    write(
        root / "pairs.gz", [{"prompt": f"Question {i}?", "chosen": "good", "rejected": "bad"} for i in range(100, 300)]
    )
    return FilesData(
        root=root,
        held_out=0.2,
        held_out_prompts=0.2,
        min_document_characters=5,
        documents=(DocumentSource(path=Path("docs.gz")), DocumentSource(path=Path("zh.gz"), max_megabytes=0.005)),
        demonstrations=(Source(path=Path("qa.gz")),),
        rankings=(Source(path=Path("pairs.gz")),),
    )


def read(directory: Path) -> dict[str, list[Any]]:
    return {name: list(read_records(directory / f"{name}.jsonl", kind)) for name, kind in FILES.items()}


def test_nine_valid_files_whose_parts_share_nothing(config: FilesData, tmp_path: Path) -> None:
    thumbs = [{"prompt": f"Question {i}?", "completion": "fair", "label": i % 3 == 0} for i in range(250, 400)]
    write(config.root / "thumbs.gz", thumbs)
    config = config.model_copy(update={"ratings": (Source(path=Path("thumbs.gz")),)})
    counts = prepare(config, tmp_path / "out", seed=0)
    files = read(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.jsonl" for name in FILES}
    assert {name: counts[name] for name in FILES} == {name: len(records) for name, records in files.items()}
    training = {key_of(r) for name in (*ASKED, "prompts") for r in files[name]}
    held_out = {
        key_of(r) for name in ("demonstrations.held_out", "rankings.held_out", "ratings.held_out") for r in files[name]
    }
    assert not training & held_out
    assert not {d.text for d in files["documents"]} & {d.text for d in files["documents.held_out"]}
    assert training | held_out == {f"Question {i}?" for i in range(400)}
    assert 40 < len(held_out) < 120
    assert len(files["prompts"]) == len({key_of(p) for p in files["prompts"]}) == len(training)
    assert {key_of(r) for r in files["demonstrations"]} & {key_of(r) for r in files["rankings"]}
    assert {r.rating for r in files["ratings"]} == {1, -1}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(config: FilesData, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(config, tmp_path / name, seed)
    contents = {n: [(tmp_path / n / f"{f}.jsonl").read_bytes() for f in FILES] for n in "abc"}
    assert contents["a"] == contents["b"]
    assert contents["a"] != contents["c"]
    # The split does not depend on the seed: a held-out question stays held out in every run.
    sides = [{key_of(r) for r in read(tmp_path / n)["demonstrations.held_out"]} for n in "ac"]
    assert sides[0] == sides[1]


def test_caps_and_weights(config: FilesData, tmp_path: Path) -> None:
    source = Source(path=Path("qa.gz"), max_records=50, weight=2.5)
    changed = {"demonstrations": (source,), "held_out": 0.0, "held_out_prompts": 0.0}
    counts = prepare(config.model_copy(update=changed), tmp_path / "out", 0)
    assert counts["chosen.demonstrations.qa.gz"] == 50
    assert 100 < counts["demonstrations"] < 150
    texts = [d.text for d in read(tmp_path / "out")["documents"] if "文" in d.text]
    assert 4900 < sum(len(text.encode()) for text in texts) <= 5000


def test_what_no_cap_had_room_for_is_counted_and_the_next_source_may_have_it(config: FilesData, tmp_path: Path) -> None:
    texts = [f"Text {i}: " + "x" * size for i, size in enumerate((300, 300, 300, 900))]
    for name in ("capped", "whole"):
        write(config.root / f"{name}.gz", [{"text": text} for text in texts])
    capped, whole = DocumentSource(path=Path("capped.gz"), max_megabytes=0.0008), DocumentSource(path=Path("whole.gz"))
    counts = prepare(config.model_copy(update={"documents": (capped, whole), "held_out": 0.0}), tmp_path / "out", 0)
    assert sorted(d.text for d in read(tmp_path / "out")["documents"]) == texts
    assert counts["chosen.documents.capped.gz"] == counts["dropped.documents.capped.gz: beyond the cap"] == 2
    assert counts["chosen.documents.whole.gz"] == counts["dropped.documents.whole.gz: duplicate"] == 2


def test_cut_and_masked_are_counted_of_what_is_chosen(config: FilesData, tmp_path: Path) -> None:
    story = " ".join(f"word{i * 7 % 101} then{i % 13}" for i in range(200))
    write(
        config.root / "docs.gz", [{"text": f"{story} a@example.org{end}"} for end in ("", "", " The end.", " c@d.org.")]
    )
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"b@example.org {i} " + "x" * 30} for i in range(8)]
    write(config.root / "chat.gz", [{"messages": turns}, {"messages": turns[:-2]}, {"messages": turns[:4]}])
    changes = {
        "documents": (DocumentSource(path=Path("docs.gz")),),
        "demonstrations": (Source(path=Path("chat.gz")),),
        "rankings": (),
        "held_out_prompts": 0.0,
        "max_bytes": 160,
        "near_duplicates": 0.8,
        "mask_personal_data": True,
    }
    counts = prepare(config.model_copy(update=changes), tmp_path / "out", 0)
    files = read(tmp_path / "out")
    (document,) = files["documents"] + files["documents.held_out"]
    (demonstration,) = files["demonstrations"]
    assert counts["cut.documents.docs.gz"] == 0
    assert counts["cut.demonstrations.chat.gz"] == counts["chosen.demonstrations.chat.gz"] == 1
    left = [document.text, *(m.content for m in demonstration.messages)]
    assert counts["masked: email"] == sum(text.count("<email>") for text in left) == 5


def test_quality_and_languages_are_a_recipe_s_too(config: FilesData, tmp_path: Path) -> None:
    prose = "The ferry came in late, and the children ran down to the quay. Their father waved from the deck."
    french = "Le bac arriva tard, et les enfants coururent vers le quai. Leur père leur faisait signe du pont."
    menu = "\n".join(f"- {word}" for word in prose.split())
    write(tmp_path / "web.gz", [{"text": text} for text in (prose, french, menu)])
    changes = {
        "documents": (DocumentSource(path=Path("web.gz")),),
        "demonstrations": (),
        "rankings": (),
        "root": tmp_path,
    }
    chosen = config.model_copy(
        update={**changes, "min_document_characters": 20, "quality": True, "languages": ("en",), "held_out": 0.0}
    )
    counts = prepare(chosen, tmp_path / "out", 0)
    assert [d.text for d in read(tmp_path / "out")["documents"]] == [prose]
    assert counts["dropped.documents.web.gz: language fr"] == counts["dropped.documents.web.gz: bullet lines"] == 1


def test_prompts_are_repeated_by_their_own_weight(config: FilesData, tmp_path: Path) -> None:
    once, thrice = Source(path=Path("qa.gz"), prompt_weight=0), Source(path=Path("pairs.gz"), prompt_weight=3)
    changed = config.model_copy(update={"demonstrations": (once,), "rankings": (thrice,), "held_out_prompts": 0.0})
    prepare(changed, tmp_path / "out", 0)
    asked = Counter(key_of(p) for p in read(tmp_path / "out")["prompts"])
    assert asked == {f"Question {i}?": 3 for i in range(100, 300)}


def test_a_long_dialogue_is_cut_and_what_was_judged_dropped(tmp_path: Path) -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i} " + "x" * 30} for i in range(8)]
    write(tmp_path / "chat.gz", [{"messages": turns}, {"messages": [{**t, "content": "y" * 200} for t in turns]}])
    pairs = [{"prompt": p, "chosen": "c" * n, "rejected": "r"} for p, n in (("short", 10), ("long", 200))]
    write(tmp_path / "pairs.gz", pairs)
    write(tmp_path / "thumbs.gz", [{"prompt": "q", "completion": "a" * n, "label": True} for n in (10, 200)])
    config = FilesData(
        root=tmp_path,
        held_out_prompts=0.0,
        max_bytes=160,
        demonstrations=(Source(path=Path("chat.gz")),),
        rankings=(Source(path=Path("pairs.gz")),),
        ratings=(Source(path=Path("thumbs.gz")),),
    )
    counts = prepare(config, tmp_path / "out", 0)
    files = read(tmp_path / "out")
    assert [len(r.messages) for r in files["demonstrations"]] == [4]
    assert [key_of(r) for r in files["rankings"]] == ["short"]
    assert counts["cut.demonstrations.chat.gz"] == counts["dropped.demonstrations.chat.gz: too long"] == 1
    assert counts["dropped.rankings.pairs.gz: too long"] == 1
    assert counts["dropped.ratings.thumbs.gz: too long"] == counts["chosen.ratings.thumbs.gz"] == 1


def test_nothing_is_written_when_a_source_is_wrong(config: FilesData, tmp_path: Path) -> None:
    (config.root / "pairs.gz").write_bytes((config.root / "pairs.gz").read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged gzip"):
        prepare(config, tmp_path / "out", 0)
    (config.root / "pairs.gz").unlink()
    with pytest.raises(InputError, match=r"pairs.gz: no such file; check data.root"):
        prepare(config, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


def test_evaluation_data_and_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="must never be trained on"):
        Source(path=Path("evaluation/gsm8k_test.jsonl.gz"))
    with pytest.raises(ValidationError, match="max_record"):
        Source.model_validate({"path": "a", "max_record": 3})


def test_the_recipe_is_valid_and_names_only_files_that_exist() -> None:
    config = FilesData.model_validate(yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["data"]).located(RECIPE.parent)
    assert config.root.is_absolute()
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not on this machine")
    for source in (*config.documents, *config.demonstrations, *config.rankings):
        assert (config.root / source.path).is_file()


def test_the_recipes_small_files(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not on this machine")
    config = FilesData.model_validate(yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["data"]).located(RECIPE.parent)
    config = config.model_copy(update={"documents": (), "demonstrations": config.demonstrations[:3]})
    counts = prepare(config, tmp_path, 0)
    files = read(tmp_path)
    held_out = {
        key_of(r) for name in ("demonstrations.held_out", "rankings.held_out", "ratings.held_out") for r in files[name]
    }
    assert not held_out & {
        key_of(r) for name in ("demonstrations", "rankings", "ratings", "prompts") for r in files[name]
    }
    assert counts["records.demonstrations.zh"] > counts["records.demonstrations.en"]
    for record in files["demonstrations"]:
        assert isinstance(record, Conversation)
        assert sum(len(m.content.encode()) for m in record.messages) <= config.max_bytes


def test_near_duplicates_go_across_sources_and_personal_data_is_masked(config: FilesData, tmp_path: Path) -> None:
    story = " ".join(f"word{i * 7 % 101} then{i % 13}" for i in range(200))
    write(
        tmp_path / "data/first.gz", [{"text": story}, {"text": "Mail a@example.org, please, at any time of the day."}]
    )
    write(
        tmp_path / "data/second.gz", [{"text": f"{story} The end."}, {"text": "Something that nobody else has said."}]
    )
    sources = tuple(DocumentSource(path=Path(f"{name}.gz")) for name in ("first", "second"))
    changed = config.model_copy(
        update={"documents": sources, "near_duplicates": 0.8, "mask_personal_data": True, "held_out": 0.0}
    )
    counts = prepare(changed, tmp_path / "out", 0)
    texts = sorted(d.text for d in read(tmp_path / "out")["documents"])
    assert texts == sorted(
        [story, "Mail <email>, please, at any time of the day.", "Something that nobody else has said."]
    )
    assert counts["dropped.documents.second.gz: near-duplicate"] == 1
    assert (counts["chosen.documents.first.gz"], counts["chosen.documents.second.gz"]) == (2, 1)
    assert counts["masked: email"] == 1
    plain = prepare(config.model_copy(update={"documents": sources, "held_out": 0.0}), tmp_path / "plain", 0)
    assert plain["documents"] == 4


def test_files_do_not_depend_on_processes_nor_on_memory(
    config: FilesData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = config.model_copy(update={"near_duplicates": 0.8, "mask_personal_data": True})
    counts = prepare(changed, tmp_path / "one", 0, workers=Workers(1))
    monkeypatch.setattr("chatwheel.data.preparation.CHUNK", 1000)
    monkeypatch.setattr("chatwheel.data.external_sort.ExternalSort.__init__.__defaults__", (3000,))
    assert prepare(changed, tmp_path / "two", 0, workers=Workers(2)) == counts
    for name in FILES:
        assert (tmp_path / "one" / f"{name}.jsonl").read_bytes() == (tmp_path / "two" / f"{name}.jsonl").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"data", "one", "two"}


def test_a_record_s_own_reference_goes_before_the_demonstrations_answer() -> None:
    asked = [{"role": "user", "content": "2 + 2?"}]
    answered = [*asked, {"role": "assistant", "content": "Let me see. It is 4."}]
    assert prompt_of(Demonstration.model_validate({"messages": answered})).reference == "Let me see. It is 4."
    assert prompt_of(Demonstration.model_validate({"messages": answered, "reference": "4"})).reference == "4"
    ranking = {"messages": asked, "answers": ["4", "5"], "ranks": [1, 2], "reference": "4"}
    assert prompt_of(Ranking.model_validate(ranking)).reference == "4"
    with pytest.raises(ValidationError):
        Message.model_validate({"role": "user", "content": None})
