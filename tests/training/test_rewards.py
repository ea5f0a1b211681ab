"""Who judges answers: functions, servers, rules; and what is said of those that judge wrongly."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.training import rewards
from chatwheel.training.rewards import EnsembleReward, FunctionReward, Question, ServerReward, WeightedReward
from chatwheel.training.rules import RuleReward, contains, exact, json_schema, number


def said(*texts: str) -> list[Completion]:
    common: dict[str, Any] = {"token_ids": (1,), "logprobs": (0.0,), "finish_reason": "stop", "prompt_tokens": 1}
    return [Completion(text=text, **common) for text in texts]


def asked(*texts: str, reference: str | None = None) -> list[Question]:
    return [Question((1, 2), ({"role": "user", "content": text},), reference) for text in texts]


QUESTIONS, ANSWERS = asked("a?", "b?"), said("yes", "no, no")


# -- functions


def function(tmp_path: Path, body: str) -> FunctionReward:
    path = tmp_path / "mine.py"
    path.write_text(body)
    return FunctionReward.load(f"{path}:reward")


def test_a_function_gets_messages_and_texts(tmp_path: Path) -> None:
    judge = function(
        tmp_path,
        "def reward(prompts, answers):\n"
        "    assert prompts == [[{'role': 'user', 'content': 'a?'}], [{'role': 'user', 'content': 'b?'}]]\n"
        "    return [len(a) for a in answers]\n",
    )
    assert judge(QUESTIONS, ANSWERS).tolist() == [3.0, 6.0]


def test_a_coroutine_function_is_awaited(tmp_path: Path) -> None:
    judge = function(
        tmp_path,
        "import asyncio\n"
        "async def reward(prompts, answers):\n"
        "    return await asyncio.gather(*(one(a) for a in answers))\n"
        "async def one(answer):\n"
        "    await asyncio.sleep(0)\n"
        "    return answer.count('no')\n",
    )
    assert judge(QUESTIONS, ANSWERS).tolist() == [0.0, 2.0]


def test_who_asks_for_references_gets_them(tmp_path: Path) -> None:
    judge = function(
        tmp_path,
        "import torch\n"
        "def reward(prompts, answers, *, references):\n"
        "    return torch.tensor([float(a == r) for a, r in zip(answers, references)])\n",
    )
    assert judge(asked("a?", "b?", reference="yes"), ANSWERS).tolist() == [1.0, 0.0]


def test_a_function_of_a_module() -> None:
    assert FunctionReward.load("tests.training.test_rewards:length")(QUESTIONS, ANSWERS).tolist() == [3.0, 6.0]


def length(_prompts: Any, answers: list[str]) -> list[int]:
    return [len(answer) for answer in answers]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def reward(p, a):\n    raise ValueError('bad\\nluck')\n", r"ValueError: bad luck \(mine.py, line 2\)"),
        ("def reward(p, a):\n    return [1.0]\n", "gave 1 numbers for 2 answers"),
        ("def reward(p, a):\n    return [1.0, float('nan')]\n", "gave nan for answer 2 of 2; it must be finite"),
        ("def reward(p, a):\n    return [float('inf'), 0]\n", "gave inf for answer 1 of 2"),
        ("def reward(p, a):\n    return None\n", "expected 2 numbers, found None"),
        ("def reward(p, a):\n    return [10**400, 1]\n", "expected 2 numbers"),
        ("def reward(p, a):\n    return ['good', 'bad']\n", "expected 2 numbers, found"),
        ("def reward(p):\n    return [1, 2]\n", "TypeError"),
        ("async def reward(p, a):\n    return 1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_what_a_function_gets_wrong_is_one_line(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        function(tmp_path, body)(QUESTIONS, ANSWERS)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("reward", "expected FILE.py:FUNCTION"),
        ("nowhere.py:reward", "no such file"),
        ("no_such_module:reward", "no such module"),
        ("json:no_such", "there is no function 'no_such'"),
        ("json:__doc__", "there is no function"),
    ],
)
def test_a_function_that_is_not_there_is_one_line(place: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FunctionReward.load(place)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="SyntaxError"):
        function(tmp_path, "def reward(:\n")


# -- servers


@contextmanager
def server(*replies: Any) -> Iterator[tuple[str, list[Any]]]:
    """Gives the replies in turn, the last one again and again: a status, or what is answered; a number of seconds
    first, if it is a pair. The address, and what was asked."""
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            reply = replies[min(len(bodies), len(replies)) - 1]
            if isinstance(reply, tuple):
                time.sleep(reply[0])
                reply = reply[1]
            status, text = (reply, "") if isinstance(reply, int) else (200, reply)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}/score", bodies
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "PAUSE", 0.01)


def test_a_server_is_asked() -> None:
    with server('{"rewards": [0.5, -1]}') as (url, bodies):
        assert ServerReward(url)(asked("a?", "b?", reference="x"), ANSWERS).tolist() == [0.5, -1.0]
    messages = [[{"role": "user", "content": text}] for text in ("a?", "b?")]
    assert bodies == [{"prompts": messages, "answers": ["yes", "no, no"], "references": ["x", "x"]}]


def test_a_server_that_stumbles_is_asked_again() -> None:
    with server(503, (0.6, "{}"), '{"rewards": [1, 2]}') as (url, bodies):
        assert ServerReward(url, timeout=0.3)(QUESTIONS, ANSWERS).tolist() == [1.0, 2.0]
        assert len(bodies) == 3


@pytest.mark.parametrize(
    ("reply", "message", "times"),
    [
        (500, "HTTP 500; see to the server, then the same command goes on", 3),
        (404, "HTTP 404", 1),
        ((0.6, "{}"), "no answer within 0.3 s", 3),
        ("yes", "not JSON", 1),
        ('{"rewards": "12"}', "gave 0 numbers for 2 answers", 1),
        ("[1, 2]", 'without "rewards"', 1),
        ('{"rewards": [1]}', "gave 1 numbers for 2 answers", 1),
        ('{"rewards": [1, NaN]}', "must be finite", 1),
    ],
)
def test_what_a_server_gets_wrong_is_one_line(reply: Any, message: str, times: int) -> None:
    with server(reply) as (url, bodies):
        with pytest.raises(InputError, match=message):
            ServerReward(url, timeout=0.3)(QUESTIONS, ANSWERS)
        assert len(bodies) == times


def test_a_server_that_is_not_there_is_one_line() -> None:
    with server("") as (url, _):
        pass
    with pytest.raises(InputError, match=r"refused|connect"):
        ServerReward(url)(QUESTIONS, ANSWERS)
    with pytest.raises(InputError, match="begins with http"):
        ServerReward("localhost:9000")
    with pytest.raises(InputError, match="begins with http"):
        ServerReward("http://[::1")


# -- sums


def test_several_judges_are_added_up() -> None:
    both = WeightedReward([("length", FunctionReward(length, "length"), 0.5), ("no", RuleReward("contains"), 2.0)])
    assert both(asked("a?", "b?", reference="no"), ANSWERS).tolist() == [1.5, 5.0]
    assert {name: values.tolist() for name, values in both.values.items()} == {"length": [3.0, 6.0], "no": [0.0, 1.0]}
    assert both(asked("a?", "b?", reference="no"), ANSWERS).dtype == torch.float32


def test_an_ensemble_is_its_mean_less_what_it_disagrees_on() -> None:
    def always(*values: float) -> FunctionReward:
        return FunctionReward(lambda prompts, answers: list(values), "always")  # noqa: ARG005

    parts = [(f"reward-{k}", always(*values), 1.0) for k, values in enumerate([(1.0, 0.0), (1.0, 3.0), (1.0, 6.0)])]
    judge = EnsembleReward(parts, caution=0.5)
    deviation = math.sqrt(6.0)  # of 0, 3 and 6
    assert judge(QUESTIONS, ANSWERS).tolist() == pytest.approx([1.0, 3.0 - 0.5 * deviation])
    assert {name: values.tolist() for name, values in judge.values.items()} == {
        "reward-0": [1.0, 0.0],
        "reward-1": [1.0, 3.0],
        "reward-2": [1.0, 6.0],
        "disagreement": pytest.approx([0.0, deviation]),
    }
    assert EnsembleReward(parts, caution=0.0)(QUESTIONS, ANSWERS).tolist() == pytest.approx([1.0, 3.0])
    # Samuelson's inequality: sqrt(n - 1) deviations below the mean nobody is.
    assert EnsembleReward(parts, caution=math.sqrt(2.0))(QUESTIONS, ANSWERS)[1] <= 0.0


# -- rules


@pytest.mark.parametrize(
    ("rule", "answer", "reference", "right"),
    [
        (exact, " Paris. ", "paris", True),
        (exact, "It is Paris", "Paris", False),
        (exact, "巴黎。", "巴黎", True),
        (exact, "ＡＢＣ", "abc", True),
        (contains, "It is Paris, of course.", "paris", True),
        (contains, "Parisian", "Paris", False),
        (contains, "首都是巴黎。", "巴黎", True),
        (contains, "首都是北京。", "巴黎", False),
        (number, "So 3 + 4 = 7 apples.", "7", True),
        (number, f"It is 7, or {'9' * 5000}.", "7", True),
        (number, "It costs $1,234.50", "#### 1234.5", True),
        (number, "minus: −3", "-3", True),
        (number, "12", "2", False),
        (number, "I don't know", "2", False),
        (number, "一共 12 个", "12", True),
        (number, "1,2", "2", True),
        (number, "25 m²", "25", True),
        (number, "It is 1/2.", "3/2", False),
        (number, "It is 2/4.", "0.5", True),
        (number, "１２ 个", "12", True),
        (number, "a range of 3-5", "5", True),
        (exact, "-5", "5", False),
        (exact, "3.5", "3,5", False),
        (exact, "well-known!", "well known", True),
        (contains, "Han er 19 år", "9 år", False),
        (contains, "le 12 février", "2 février", False),
        (contains, "in 2100", "１０", False),
        (json_schema, "NaN", "{}", False),
        (json_schema, '{"a": 1}', '{"type": "object", "required": ["a"]}', True),
        (json_schema, '```json\n{"a": 1}\n```', '{"type": "object", "required": ["a"]}', True),
        (json_schema, '{"b": 1}', '{"type": "object", "required": ["a"]}', False),
        (json_schema, "not JSON", "{}", False),
        (json_schema, "[" * 100_000, "{}", False),
    ],
)
def test_a_rule(rule: Any, answer: str, reference: str, right: bool) -> None:
    assert rule(answer, reference) is right


def test_rules_that_cannot_judge_say_why() -> None:
    with pytest.raises(InputError, match="known are exact, contains, number, json_schema"):
        RuleReward("spelling")
    with pytest.raises(InputError, match=r"the prompt 'a\?' has no reference"):
        RuleReward("exact")(QUESTIONS, ANSWERS)
    with pytest.raises(InputError, match="has no number"):
        RuleReward("number")(asked("a?", "b?", reference="seven"), ANSWERS)
    with pytest.raises(InputError, match="says nothing"):
        RuleReward("contains")(asked("a?", "b?", reference="…"), ANSWERS)
    with pytest.raises(InputError, match="is not in it"):
        RuleReward("json_schema")(asked("a?", reference='{"$ref": "#/definitions/x"}'), said("1"))
    with pytest.raises(InputError, match="no JSON schema"):
        RuleReward("json_schema")(asked("a?", "b?", reference='{"type": "objekt"}'), ANSWERS)


def test_a_schema_reads_no_files_and_asks_no_servers(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    with server("{}") as (url, bodies):
        for place in (url, f"file://{tmp_path / 'schema.json'}"):
            with pytest.raises(InputError, match="is not in it"):
                json_schema("1", json.dumps({"$ref": place}))
        assert bodies == []
