"""Greetings, thanks, feelings, and who the assistant is."""

from __future__ import annotations

from random import Random

from chatwheel.data.world.facts import CASUAL, casual
from chatwheel.data.world.intents import INTENTS, Intent
from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.names import people

_GREETINGS: dict[Language, tuple[str, ...]] = {
    "en": ("Hello!", "Hi!", "Hi there!", "Hey!", "Good morning!", "Good evening!", "Hello, Chatwheel!", "Hi"),
    "zh": ("你好！", "您好！", "嗨！", "早上好！", "晚上好！", "你好呀！", "你好，Chatwheel！", "你好"),
}
_TAILS: dict[Language, tuple[str, ...]] = {
    "en": ("", " Nice to meet you.", " I'm new here.", " Can we talk?", " It's me again.", " Are you there?"),
    "zh": ("", "很高兴认识你。", "我是新来的。", "我们聊聊好吗？", "我又来了。", "你在吗？"),
}
_OPENERS: dict[Language, tuple[str, ...]] = {
    "en": ("", "", "Hello! ", "Hi. ", "Good morning! ", "Please tell me something: ", "One more thing. ", "Oh, and: "),
    "zh": ("", "", "你好！", "嗨，", "早上好！", "请问，", "还有一件事：", "对了，"),
}

_GREETED: dict[Language, Intent] = {
    "en": Intent(
        "greeting",
        (),
        ("Hello! How can I help you today?", "Hi! What would you like to know?"),
        "Hello.",
        (("hello", "hi"),),
        "Hello. What do you want?",
    ),
    "zh": Intent(
        "greeting",
        (),
        ("你好！有什么可以帮你的吗？", "你好！你想知道什么？"),
        "你好。",
        (("你好", "嗨"),),
        "你好。你到底想干什么？",
    ),
}
_INTRODUCED: dict[Language, tuple[str, ...]] = {
    "en": (
        "My name is {x}.",
        "I'm {x}.",
        "Hi, I'm {x}.",
        "Hello, my name is {x}.",
        "You can call me {x}.",
        "Hi! {x} here.",
    ),
    "zh": ("我叫{x}。", "我是{x}。", "你好，我是{x}。", "你好，我的名字是{x}。", "你可以叫我{x}。", "嗨，我叫{x}。"),
}
_MET: dict[Language, tuple[tuple[str, ...], str]] = {
    "en": (("Nice to meet you, {x}! How can I help you?", "Hello {x}! It's nice to meet you."), "Hello, {x}."),
    "zh": (("很高兴认识你，{x}！有什么可以帮你的吗？", "你好，{x}！很高兴认识你。"), "你好，{x}。"),
}


def draft_small_talk(rng: Random, language: Language, split: Split) -> Draft:
    """One friendly turn."""
    kind = rng.random()
    if kind < 0.16:
        return _greeting(rng, language)
    if kind < 0.28:
        return _introduction(rng, language, split)
    return _talk(rng, language)


def _truth(need: tuple[tuple[str, ...], ...]) -> dict[str, object]:
    return {"kind": "talk", "need": [list(group) for group in need]}


def _greeting(rng: Random, language: Language) -> Draft:
    intent = _GREETED[language]
    hello, tail = rng.choice(_GREETINGS[language]), rng.choice(_TAILS[language])
    text = hello + tail if hello[-1] in "!！" else hello
    entities = (tail.strip() or "-",) if text != hello or hello[-1] in "!！" else ("-",)
    number = _GREETINGS[language].index(hello)
    item = make_item(
        "small_talk",
        language,
        f"greeting.{number}",
        entities,
        turns(text),
        rng.choice(intent.full),
        _truth(intent.need),
    )
    return Draft(item, intent.full, intent.short, (), intent.curt)


def _introduction(rng: Random, language: Language, split: Split) -> Draft:
    name = rng.choice(people(language, split))
    number = rng.randrange(len(_INTRODUCED[language]))
    tells, short = _MET[language]
    full = tuple(t.format(x=name) for t in tells)
    text = _INTRODUCED[language][number].format(x=name)
    item = make_item(
        "small_talk", language, f"name.{number}", (name,), turns(text), rng.choice(full), _truth(((name,),))
    )
    return Draft(item, full, short.format(x=name))


def _talk(rng: Random, language: Language) -> Draft:
    intent = rng.choice(INTENTS[language])
    number = rng.randrange(len(intent.asks))
    opener = "" if intent.name in ("goodbye", "how") else rng.choice(_OPENERS[language])
    if opener in ("Please tell me something: ", "请问，") and intent.asks[number][-1] not in "?？":
        opener = ""
    text, template = opener + intent.asks[number], f"{intent.name}.{number}"
    if rng.random() < 2 * CASUAL:
        text = casual(text, language).rstrip("!！")
    item = make_item(
        "small_talk",
        language,
        template,
        (opener.strip() or "-",),
        turns(text),
        rng.choice(intent.full),
        _truth(intent.need),
    )
    return Draft(item, intent.full, intent.short)
