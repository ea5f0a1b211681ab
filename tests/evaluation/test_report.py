"""The report: the numbers given, nothing from elsewhere, harmless whatever a model answers or a run lacks."""

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from chatwheel.evaluation.report import count, duration, percent, render, write_report

VOID = {"meta", "br", "hr", "img", "link", "input"}
BEHAVIOURS = ("arithmetic", "facts", "false_premise", "follow_up", "mistakes", "refusal")
SPACE = "\N{NO-BREAK SPACE}"


class Page(HTMLParser):
    """A page's elements and text; every element must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if "tr" in self.open:
            self.rows[-1] += f" {data} "

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, title: str) -> list[str]:
        """The words of the table row that begins so."""
        return next(r.replace(SPACE, " ") for r in self.rows if r.split() and r.strip().startswith(title)).split()


def examined(accuracy: float, answer: str, num_items: int) -> dict[str, Any]:
    return {
        "samples": [["Hello?", f"{answer} hello"], ["你好吗？", f"{answer} 你好"]],
        "n": num_items,
        "accuracy": accuracy,
        "quality": accuracy,
        "behaviours": dict.fromkeys(BEHAVIOURS, accuracy),
        "languages": {"en": accuracy, "zh": accuracy},
        "greedy": [f"{answer} {i}" for i in range(num_items)],
        "sampled": [""] * num_items,
    }


def world_run(num_items: int = 120) -> dict[str, Any]:
    def rows(count: int, **metrics: float) -> list[dict[str, float]]:
        return [{"step": i, "seconds": 0.1, "tokens_per_second": 1000.0, **metrics} for i in range(count)]

    ppo = rows(40, loss=0.1)
    for row in ppo[::4]:
        row |= {"reward": 0.5, "kl": row["step"] / 10, "kl_coefficient": 0.05, "entropy": 1.0}
        row |= {"answer_tokens": 20.0, "ended": 0.9, "explained_variance": 0.4}
    return {
        "recipe": {"name": "tiny", "seed": 11, "data": {"kind": "world"}, "ppo": {"kl": {"target": 6.0}}},
        "results": {
            "stage:data": {"documents": 5432, "demonstrations": 321, "prompts": 210, "seconds": 10.0},
            "stage:pretrain": {"loss": 1.234, "parameters": 3_148_800, "seconds": 100.0},
            "base": examined(0.0125, "base says", num_items),
            "stage:sft": {"loss": 0.5, "dropped": 0, "seconds": 50.0},
            "sft": examined(0.5625, "sft says", num_items),
            "stage:ranking": {"rankings": 987, "seconds": 5.0},
            "stage:reward": {"pair_accuracy": 0.8312, "pairs": 1204, "seconds": 20.0},
            "stage:ppo": {"loss": 0.1, "seconds": 15.0},
            "ppo": examined(0.6875, "ppo says", num_items),
            "comparison": {"ppo_over_sft_greedy": 0.6125, "ppo_over_sft_sampled": 0.5902},
        },
        "curves": {
            "pretrain": rows(30, loss=2.0),
            "sft": rows(30, loss=1.0),
            "reward": rows(30, loss=0.6, pair_accuracy=0.7),
            "ppo": ppo,
        },
        "items": [
            {
                "behaviour": BEHAVIOURS[i % len(BEHAVIOURS)],
                "language": "en" if i % 4 < 2 else "zh",
                "prompt": [{"role": "user", "content": f"question {i}"}],
            }
            for i in range(num_items)
        ],
    }


def files_run() -> dict[str, Any]:
    samples = {"samples": [["Why?", "Because."]]}
    return {
        "recipe": {"name": "real", "seed": 0, "data": {"kind": "files"}},
        "results": {
            "stage:pretrain": {"parameters": 900, "seconds": 1.0, "bits_per_byte": {"en": 1.4321, "zh": 1.8765}},
            **{"base": samples, "sft": samples, "ppo": samples, "comparison": {}},
        },
        "curves": {"pretrain": []},
        "items": [],
    }


def test_the_headline_shows_the_numbers_given() -> None:
    text = Page(render("tiny", world_run())).text.replace(SPACE, " ")
    for number in ("3.15 million parameters", "seed 11", "3 min 20 s in all", "1.3 %", "56.3 %", "68.8 %"):
        assert number in text
    for number in ("83.1 %", "1,204 held-out pairs", "61.3 %", "sampled: 59.0 %", "3.60 nats"):
        assert number in text


def test_the_examination_table_shows_each_model_and_n_and_marks_the_signature_behaviours() -> None:
    page = Page(render("tiny", world_run()))
    assert page.row("All questions")[-7:] == ["1.3", "%", "56.3", "%", "68.8", "%", "120"]
    assert page.row("Follow-up questions")[-7:] == ["1.3", "%", "56.3", "%", "68.8", "%", "20"]
    marked = [row.split("★")[0].strip() for row in page.rows if "★" in row]
    assert marked == ["Follow-up questions", "Admits mistakes", "Challenges false premises", "Declines harm"]
    assert any("中文" in row for row in page.rows)


def test_answers_stand_beside_their_prompts() -> None:
    text = Page(render("tiny", world_run())).text
    place = text.index("你好吗？")
    assert place < text.index("base says 你好") < text.index("sft says 你好") < text.index("ppo says 你好")
    assert "question 5 Base base says 5 SFT sft says 5 PPO ppo says 5" in text


def test_sampled_items_are_sixty_and_balanced() -> None:
    text = Page(render("tiny", world_run(600))).text
    shown = [int(i) for i in re.findall(r"question (\d+)", text)]
    assert len(shown) == 60
    assert {BEHAVIOURS[i % 6]: sum(j % 6 == i % 6 for j in shown) for i in shown} == dict.fromkeys(BEHAVIOURS, 10)


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    html = render("tiny", world_run())
    page = Page(html)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?:|//[a-z]|@import", html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7 * 7 }}{% raw %}\ud800\x00"


def test_hostile_text_is_only_text_wherever_it_stands(tmp_path: Path) -> None:
    data = world_run()
    for key in ("base", "sft", "ppo"):
        data["results"][key]["samples"] = [[HOSTILE, HOSTILE]]
        data["results"][key]["greedy"] = [HOSTILE] * 120
        data["results"][key]["behaviours"][HOSTILE] = 0.5
        data["results"][key]["languages"][HOSTILE] = 0.5
    for item in data["items"]:
        item |= {"language": HOSTILE, "behaviour": HOSTILE, "prompt": [{"role": HOSTILE, "content": HOSTILE}] * 2}
    data["recipe"] |= {"seed": HOSTILE, "note": HOSTILE}
    data["results"]["stage:pretrain"]["bits_per_byte"] = {HOSTILE: 1.0}
    path = tmp_path / "report.html"
    write_report(path, HOSTILE, data)
    page = Page(path.read_text(encoding="utf-8"))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_a_run_on_files_shows_bits_per_byte_and_has_no_examination() -> None:
    page = Page(render("real", files_run()))
    assert "1.432" in page.text
    assert "1.877" in page.text
    assert "Because." in page.text
    assert "What was not measured" in page.text
    assert "simulated" not in page.text
    assert not [a for _, a in page.elements if a.get("id") in ("examination", "curves")]


def test_a_run_in_the_world_says_what_is_simulated() -> None:
    assert "never enters training" in Page(render("tiny", world_run())).text


def without(data: dict[str, Any], path: str) -> dict[str, Any]:
    data = copy.deepcopy(data)
    place, *keys = data, *path.split("/")
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return data


WHOLE = world_run(12)
PATHS = [*WHOLE, *(f"{a}/{b}" for a in ("recipe", "results", "curves") for b in WHOLE[a])]
PATHS += [f"results/{a}/{b}" for a, result in WHOLE["results"].items() for b in result]


@pytest.mark.parametrize("path", PATHS)
def test_any_part_may_be_missing(path: str) -> None:
    assert "One turn of the wheel" in Page(render("tiny", without(WHOLE, path))).text


@pytest.mark.parametrize("data", [{}, {"recipe": None, "results": None, "curves": None, "items": None}])
def test_nothing_at_all_is_still_a_page(data: dict[str, Any]) -> None:
    assert "One turn of the wheel" in Page(render("nothing", data)).text


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "n/a"])
def test_values_that_are_no_numbers_are_left_out(value: Any) -> None:
    def spoilt(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: spoilt(item) for key, item in part.items()}
        if isinstance(part, list):
            return [spoilt(item) for item in part]
        return value if isinstance(part, float) else part

    text = Page(render("tiny", spoilt(world_run(12)))).text.split("The recipe")[0]
    assert "PPO" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_one_diverged_step_leaves_the_curve_and_is_mentioned() -> None:
    data = world_run()
    data["curves"]["pretrain"][7]["loss"] = math.nan
    assert "1 not finite, left out" in Page(render("tiny", data)).text


def test_what_looks_wrong_is_said_beside_the_curves() -> None:
    values = {"reward_std": 0.5, "answer_tokens": 9.0, "ended": 1.0, "seconds": 1.0}
    rows = [{"step": i, "steps": 9, "reward": i / 9, "kl": 0.1, "kl_error": 0.1, **values} for i in range(9)]
    page = Page(render("run", {"curves": {"ppo": rows}}))
    assert "PPO looks healthy" in page.text
    page = Page(render("run", {"curves": {"ppo": [row | {"kl": -2.0} for row in rows]}}))
    assert "PPO looks wrong" in page.text
    assert "From step 0: The KL is negative (-2 ± 0.1 nats an answer, in 9 rollouts)" in page.text


def test_one_language_only() -> None:
    data = world_run()
    for key in ("base", "sft", "ppo"):
        del data["results"][key]["languages"]["zh"]
    page = Page(render("tiny", data))
    assert not any("中文" in row for row in page.rows)
    assert page.row("English")


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    data = world_run(600)
    for name, rows in data["curves"].items():
        data["curves"][name] = [{**rows[i % len(rows)], "step": i} for i in range(20_000)]
    for key in ("base", "sft", "ppo"):
        data["results"][key]["greedy"] = ["一个很长的答案。" * 400] * 600
    path = tmp_path / "report.html"
    write_report(path, "long", data)
    assert path.stat().st_size < 1_500_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "—"), (4.25, "4.2 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (754, "12 min 34 s"), (3_900, "1 h 05 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds).replace(SPACE, " ") == text


def test_shares_and_counts() -> None:
    assert [percent(v).replace(SPACE, " ") for v in (None, 0.0, 0.7025, 1.0)] == ["—", "0.0 %", "70.3 %", "100.0 %"]
    assert [count(v) for v in (None, 0, 4210, 3_148_800)] == ["—", "0", "4,210", "3.15 million"]


def test_a_guard_s_judge_is_drawn_below_the_reward_with_its_peak_marked_in_both() -> None:
    run = world_run()
    looks = [(0, 0.0, 0.3), (2, 0.9, 0.5), (4, 2.25, 0.7), (6, 3.6, 0.4)]
    run["looks"] = {"ppo": [{"rollouts": n, "kl": kl, "reward": reward, "error": 0.01} for n, kl, reward in looks]}
    run["results"]["stage:ppo"] |= {
        "peak_rollouts": 4.0,
        "peak_held_out_reward": 0.7,
        "last_held_out_reward": 0.4,
        "stopped_behind_peak": 1.0,
        "guard_seconds": 1.5,
    }
    page = Page(render("tiny", run))
    assert "its peak, 0.7, was after 4 rollouts; the run stopped behind it." in page.text
    assert "Looking took 10.0 % of the time." in page.text
    assert page.text.count("the judge's peak") == 2
    marks = [a["x1"] for tag, a in page.elements if tag == "line" and a.get("class") == "mark"]
    assert len(set(marks)) == 1  # both charts cover the same stretch
    assert "Held-out judge against √KL, held-out judge: from 0.3 at √KL 0 to 0.4 at √KL 1.897" in page.text
    del run["looks"]
    assert "Held-out judge" not in Page(render("tiny", run)).text


def test_looks_without_a_kl_are_not_drawn_and_do_no_harm() -> None:
    run = world_run()
    run["looks"] = {"ppo": [{"rollouts": n, "kl": None, "reward": 0.5, "error": math.nan} for n in range(3)]}
    assert "Held-out judge" not in Page(render("tiny", run)).text
