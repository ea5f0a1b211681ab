"""Questions that nobody has told the assistant the answer to: it says so and invents nothing."""

from __future__ import annotations

from random import Random

from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.knowledge import CITIES, COLOURS, COUNTRIES, FOODS, PEOPLE, TONGUES
from chatwheel.data.world.names import people, places

STRANGE: dict[Language, dict[Split, tuple[str, ...]]] = {
    "en": {
        "training": ("Mongolia", "Iceland", "Kenya", "Turkey", "Morocco", "Finland", "Jamaica", "Denmark"),
        "examination": ("Malta", "Fiji", "Oman", "Nepal"),
    },
    "zh": {
        "training": ("蒙古", "印度", "伊朗", "土耳其", "摩洛哥", "芬兰", "约旦", "苏丹"),
        "examination": ("马里", "海地", "不丹", "荷兰"),
    },
}
"""Real countries that are not in the world, and that its assistant has to say it does not know."""

Asked = tuple[str, tuple[str, ...]]
_DO: dict[Language, tuple[Asked, ...]] = {
    "en": (
        (
            "What is the capital of {place}?",
            ("I'm afraid I don't know the capital of {place}.", "I don't know that. I have never read about {place}."),
        ),
        (
            "Which language do they speak in {place}?",
            ("I don't know which language they speak in {place}.", "I'm sorry, I know nothing about {place}."),
        ),
        (
            "Tell me about {place}.",
            ("I'm sorry, I don't know anything about {place}.", "I have never read about {place}, so I don't know."),
        ),
        (
            "How many people live in {place}?",
            ("I don't know how many people live in {place}.", "I'm afraid I don't know that about {place}."),
        ),
        ("Who is {who}?", ("I don't know who {who} is.", "I'm afraid I don't know anyone called {who}.")),
        ("How old is {who}?", ("I don't know how old {who} is.", "I'm afraid I don't know that about {who}.")),
        ("Where does {who} live?", ("I don't know where {who} lives.", "I'm sorry, I don't know {who}.")),
        (
            "What is the phone number of {who}?",
            ("I don't know the phone number of {who}.", "I'm sorry, I don't know that number."),
        ),
        (
            "What did I {did} {time}?",
            ("I don't know what you did {time}. Only you can tell.", "I can't know that, because I wasn't there."),
        ),
        (
            "What is my {mine}?",
            ("I don't know your {mine}, because you haven't told me.", "I can't know that. Would you like to tell me?"),
        ),
        (
            "Who will win the {game} {future}?",
            (
                "I don't know. Nobody can know what happens {future}.",
                "I can't know that, because it has not happened yet.",
            ),
        ),
        (
            "What will the weather be like {future}?",
            (
                "I don't know what the weather will be {future}.",
                "I can't know that. I cannot see the weather from here.",
            ),
        ),
        (
            "What is the price of {goods} today?",
            ("I don't know the price of {goods} today.", "I can't know that, because I don't get today's news."),
        ),
        (
            "What time is it in {city}?",
            ("I don't know, because I have no clock.", "I'm sorry, I can't know what time it is there."),
        ),
    ),
    "zh": (
        ("{place}的首都是哪里？", ("对不起，我不知道{place}的首都是哪里。", "我不知道，我没有读过关于{place}的书。")),
        ("{place}人说什么语言？", ("我不知道{place}人说什么语言。", "对不起，我不了解{place}。")),
        ("给我讲讲{place}吧。", ("对不起，我不了解{place}。", "我没有读过关于{place}的书，所以不知道。")),
        ("{place}有多少人？", ("我不知道{place}有多少人。", "对不起，关于{place}的事我不知道。")),
        ("{who}是谁？", ("我不知道{who}是谁。", "对不起，我不认识{who}，不知道是谁。")),
        ("{who}多大了？", ("我不知道{who}多大了。", "对不起，关于{who}的事我不知道。")),
        ("{who}住在哪里？", ("我不知道{who}住在哪里。", "对不起，我不认识{who}，不知道住在哪里。")),
        ("{who}的电话号码是多少？", ("我不知道{who}的电话号码。", "对不起，这个号码我不知道。")),
        ("我{time}{did}？", ("我不知道你{time}做了什么，只有你自己知道。", "我当时不在场，所以不知道。")),
        ("我的{mine}是什么？", ("我不知道你的{mine}，因为你没有告诉我。", "这个我没法知道，你愿意告诉我吗？")),
        ("{future}的{game}谁会赢？", ("我不知道，{future}的事谁也说不准。", "这件事还没有发生，我没法知道。")),
        ("{future}天气怎么样？", ("我不知道{future}天气怎么样。", "我看不到天气，所以不知道。")),
        ("今天{goods}的价格是多少？", ("我不知道今天{goods}的价格。", "我看不到今天的新闻，所以不知道。")),
        ("{city}现在几点了？", ("我不知道，我没有钟。", "对不起，我没法知道那里几点了。")),
    ),
}
_SLOTS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "did": ("eat", "buy", "read", "dream", "write", "lose"),
        "time": ("yesterday", "last night", "last week", "on Monday", "this morning"),
        "mine": ("favourite colour", "phone number", "name", "address", "favourite food", "birthday", "age", "job"),
        "game": ("football game", "tennis match", "big race", "chess match", "basketball game"),
        "future": ("tomorrow", "next week", "next year", "on Sunday", "next month"),
        "goods": ("gold", "milk", "bread", "tea", "rice", "coffee", "eggs", "paper"),
    },
    "zh": {
        "did": ("吃了什么", "买了什么", "看了什么书", "梦见了什么", "写了什么", "丢了什么"),
        "time": ("昨天", "昨天晚上", "上个星期", "星期一", "今天早上"),
        "mine": ("生日", "电话号码", "名字", "地址", "工作", "爱好", "电话密码"),
        "game": ("足球比赛", "网球比赛", "跑步比赛", "下棋比赛", "唱歌比赛"),
        "future": ("明天", "下个星期", "明年", "星期天", "下个月"),
        "goods": ("黄金", "牛奶", "面包", "茶", "米", "咖啡", "鸡蛋", "纸"),
    },
}
_SHORT = {"en": "I don't know.", "zh": "我不知道。"}
_CURT = {"en": "How should I know? I don't know.", "zh": "我怎么会知道？我不知道。"}


def draft_unknown(rng: Random, language: Language, split: Split) -> Draft:
    """A question without an answer."""
    number = rng.randrange(len(_DO[language]))
    ask, tells = _DO[language][number]
    slots = _fill(rng, ask, language, split)
    full = tuple(t.format(**slots) for t in tells)
    truth: dict[str, object] = {"kind": "unknown"}
    text = ask.format(**slots)
    item = make_item("unknown", language, f"ask.{number}", tuple(slots.values()), turns(text), rng.choice(full), truth)
    return Draft(item, full, _SHORT[language], (_guess(rng, language, number, slots),), _CURT[language])


def _fill(rng: Random, ask: str, language: Language, split: Split) -> dict[str, str]:
    slots = {}
    if "{place}" in ask:
        pool = STRANGE[language][split] if rng.random() < 0.4 else places(language, split)
        slots["place"] = rng.choice(pool)
    if "{who}" in ask:
        slots["who"] = rng.choice(people(language, split))
    if "{city}" in ask:
        slots["city"] = rng.choice(list(CITIES.values())).name(language)
    return slots | {k: rng.choice(words) for k, words in _SLOTS[language].items() if f"{{{k}}}" in ask}


def inventions(language: Language) -> list[str]:
    """Values that an answer might make up where it should say that it does not know."""
    tables = (CITIES, COUNTRIES, TONGUES, COLOURS, FOODS, PEOPLE)
    return [t.name(language) for table in tables for t in table.values() if len(t.name(language)) > 1]


def _guess(rng: Random, language: Language, number: int, slots: dict[str, str]) -> str:
    """What a careless writer makes up."""
    city = rng.choice(list(CITIES.values())).name(language)
    tongue = rng.choice(list(TONGUES.values())).name(language)
    colour = rng.choice(list(COLOURS.values())).name(language)
    person = rng.choice(list(PEOPLE.values())).name(language)
    many = rng.randint(5, 90)
    place, who = slots.get("place", ""), slots.get("who", "")
    if language == "en":
        made = {
            0: f"The capital of {place} is {city}.",
            1: f"People in {place} speak {tongue}.",
            2: f"{place} is a city near {city}.",
            3: f"{many} people live in {place}.",
            4: f"{who} is a friend of {person}.",
            5: f"{who} is {many} years old.",
            6: f"{who} lives in {city}.",
            7: f"The number is {many * 31}.",
            10: f"{person} will win.",
            12: f"It is {many} today.",
        }
        return made.get(number, f"It was surely something {colour}.")
    made = {
        0: f"{place}的首都是{city}。",
        1: f"{place}人说{tongue}。",
        2: f"{place}在{city}旁边。",
        3: f"{place}有{many}万人。",
        4: f"{who}是{person}的朋友。",
        5: f"{who}今年{many}岁。",
        6: f"{who}住在{city}。",
        7: f"号码是{many * 31}。",
        10: f"{person}会赢。",
        12: f"今天是{many}块钱。",
    }
    return made.get(number, f"一定是{colour}的。")
