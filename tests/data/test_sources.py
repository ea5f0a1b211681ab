"""Every published format, written by hand, and every way in which a file can be wrong."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwheel.data.records import Demonstration, Document, Prompt, Ranking, Rating
from chatwheel.data.sources import FORMATS, inspect, language_of, load
from chatwheel.data.sources.rankings import ranks_of_labels
from chatwheel.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

TREE = {
    "message_tree_id": "tree",
    "prompt": {
        "text": "Q1",
        "role": "prompter",
        "lang": "en",
        "replies": [
            {
                "text": "worse",
                "role": "assistant",
                "rank": 1,
                "replies": [{"text": "not asked", "role": "prompter", "replies": []}],
            },
            {
                "text": "best",
                "role": "assistant",
                "rank": 0,
                "replies": [
                    {"text": "Q2", "role": "prompter", "replies": [{"text": "A2", "role": "assistant", "replies": []}]},
                    {"text": "Q3", "role": "prompter", "replies": [{"text": "A3", "role": "assistant", "replies": []}]},
                ],
            },
            {"text": "gone", "role": "assistant", "rank": 2, "deleted": True, "replies": []},
        ],
    },
}
FINE_GRAINED = {
    "question": "Who?",
    "passages": [["Title", "Title\n\nFirst sentence.", "Second sentence."], ["Other", "Third."]],
    "gold": "Gold.",
    **{f"prediction {k}": f"answer {k}" for k in range(1, 5)},
    "preference": [2, 1, 0, 1, 1, 2],
}
OPENAI = {
    "input": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Who?"},
        ],
        "tools": [],
        "parallel_tool_calls": True,
    },
    "preferred_output": [{"role": "assistant", "content": [{"type": "text", "text": "I."}]}],
    "non_preferred_output": [{"role": "assistant", "content": "Nobody."}],
}
DIALOGUES = {  # format -> (one object, the turns that it becomes)
    "alpaca": ({"instruction": "Add.", "input": "1+1", "output": "2"}, ["Add.\n\n1+1", "2"]),
    "self-instruct": ({"instruction": "Add.", "instances": [{"input": "", "output": "2"}]}, ["Add.", "2"]),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        ["Hi", "Hello"],
    ),
    "messages": (
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        ["Hi", "Hello"],
    ),
    "prompt-completion": ({"prompt": "Hi ->", "completion": " Hello"}, ["Hi ->", "Hello"]),
    "question-answer": (
        {"question": "Half of 48?", "answer": "48/2 = <<48/2=24>>24 clips.\n#### 24"},
        ["Half of 48?", "48/2 = 24 clips.\nThe answer is 24."],
    ),
    "hh-rlhf": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
        ["Hi", "Hello"],
    ),
    "ranked-list": ({"instruction": "Hi", "input": "", "output": ["Hello", "No"]}, ["Hi", "Hello"]),
    "fine-grained-qa": (
        FINE_GRAINED,
        ["[1] Title: First sentence. Second sentence.\n[2] Other: Third.\n\nQuestion: Who?", "Gold."],
    ),
}


def jsonl(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def turns(record: Any) -> list[str]:
    return [message.content for message in record.messages]


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("container", ["x.jsonl", "x.json", "x.jsonl.gz", "packed-but-not-named-so.json"])
def test_every_dialogue_format_from_every_container(tmp_path: Path, name: str, container: str) -> None:
    value, expected = DIALOGUES[name]
    text = json.dumps([value], indent=1) if Path(container).suffix == ".json" else json.dumps(value) + "\n"
    packed = gzip.compress(text.encode()) if "packed" in container or container.endswith(".gz") else text.encode()
    (tmp_path / container).write_bytes(packed)
    assert inspect(tmp_path / container, "conversations").format.name == name
    (record,) = load(tmp_path / container, "conversations")
    assert isinstance(record, Demonstration)
    assert turns(record) == expected
    (asked,) = load(tmp_path / container, "prompts")
    assert isinstance(asked, Prompt)
    assert turns(asked) == expected[:-1]


@pytest.mark.parametrize(
    ("value", "prompt", "answers", "ranks"),
    [
        (DIALOGUES["hh-rlhf"][0], ["Hi"], ["Hello", "No"], [1, 2]),
        (DIALOGUES["ranked-list"][0], ["Hi"], ["Hello", "No"], [1, 2]),
        (TREE, ["Q1"], ["worse", "best"], [2, 1]),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}, ["Hi"], ["Hello", "No"], [1, 2]),
        (OPENAI, ["Hi", "Yes?", "Who?"], ["I.", "Nobody."], [1, 2]),
        (
            {
                "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
                "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}],
            },
            ["Hi"],
            ["Hello", "No"],
            [1, 2],
        ),
        (
            {"messages": [{"role": "user", "content": "Hi"}], "answers": ["a", "b", "c"], "ranks": [2, 1, 1]},
            ["Hi"],
            ["a", "b", "c"],
            [2, 1, 1],
        ),
    ],
)
def test_rankings(tmp_path: Path, value: Any, prompt: list[str], answers: list[str], ranks: list[int]) -> None:
    (record,) = load(jsonl(tmp_path / "r.jsonl", value), "rankings")
    assert isinstance(record, Ranking)
    assert (turns(record), record.answers, record.ranks) == (prompt, answers, ranks)


RANKED = {"messages": [{"role": "user", "content": "Hi"}], "answers": ["a", "b"], "ranks": [1, 2]}
PAIR = {"prompt": "Hi", "chosen": "Hello", "rejected": "No"}


@pytest.mark.parametrize(
    ("value", "scores"),
    [
        (RANKED, None),
        ({**RANKED, "scores": [2, 0.5], "weight": 0.25, "labeller": "anna"}, [2.0, 0.5]),
        ({**RANKED, "ranks": [1, 1, 2], "answers": ["a", "b", "c"], "scores": [2, 3, 0]}, [2.0, 3.0, 0.0]),
        (PAIR, None),
        ({**PAIR, "margin": 3}, [3.0, 0.0]),
        ({**PAIR, "score_chosen": 8.5, "score_rejected": 6}, [8.5, 6.0]),
        ({**PAIR, "score_chosen": 5, "score_rejected": 6}, None),
        ({**PAIR, "margin": -1}, None),
        ({**PAIR, "margin": True}, None),
        ({**DIALOGUES["hh-rlhf"][0], "margin": 0.5}, [0.5, 0.0]),
    ],
)
def test_how_much_better_an_answer_is(tmp_path: Path, value: Any, scores: list[float] | None) -> None:
    (record,) = load(jsonl(tmp_path / "r.jsonl", value), "rankings")
    assert isinstance(record, Ranking)
    assert record.scores == scores
    assert (record.weight, record.labeller) == (value.get("weight"), value.get("labeller"))


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "user", "content": "Hi"}], "answer": "No", "rating": -1, "by": "me"},
        {"prompt": "Hi", "completion": "No", "label": False, "by": "me"},
        {
            "prompt": [{"role": "user", "content": "Hi"}],
            "completion": [{"role": "assistant", "content": "No"}],
            "label": False,
            "by": "me",
        },
    ],
)
def test_ratings(value: Any, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "r.jsonl", value)
    assert inspect(path).kind == "ratings"
    (record,) = load(path, "ratings")
    assert isinstance(record, Rating)
    assert (turns(record), record.answer, record.rating, record.model_dump()["by"]) == (["Hi"], "No", -1, "me")
    (asked,) = load(path, "prompts")
    assert turns(asked) == ["Hi"]
    assert "answer" not in asked.model_dump()


def test_openai_s_pairs_are_known_and_those_with_tools_passed_over(tmp_path: Path) -> None:
    called = {**OPENAI, "preferred_output": [{"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}]}
    path = jsonl(tmp_path / "r.jsonl", OPENAI, called)
    detected = inspect(path)
    assert (detected.format.name, detected.kind) == ("openai-preference", "rankings")
    skipped: Counter[str] = Counter()
    assert len(list(load(path, "rankings", skipped=skipped))) == 1
    assert skipped == {"it calls tools": 1}


def test_a_long_hh_dialogue_keeps_its_common_beginning(tmp_path: Path) -> None:
    start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nmore\n\nAssistant:"
    path = jsonl(tmp_path / "hh.jsonl", {"chosen": f"{start} good", "rejected": f"{start} bad"})
    (record,) = load(path, "rankings")
    assert turns(record) == ["a", "b", "c\n\nmore"]
    assert record.answers == ["good", "bad"]  # type: ignore[attr-defined]


def test_a_tree_gives_the_best_paths_and_learns_shared_answers_once(tmp_path: Path) -> None:
    first, second = load(jsonl(tmp_path / "t.jsonl", TREE), "conversations")
    assert turns(first) == ["Q1", "best", "Q2", "A2"]
    assert turns(second) == ["Q1", "best", "Q3", "A3"]
    assert [m.weight for m in second.messages] == [None, 0, None, None]  # type: ignore[attr-defined]
    assert first.language == "en"


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_fine_grained_labels_give_back_the_order_that_they_came_from(quality: list[int]) -> None:
    labels = [
        0 if quality[i] == quality[j] else 1 if quality[i] > quality[j] else 2 for i, j in combinations(range(4), 2)
    ]
    ranks = ranks_of_labels(labels)
    distinct = sorted(set(quality), reverse=True)
    assert ranks == [distinct.index(q) + 1 for q in quality]


def test_fine_grained_passages_are_cut_at_sentences(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "f.jsonl", FINE_GRAINED)
    (record,) = load(path, "rankings", passage_bytes=40)
    assert turns(record) == ["[1] Title: First sentence.\n[2] Other: Third.\n\nQuestion: Who?"]
    (bare,) = load(path, "rankings", passage_bytes=1)
    assert turns(bare) == ["Who?"]


def test_neighbours_of_one_role_are_joined_and_history_goes_before(tmp_path: Path) -> None:
    messages = [("system", "S"), ("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "unanswered")]
    path = jsonl(tmp_path / "m.jsonl", {"messages": [{"role": r, "content": c} for r, c in messages]})
    (record,) = load(path, "conversations")
    assert turns(record) == ["S", "a\n\nb", "c"]
    alpaca = {"instruction": "thanks", "input": "", "output": "welcome", "history": [["hi", "hello"]]}
    (record,) = load(jsonl(tmp_path / "a.jsonl", alpaca), "conversations")
    assert turns(record) == ["hi", "hello", "thanks", "welcome"]


def test_openai_weights_and_parts(tmp_path: Path) -> None:
    value = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b", "weight": 0},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d", "weight": 1},
        ]
    }
    (record,) = load(jsonl(tmp_path / "m.jsonl", value), "conversations")
    assert [m.weight for m in record.messages] == [None, 0, None, 1]  # type: ignore[attr-defined]
    assert turns(record)[0] == "a"


def test_text_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\n\nTwo,\nstill two.\n", encoding="utf-8")
    assert [r.text for r in load(path, "documents")] == ["One.\n\nTwo,\nstill two.\n"]  # type: ignore[attr-defined]
    paragraphs = list(load(path, "documents", format="paragraphs"))
    assert [r.text for r in paragraphs] == ["One.", "Two,\nstill two."]  # type: ignore[attr-defined]
    assert [turns(r) for r in load(path, "prompts")] == [["One."], ["Two,"], ["still two."]]
    assert paragraphs[0].source == "a"


def test_documents_keep_what_is_known_of_them(tmp_path: Path) -> None:
    (record,) = load(jsonl(tmp_path / "d.jsonl", {"text": "T", "source": "s", "license": "MIT", "id": 7}), "documents")
    assert record.model_dump(exclude_none=True) == {
        "text": "T",
        "source": "s",
        "license": "MIT",
        "id": "7",
        "language": "en",
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_quotes_newlines_and_a_byte_order_mark(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'\ufeff{delimiter}n{delimiter}TEXT\n0{delimiter}1{delimiter}"a ""b""\nc"\n', encoding="utf-8")
    (record,) = load(path, "documents", fields={"text": "TEXT"})
    assert isinstance(record, Document)
    assert record.text == 'a "b"\nc'


def test_csv_of_a_conversation_format(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,answer\nHi,Hello\n")
    (record,) = load(tmp_path / "t.csv", "conversations")
    assert turns(record) == ["Hi", "Hello"]


@pytest.mark.parametrize(
    ("text", "language"),
    [("Hello world", "en"), ("你好世界", "zh"), ("用 apt-get install 安装 vim 吧", "zh"), ("12 + 3", None)],
)
def test_language(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_a_given_language_wins(tmp_path: Path) -> None:
    (record,) = load(jsonl(tmp_path / "d.jsonl", {"text": "Hello"}), "documents", language="zh")
    assert record.language == "zh"


def test_what_cannot_be_learned_is_counted(tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    tool = {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}
    empty = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}
    alone = {"messages": [{"role": "user", "content": "a"}]}
    skipped: Counter[str] = Counter()
    records = list(load(jsonl(tmp_path / "m.jsonl", good, tool, empty, alone), "conversations", skipped=skipped))
    assert len(records) == 1
    assert skipped == {"it calls tools": 1, "an empty turn": 1, "no answer": 1}


def test_a_field_named_like_an_argument_does_no_harm(tmp_path: Path) -> None:
    value = {"question": "q", "answer": "a", "turns": "x", "messages": "y", "ranks": 3, "more": "z", "self": "s"}
    (record,) = load(jsonl(tmp_path / "q.jsonl", value), "conversations", format="question-answer")
    assert turns(record) == ["q", "a"]


BAD = {
    "empty.jsonl": (b"", "holds no records"),
    "blank.json": (b" \n", "holds no records"),
    "list.json": (b"[]", "holds no records"),
    "header.csv": (b"text\n", "holds no records"),
    "latin.jsonl": (b'{"text": "ok"}\n{"text": "caf\xe9"}\n', "line 2: not valid UTF-8 at byte 13"),
    "latin.txt": (b"caf\xe9", "not valid UTF-8 at byte 3"),
    "latin.csv": (b"text\nok\ncaf\xe9\n", "line 3: not valid UTF-8"),
    "half.jsonl": (b'{"text": "ok"}\n{"text": "o', "line 2: not JSON"),
    "half.json": (b'[{"text": "ok"},\n {"te', "line 2: not JSON"),
    "numbers.jsonl": (b"1\n", "line 1: expected a JSON object, found int"),
    "field.jsonl": (b'{"text": "ok"}\n' * 12 + b'{"body": "x"}\n', "line 13: no field 'text' (its fields: 'body')"),
    "type.jsonl": (
        b'{"text": "ok"}\n' * 12 + b'{"text": ["x"]}\n',
        "line 13: field 'text' should be a string, found list",
    ),
    "shape.jsonl": (b'{"body": "x"}\n', "unknown shape; the first record has the fields 'body'. Known formats: chatw"),
    "kind.jsonl": (b'{"instruction": "a", "output": "b"}\n', "format alpaca"),
    "only-empty.jsonl": (b'{"text": " "}\n', "no documents in it; all records were passed over (1 x empty text)"),
    "columns.csv": (b"text,a\nx,1\ny\n", "line 3: 1 columns where the header has 2"),
    "quotes.csv": (b'text\n"open', "not CSV"),
    "sheet.csv": (b"PK\x03\x04rest", "is a zip"),
    "wide.txt": ("text".encode("utf-16"), "UTF-16"),
    "torn.jsonl.gz": (gzip.compress(b'{"text": "ok"}\n' * 9999)[:-20], "damaged gzip file after"),
    "flipped.jsonl.gz": (gzip.compress(b'{"text": "ok"}\n')[:12] + b"\xff" * 30, "damaged gzip file"),
    "surrogate.jsonl": (b'{"text": "\\ud800"}\n', "line 1: text"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_line(tmp_path: Path, name: str) -> None:
    content, expected = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(load(tmp_path / name, "documents"))
    assert expected in caught.value.message
    assert name in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_directory_format_and_field(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"text": "x"})
    with pytest.raises(InputError, match="no such file"):
        list(load(tmp_path / "none.jsonl", "documents"))
    with pytest.raises(InputError, match="is a directory"):
        list(load(tmp_path, "documents"))
    with pytest.raises(InputError, match="unknown format 'nope'; known formats: auto, chatwheel-rankings"):
        list(load(path, "documents", format="nope"))
    with pytest.raises(InputError, match=r"line 1: no field 'BODY' \(its fields: 'text'\)"):
        list(load(path, "documents", fields={"text": "BODY"}))
    with pytest.raises(InputError, match="formats that hold rankings"):
        list(load(path, "rankings"))


def test_wrong_fields_inside_a_format(tmp_path: Path) -> None:
    cases: list[tuple[str, Any, str]] = [
        ("messages", {"messages": [{"role": "robot", "content": "x"}]}, "unknown role 'robot'"),
        ("messages", {"messages": "x"}, "field 'messages' should be a list of objects"),
        ("fine-grained-qa", {**FINE_GRAINED, "preference": [1, 2]}, "six labels"),
        ("chatwheel-rankings", {"messages": "Hi", "answers": ["a", "b"], "ranks": [1]}, "2 answers but 1 ranks"),
        ("chatwheel-rankings", {**RANKED, "scores": [1.0]}, "2 answers but 1 scores"),
        ("chatwheel-rankings", {**RANKED, "scores": "high"}, "scores: "),
        ("chatwheel-rankings", {**RANKED, "scores": [1.0, 2.0]}, "answer 1 is placed before answer 2, but its score"),
        ("chatwheel-rankings", {**RANKED, "scores": [float("inf"), 2.0]}, "scores must be finite"),
        ("chatwheel-rankings", {**RANKED, "weight": -1}, "weight: "),
        ("hh-rlhf", {"chosen": "x", "rejected": "y"}, "should begin with"),
        ("openai-preference", {**OPENAI, "input": "x"}, "field 'input' should be an object with messages"),
        ("openai-preference", {**OPENAI, "preferred_output": "x"}, "'preferred_output' should be a list of objects"),
        ("chatwheel-ratings", {"messages": "Hi", "answer": "a", "rating": 2}, "should be 1 (thumb up) or -1"),
        ("unpaired-preference", {"prompt": "Hi", "completion": "a", "label": "good"}, "should be true or false"),
    ]
    for name, value, expected in cases:
        kind = FORMATS[name].kinds[0]
        with pytest.raises(InputError) as caught:
            list(load(jsonl(tmp_path / "x.jsonl", value), kind, format=name))
        assert expected in caught.value.message
        assert f"format {name} is" in caught.value.message


REAL = {
    "pretrain/books_en.jsonl.gz": ("documents", "text", "en"),
    "pretrain/textbooks_en.jsonl.gz": ("documents", "text", "en"),
    "pretrain/stories_en.jsonl.gz": ("documents", "text", "en"),
    "pretrain/laws_zh.jsonl.gz": ("documents", "text", "zh"),
    "pretrain/histories_zh.jsonl.gz": ("documents", "text", "zh"),
    "pretrain/tech_zh.jsonl.gz": ("documents", "text", "zh"),
    "sft/medquad.jsonl.gz": ("conversations", "question-answer", "en"),
    "sft/task_dialogues.jsonl.gz": ("conversations", "messages", "en"),
    "sft/task_templates.jsonl.gz": ("conversations", "prompt-completion", "en"),
    "sft/gsm8k_train.jsonl.gz": ("conversations", "question-answer", "en"),
    "sft/oasst_zh_alpaca.json.gz": ("conversations", "alpaca", "zh"),
    "sft/oasst_en_trees.jsonl.gz": ("rankings", "oasst-tree", "en"),
    "sft/seed_tasks.jsonl.gz": ("conversations", "self-instruct", "en"),
    "comparisons/hh_harmless.jsonl.gz": ("rankings", "hh-rlhf", "en"),
    "comparisons/oasst_zh_ranked.json.gz": ("rankings", "ranked-list", "zh"),
    "comparisons/fine_grained_qa.json.gz": ("rankings", "fine-grained-qa", "en"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    kind, shape, language = REAL[name]
    detected = inspect(path)
    assert (detected.kind, detected.format.name) == (kind, shape)
    records = list(islice(load(path, kind), 50))  # type: ignore[arg-type]
    assert len(records) == 50
    assert Counter(r.language for r in records).most_common(1)[0][0] == language
    assert not any("<<" in part for r in records if isinstance(r, Demonstration) for part in turns(r))
