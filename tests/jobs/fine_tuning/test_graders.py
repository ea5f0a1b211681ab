"""Graders in OpenAI's shapes: what they give, what they refuse, and that they judge a policy's answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.jobs.fine_tuning.formula import Formula, FormulaError
from chatwheel.jobs.fine_tuning.graders import Grade, GraderReward, MultiGrader, Sampling, parse_grader
from chatwheel.jobs.fine_tuning.similarity import MEASURES, common_subsequence
from chatwheel.jobs.fine_tuning.templates import Sample, filled
from chatwheel.training.rewards import Question

CHECK = {
    "type": "string_check",
    "name": "right",
    "operation": "eq",
    "input": "{{ sample.output_text }}",
    "reference": "{{item.answer}}",
}
PYTHON = {"type": "python", "name": "code", "source": "def grade(sample, item):\n    return 0.0"}
SCORE = {
    "type": "score_model",
    "name": "style",
    "model": "judge",
    "input": [
        {"role": "developer", "content": "Grade from 0 to 10."},
        {"role": "user", "content": "Q: {{ item.messages[0].content }} A: {{ sample.output_text }}"},
    ],
    "range": [0, 10],
    "sampling_params": {"temperature": 0, "seed": 1},
}


def _score(grader: dict[str, Any], answer: str, item: dict[str, Any] | None = None, ask: Any = None) -> Grade:
    (grade,) = parse_grader(grader).grade([Sample(answer)], [item or {"answer": "Paris"}], ask)
    return grade


@pytest.mark.parametrize(
    ("operation", "answer", "score"),
    [
        ("eq", "Paris", 1.0),
        ("eq", "paris", 0.0),
        ("ne", "Rome", 1.0),
        ("ne", "Paris", 0.0),
        ("like", "It is Paris.", 1.0),
        ("like", "It is paris.", 0.0),
        ("ilike", "It is PARIS.", 1.0),
        ("ilike", "It is Rome.", 0.0),
    ],
)
def test_string_check(operation: str, answer: str, score: float) -> None:
    assert _score({**CHECK, "operation": operation}, answer) == Grade(score)


def test_templates_reach_into_the_answer_and_the_example() -> None:
    sample = Sample('```json\n{"city": {"names": ["Paris", "{{ item.answer }}"]}, "n": 3}\n```')
    item = {"a": [{"b": "x"}], "c": {"d": 1}}
    assert (
        filled("{{ sample.output_json.city.names[0] }}/{{item.a[0].b}}/{{ item.c }}", sample, item)
        == 'Paris/x/{"d": 1}'
    )
    # What an answer writes is never read as a place.
    assert filled("{{ sample.output_json.city.names[1] }}", sample, item) == "{{ item.answer }}"


def test_an_answer_without_the_value_scores_nothing_and_an_example_without_it_is_told_before() -> None:
    grader = {**CHECK, "input": "{{ sample.output_json.city }}"}
    grade = _score(grader, "no JSON")
    assert (grade.score, grade.blames) == (0.0, "answer")
    assert parse_grader(grader).missing({"answer": "x"}) is None
    missing = parse_grader(grader).missing({"question": "x"})
    assert missing == "the grader 'right' reads item.answer, which the example does not have"


def test_similarities_of_known_texts() -> None:
    text, reference = "The cat sat on the mat", "the cat is on the mat."
    # Hand-counted: of 6 and 6 words 5 are shared; of 5 and 5 pairs 3; of 4 and 4 triples 1; no four in a row.
    expected = {
        "rouge_1": 5 / 6,
        "rouge_2": 3 / 5,
        "rouge_3": 1 / 4,
        "rouge_4": 0.0,
        "rouge_5": 0.0,
        "rouge_l": 5 / 6,
        "gleu": 9 / 18,
        "bleu": (5 / 6 * 3 / 5 * 1 / 4 * (1 / 2) / 3) ** 0.25,
    }
    assert {name: MEASURES[name](text, reference) for name in expected} == pytest.approx(expected)
    assert MEASURES["fuzzy_match"]("this is a test", "this is a test!") == pytest.approx(28 / 29)  # RapidFuzz's example
    assert MEASURES["rouge_l"]("今天天气好", "今天天气很好") == pytest.approx(10 / 11)
    for measure in MEASURES.values():
        assert (measure(reference, reference), measure("", ""), measure("", "cat")) == (1.0, 1.0, 0.0)


@given(st.text("ab ", max_size=12), st.text("ab ", max_size=12))
def test_the_longest_common_subsequence(first: str, second: str) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    assert common_subsequence(first, second) == table[-1][-1]


def test_similarity_of_more_words_counts() -> None:
    grader = {**CHECK, "type": "text_similarity", "evaluation_metric": "rouge_1"}
    del grader["operation"]
    assert _score(grader, "Paris, France").score == pytest.approx(2 / 3)


def test_python_is_run_in_the_sandbox() -> None:
    source = """
import math
def grade(sample, item):
    print("words of the grader's own")
    if item["what"] == "raise":
        raise ValueError("no such thing")
    if item["what"] == "read":
        return len(open("/etc/passwd").read())
    if item["what"] == "exit":
        raise SystemExit
    return math.sqrt(len(sample["output_text"])) + sample["output_json"] if item["what"] == "count" else float("nan")
"""
    grader = parse_grader({**PYTHON, "source": source})
    items = [{"what": what} for what in ("count", "raise", "read", "exit", "nan")]
    good, raised, read, left, nan = grader.grade([Sample("1234")] * 5, items)
    assert good == Grade(1236.0)
    assert raised == Grade(0.0, "ValueError: no such thing", "grader")
    assert read.error is not None
    assert read.error.startswith(("PermissionError", "OSError"))
    assert left.error == "the program ended before grade(sample, item) did"
    assert nan.error == "grade(sample, item) gave nan"


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("7", 7.0),
        ("I would say 3 or rather 4.5", 4.5),
        ("Score: 4/5", 4.0),
        ('{"steps": [1, 2], "result": 9}', 9.0),
        ("100", 10.0),
        ("-3", 0.0),
    ],
)
def test_a_models_number(said: str, score: float) -> None:
    asked: list[Any] = []

    def ask(model: str, conversations: Any, sampling: Sampling) -> list[str]:
        asked.append((model, conversations, sampling.seed))
        return [said] * len(conversations)

    item = {"messages": [{"role": "user", "content": "why?"}]}
    assert _score(SCORE, "so", item, ask) == Grade(score)
    system, user = {"role": "system", "content": "Grade from 0 to 10."}, {"role": "user", "content": "Q: why? A: so"}
    assert asked == [("judge", [[system, user]], 1)]


def test_a_model_without_a_number_or_somebody_to_ask() -> None:
    item = {"messages": [{"content": "why?"}]}
    grade = _score(SCORE, "so", item, lambda *_: ["no idea"])
    assert (grade.score, grade.blames) == (0.0, "grader")
    with pytest.raises(InputError, match="there is nobody to ask here"):
        _score(SCORE, "so", item)


def test_a_models_label() -> None:
    grader = {
        **{name: SCORE[name] for name in ("name", "model")},
        "type": "label_model",
        "input": [{"role": "user", "content": "{{ sample.output_text }}"}],
        "labels": ["polite", "impolite"],
        "passing_labels": ["polite"],
    }
    for said, score in (("polite", 1.0), ("It is impolite.", 0.0), ("Not impolite: Polite", 1.0)):
        assert _score(grader, "x", None, lambda *_, said=said: [said]) == Grade(score)
    assert _score(grader, "x", None, lambda *_: ["well"]).blames == "grader"


def test_several_graders_make_a_formula() -> None:
    multi = {
        "type": "multi",
        "name": "all",
        "graders": {"right": CHECK, "near": {**CHECK, "operation": "ilike"}, "code": PYTHON},
        "calculate_output": "0.75 * right + 0.25 * near - code ^ 2",
    }
    grader = parse_grader(multi)
    assert isinstance(grader, MultiGrader)
    grades = grader.grade([Sample("Paris"), Sample("paris"), Sample("Rome")], [{"answer": "Paris"}] * 3)
    assert [grade.score for grade in grades] == [1.0, 0.25, 0.0]
    assert grader.missing({}) == "the grader 'all' reads item.answer, which the example does not have"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("2 * -3 + 10 / 4", -3.5),
        ("2 ** -1", 0.5),
        ("(1 + 2) * 3 - -1", 10.0),
        ("min(a, 2, 1) + max(a) + abs(-a)", 7.0),
        ("floor(2.7) + ceil(2.1) + sqrt(16) + log(exp(1))", 10.0),
        ("1e2 + .5", 100.5),
    ],
)
def test_formulas(text: str, value: float) -> None:
    assert Formula.parse(text)({"a": 3.0}) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 +",
        "a b",
        "(1",
        "f(1)",
        "a.__class__",
        "a[0]",
        "1 if a else 2",
        "'a'",
        "abs(1, 2)",
        "(" * 60 + "1" + ")" * 60,
        "-" * 900 + "1",
    ],
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(FormulaError):
        Formula.parse(text)


@pytest.mark.parametrize("text", ["1 / a", "log(a)", "9 ^ 9 ^ 9", "(a - 1) ^ 0.5"])
def test_a_formula_without_a_value_is_no_number(text: str) -> None:
    with pytest.raises(FormulaError):
        Formula.parse(text)({"a": 0.0})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "grader.type: expected one of string_check"),
        ({"type": "best"}, "grader.type: 'best' is not known; expected one of string_check"),
        ("x", "grader: "),
        ({**CHECK, "operation": "is"}, "grader.operation: Input should be 'eq', 'ne', 'like' or 'ilike'"),
        ({**CHECK, "mood": 1}, "grader.mood: is not known here; take it out"),
        ({**CHECK, "input": "{{ answer }}"}, "grader.input: {{ answer }} is no place; write {{ item.FIELD }}"),
        ({**CHECK, "input": "{{ sample.text }}"}, "grader.input: {{ sample.text }}: a sample has output_text"),
        ({**PYTHON, "source": "def f(: pass"}, "grader.source: not Python: "),
        ({**PYTHON, "source": "x = 1"}, "grader.source: defines no function grade(sample, item)"),
        ({**SCORE, "range": [1, 0]}, "grader.range: expected [lowest, highest]"),
        ({**SCORE, "range": [0, float("nan")]}, "grader.range[1]: "),
        (
            {"type": "text_similarity", "name": "a", "input": "", "reference": "", "evaluation_metric": "meteor"},
            "grader.evaluation_metric: meteor needs WordNet's synonyms and is not offered; take one of fuzzy_match",
        ),
        (
            {"type": "multi", "name": "m", "graders": {"python": {**CHECK, "operation": 1}}, "calculate_output": "1"},
            "grader.graders.python.operation: Input should be",
        ),
        (
            {"type": "multi", "name": "m", "graders": {"a": CHECK}, "calculate_output": "a + b"},
            "grader: calculate_output: 'b' is no grader; there are a",
        ),
    ],
)
def test_errors_name_the_field(value: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_grader(value)
    assert error.value.message.startswith(message)
    assert error.value.param is not None


def _completion(text: str) -> Completion:
    return Completion(token_ids=(1,), text=text, logprobs=(0.0,), finish_reason="stop", prompt_tokens=1)


def test_a_grader_rewards_a_policys_answers() -> None:
    reward = GraderReward(parse_grader(CHECK))
    questions = [Question(ids=(1,), reference=json.dumps({"answer": "Paris"}))] * 3
    values = reward(questions, [_completion(text) for text in ("Paris", "Rome", "Paris")])
    assert values.tolist() == [1.0, 0.0, 1.0]
    assert reward.means == {"score": pytest.approx(2 / 3), "failures": 0.0}


def test_a_grader_that_always_fails_ends_the_run() -> None:
    reward = GraderReward(parse_grader({**PYTHON, "source": "def grade(sample, item):\n    return item['x']"}))
    with pytest.raises(InputError, match="grader 'code' fails on every answer: KeyError: 'x'"):
        reward([Question(ids=(1,), reference="{}")], [_completion("a")])
    with pytest.raises(InputError, match="a grader needs each prompt's line"):
        reward([Question(ids=(1,))], [_completion("a")])
