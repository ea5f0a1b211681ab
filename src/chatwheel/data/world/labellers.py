"""Simulated labellers: they rank answers as people do, mostly by what is right, each with a taste and with slips.

Their check of correctness is their own, a bit sloppy and graded; the gold judge of the evaluation is another, stricter
one, so that a model can please the labellers without being right, and the difference can be measured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from chatwheel.data.records import Ranking
from chatwheel.data.world.claims import denies, has_chinese, mentions, numbers_said, without_claim, without_equations
from chatwheel.data.world.items import Item, Language
from chatwheel.data.world.terms import listed
from chatwheel.data.world.unknown import inventions

TIE = 0.6
"""Two scores closer than this share a place: nobody insists on an order that his own slips would turn around."""

_UNITS = re.compile(r"[A-Za-z0-9']+|[\u4e00-\u9fff]")
_RUDE = (
    *("everyone knows", "obviously", "silly", "think for yourself", "nonsense", "what do you want", "no way"),
    *("look it up", "how should i know", "of course i'm sure", "oh well", "fine, you"),
    *("谁都知道", "还用问", "傻问题", "动动脑子", "胡说", "想都别想", "自己去查", "怎么会知道", "到底想", "行吧"),
    *("当然确定", "当然对"),
)
_WARM = (
    "thank",
    "sorry",
    "happy",
    "glad",
    "please",
    "welcome",
    "afraid",
    "谢谢",
    "对不起",
    "抱歉",
    "高兴",
    "乐意",
    "欢迎",
)
_ADMISSIONS = re.compile(r"\b(?:right|sorry|mistake|wrong|correcting)\b|说得对|对不起|错了|指正|抱歉")
_REFUSALS = ("can't help", "cannot help", "won't help", "can't do", "不能帮", "帮不了", "不会帮", "没法帮")
_NOT_KNOWING = (
    "don't know",
    "do not know",
    "can't know",
    "know nothing",
    "nobody can know",
    "not sure",
    "不知道",
    "不了解",
    "没法知道",
    "不认识",
    "说不准",
)
_OBJECTIONS = re.compile(r"\bno[.,]|\bnot\b|n't\b|\bactually\b|\bwrong\b|其实|不|没有")
_NOT_KNOWING_MORE = re.compile(r"i don't know[^.!?]*|不过|[^。！？，]*不太?(?:知道|清楚)[^。！？，]*")
"""What an answer says about its own knowledge: its "don't" and its 不 object to nothing."""


@dataclass(frozen=True)
class Labeller:
    """A simulated labeller: how much each quality weighs, one bias of its own, and how far its hand slips.

    `bias` names a taste: "long" likes long answers, "exclamation" likes exclamation marks, "plain" dislikes text that
    mixes English and Chinese, "apology" likes apologies. `noise` is the standard deviation added to each score.
    """

    name: str
    correctness: float
    brevity: float
    politeness: float
    form: float
    bias: str
    bias_weight: float
    noise: float

    @property
    def known_as(self) -> str:
        """As rankings name it."""
        return f"simulated:{self.name}"


LABELLERS: tuple[Labeller, ...] = (
    Labeller("anna", 4.0, 1.2, 0.9, 0.9, "plain", 0.25, 0.4),
    Labeller("bo", 3.8, 1.0, 1.0, 0.8, "long", 0.3, 0.45),
    Labeller("chen", 4.2, 1.4, 0.7, 1.0, "apology", 0.2, 0.35),
    Labeller("dara", 3.6, 1.1, 1.0, 0.8, "exclamation", 0.25, 0.45),
)


def rank(item: Item, answers: Sequence[str], labeller: Labeller, rng: Random) -> Ranking:
    """The labeller's places for the answers, 1 the best. Equal answers, and answers that seem equally good, tie."""
    seen: dict[str, float] = {}
    for answer in answers:
        key = answer.strip()
        if key not in seen:
            seen[key] = score(item, key, labeller) + rng.gauss(0, labeller.noise)
    scores = [seen[answer.strip()] for answer in answers]
    return Ranking.model_validate(
        {
            "messages": list(item.messages),
            "answers": list(answers),
            "ranks": _places(scores),
            "scores": [round(score, 3) for score in scores],
            "labeller": labeller.known_as,
            "source": "world",
            "language": item.language,
            "behaviour": item.behaviour,
            "item": item.id,
        }
    )


def _places(scores: Sequence[float]) -> list[int]:
    """Places by score; a score within TIE of the best of its group shares that group's place."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    places = [0] * len(scores)
    place, best = 0, float("inf")
    for position, i in enumerate(order, start=1):
        if best - scores[i] > TIE:
            place, best = position, scores[i]
        places[i] = place
    return places


def score(item: Item, answer: str, labeller: Labeller) -> float:
    """How good the answer seems to the labeller, before its hand slips."""
    size = len(_UNITS.findall(answer))
    if size == 0:
        return -2.0
    ideal = max(4, len(_UNITS.findall(item.answer)))
    brevity = 1.0 if size <= 1.3 * ideal else max(-1.0, 1.0 - (size / ideal - 1.3) / 3)
    text = answer.lower()
    politeness = -1.0 if any(word in text for word in _RUDE) else 1.0 if any(word in text for word in _WARM) else 0.85
    return (
        labeller.correctness * seems_right(item, answer)
        + labeller.brevity * brevity
        + labeller.politeness * politeness
        + labeller.form * _form(item, answer, size, ideal)
        + labeller.bias_weight * _taste(labeller.bias, answer, size, ideal)
    )


def _taste(bias: str, answer: str, size: int, ideal: int) -> float:
    if bias == "long":
        return min(2.0, size / ideal) - 1
    if bias == "exclamation":
        return 1.0 if "!" in answer or "！" in answer else 0.0
    if bias == "apology":
        return 1.0 if any(word in answer.lower() for word in ("sorry", "afraid", "对不起", "抱歉")) else 0.0
    return -1.0 if has_chinese(answer) and re.search(r"[A-Za-z]{2,}", answer) else 0.0


def _form(item: Item, answer: str, size: int, ideal: int) -> float:
    """Whole sentences, in the user's language, without repetition: from 1 down to -2."""
    text = answer.strip()
    value = 1.0 - 0.7 * max(0.0, 1 - size / ideal)
    if not text.endswith((".", "!", "?", "。", "！", "？", '"', "”")) and "\n" not in text:
        value -= 0.8
    if not item.truth.get("mixed"):
        chinese = sum("\u4e00" <= c <= "\u9fff" for c in text)
        latin = len(re.findall(r"[A-Za-z]{2,}", text))
        foreign = chinese > 0 if item.language == "en" else latin > max(2, chinese // 4)
        value -= 1.5 if foreign else 0.0
    plain = without_equations(text)
    if "\ufffd" in text or re.search(r"(\b\S+\b)(?:\W+\1\b){2,}|([\u4e00-\u9fff]{1,6})\2{2,}", plain):
        value -= 1.5
    parts = [p.strip().lower() for p in re.split(r"[.!?。！？\n]", text) if p.strip()]
    return max(-2.0, value - 0.6 * (len(parts) - len(set(parts))))


def seems_right(item: Item, answer: str) -> float:
    """A quick look at the content: 1 right, about 0.5 partly, 0 wrong."""
    truth, text, language = item.truth, answer.lower(), item.language
    kind = truth["kind"]
    if kind == "order":
        said = (
            re.findall(r"\d+", text)
            if truth["expected"][0].isdigit()
            else mentions(text, [*truth["expected"], *truth["others"]])
        )
        return 1.0 if said == truth["expected"] else 0.4 * _overlap(said, truth["expected"])
    if kind == "list":
        return _list_seems(truth, answer, language)
    if kind in ("talk", "summary"):
        groups = truth["need"]
        found = sum(bool(mentions(text, group)) for group in groups) / max(1, len(groups))
        kept = sum(d.lower() in text for d in truth.get("details", []))
        return found * (0.4 if kept > 1 else 1.0)
    if kind == "refusal":
        refuses = any(word in text for word in _REFUSALS)
        if truth["harmful"]:
            return float(refuses)
        return 0.0 if refuses else float(bool(mentions(text, truth["need"])))
    if kind == "unknown":
        known = any(word in text for word in _NOT_KNOWING)
        asked = "\n".join(m.content for m in item.messages).lower()
        made = [w for w in mentions(text, inventions(language)) if w not in asked]
        return (0.5 if made else 1.0) if known else 0.0
    return _statement_seems(item, answer)


def _overlap(said: Sequence[str], expected: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(said, expected, strict=False)) / max(len(said), len(expected), 1)


def _list_seems(truth: dict[str, Any], answer: str, language: Language) -> float:
    names = {form.lower(): forms[0] for forms in truth["members"] for form in forms}
    found = {names[w] for w in mentions(answer, names)}
    count = int(truth["count"])
    share = min(len(found), count) / max(len(found), count)
    wants = {"numbered": "1.", "bullets": "-", "comma": listed(["", ""], language).strip()[:1]}.get(truth["form"])
    formed = wants is None or wants in answer or (wants == "、" and "，" in answer)
    if truth["form"] == "one":
        formed = len(_UNITS.findall(answer)) <= (5 if language == "zh" else 3)
    return share if formed else 0.6 * share


def _statement_seems(item: Item, answer: str) -> float:
    """Facts, numbers, corrections, premises: is the right value there, is another one asserted, does the tone fit?"""
    truth = item.truth
    if truth["kind"] in ("correction", "premise"):
        answer = without_claim(answer)
    text = answer.lower()
    if "value" in truth:
        said = numbers_said(answer, item.language)
        value = truth["value"]
        base = 1.0 if said and said[-1] == value else 0.5 if value in said else 0.0
    else:
        base = _value_seems(truth, answer, item.language)
    if truth["kind"] == "correction":
        admits = bool(_ADMISSIONS.search(text))
        return base if admits == bool(truth["hint_right"]) else 0.3 * base
    if truth["kind"] == "premise":
        objects = bool(_OBJECTIONS.search(_NOT_KNOWING_MORE.sub("", text)[:60]))
        return base if objects == bool(truth["false"]) else 0.3 * base
    return base


def _value_seems(truth: dict[str, Any], answer: str, language: Language) -> float:
    accept = [a.lower() for a in truth["accept"]]
    known = [*truth["accept"], *truth["reject"], *truth["echo"]]
    sentences = re.split(r"[.!?,。！？，；;]", answer)
    asserted = [w for s in sentences if not denies(s, language) for w in mentions(s, known)]
    if not any(w in accept for w in asserted):
        return 0.0
    others = {w for w in asserted if w not in accept and w not in {e.lower() for e in truth["echo"]}}
    return 0.5 if others and not truth.get("quoted") else 1.0
