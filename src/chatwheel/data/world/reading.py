"""Short texts on invented people, and questions whose answer stands in the text."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from chatwheel.data.world.facts import fragment
from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.knowledge import DAYS
from chatwheel.data.world.names import some_people, some_places
from chatwheel.data.world.terms import number_word, sentence, with_article

Truth = dict[str, object]


@dataclass(frozen=True)
class Scene:
    """What is told of each of two people, and what can be asked: (question, answer, slot that is asked for)."""

    name: str
    told: tuple[str, ...]
    asks: tuple[tuple[str, str, str], ...]


_SCENES: dict[Language, tuple[Scene, ...]] = {
    "en": (
        Scene(
            "home",
            ("{who} lives in {place}.", "{who} has a house in {place}."),
            (
                ("Where does {who} live?", "{who} lives in {place}.", "place"),
                ("Who lives in {place}?", "{who} lives in {place}.", "who"),
            ),
        ),
        Scene(
            "pet",
            ("{who} has {pet}.", "At home, {who} has {pet}."),
            (
                ("What animal does {who} have?", "{who} has {pet}.", "animal"),
                ("Who has the {animal}?", "{who} has the {animal}.", "who"),
                ("What colour is the {animal}?", "The {animal} is {colour}.", "colour"),
                ("What is the colour of the animal that {who} has?", "The {animal} is {colour}.", "colour"),
            ),
        ),
        Scene(
            "market",
            ("{who} bought {n} {things} at the market.", "At the market, {who} bought {n} {things}."),
            (
                ("What did {who} buy?", "{who} bought {n} {things}.", "things"),
                ("How many {things} did {who} buy?", "{who} bought {n} {things}.", "n"),
                ("Who bought the {things}?", "{who} bought the {things}.", "who"),
            ),
        ),
        Scene(
            "job",
            ("{who} is {job} in {place}.", "{who} works as {job} in {place}."),
            (
                ("What is the job of {who}?", "{who} is {job}.", "job"),
                ("Where does {who} work?", "{who} works in {place}.", "place"),
                ("Who is {job}?", "{who} is {job}.", "who"),
            ),
        ),
        Scene(
            "day",
            ("{who} goes to the {spot} on {day}.", "On {day}, {who} goes to the {spot}."),
            (
                ("When does {who} go to the {spot}?", "{who} goes to the {spot} on {day}.", "day"),
                ("Where does {who} go on {day}?", "{who} goes to the {spot} on {day}.", "spot"),
                ("Who goes to the {spot}?", "{who} goes to the {spot}.", "who"),
            ),
        ),
    ),
    "zh": (
        Scene(
            "home",
            ("{who}住在{place}。", "{who}的家在{place}。"),
            (("{who}住在哪里？", "{who}住在{place}。", "place"), ("谁住在{place}？", "{who}住在{place}。", "who")),
        ),
        Scene(
            "pet",
            ("{who}有{pet}。", "{who}家里有{pet}。"),
            (
                ("{who}有什么动物？", "{who}有{pet}。", "animal"),
                ("谁有{animal}？", "{who}有{animal}。", "who"),
                ("{animal}是什么颜色的？", "{animal}是{colour}的。", "colour"),
                ("{who}的动物是什么颜色的？", "{who}的{animal}是{colour}的。", "colour"),
            ),
        ),
        Scene(
            "market",
            ("{who}在市场买了{n}{things}。", "在市场上，{who}买了{n}{things}。"),
            (
                ("{who}买了什么？", "{who}买了{n}{things}。", "things"),
                ("{who}买了多少{noun}？", "{who}买了{n}{things}。", "n"),
                ("谁买了{noun}？", "{who}买了{noun}。", "who"),
            ),
        ),
        Scene(
            "job",
            ("{who}是{place}的{job}。", "{who}在{place}当{job}。"),
            (
                ("{who}做什么工作？", "{who}是{job}。", "job"),
                ("{who}在哪里工作？", "{who}在{place}工作。", "place"),
                ("谁是{job}？", "{who}是{job}。", "who"),
            ),
        ),
        Scene(
            "day",
            ("{who}{day}去{spot}。", "{day}，{who}去{spot}。"),
            (
                ("{who}什么时候去{spot}？", "{who}{day}去{spot}。", "day"),
                ("{who}{day}去哪里？", "{who}{day}去{spot}。", "spot"),
                ("谁去{spot}？", "{who}去{spot}。", "who"),
            ),
        ),
    ),
}
_ANIMALS = {"en": ["dog", "cat", "horse", "rabbit", "cow", "chicken"], "zh": ["狗", "猫", "马", "兔子", "牛", "鸡"]}
_MEASURES = {"狗": "只", "猫": "只", "马": "匹", "兔子": "只", "牛": "头", "鸡": "只"}
_COLOURS = {"en": ["white", "black", "brown", "yellow", "grey"], "zh": ["白色", "黑色", "棕色", "黄色", "灰色"]}
_THINGS = {
    "en": ["apples", "books", "eggs", "cups", "pens", "flowers", "hats", "bananas"],
    "zh": ["个苹果", "本书", "个鸡蛋", "个杯子", "支钢笔", "朵花", "顶帽子", "根香蕉"],
}
_JOBS = {
    "en": ["teacher", "doctor", "farmer", "cook", "nurse", "driver"],
    "zh": ["老师", "医生", "农民", "厨师", "护士", "司机"],
}
_SPOTS = {
    "en": ["river", "market", "school", "garden", "forest", "farm"],
    "zh": ["河边", "市场", "学校", "花园", "森林", "农场"],
}
_FILLERS = {
    "en": (
        "They are old friends.",
        "The weather is fine today.",
        "They often drink tea together.",
        "Both of them like music.",
    ),
    "zh": ("他们是老朋友。", "今天天气很好。", "他们常常一起喝茶。", "两个人都喜欢音乐。"),
}
_WRAPS = {
    "en": (
        "{passage}\n{question}",
        "Read this text: {passage}\n{question}",
        "Here is a little story. {passage} Now my question: {question}",
        "{question} Look for the answer here: {passage}",
    ),
    "zh": (
        "{passage}\n{question}",
        "请读这段话：{passage}\n{question}",
        "下面是一个小故事。{passage}我的问题是：{question}",
        "{question}请在这段话里找答案：{passage}",
    ),
}


def _details(rng: Random, language: Language, split: Split) -> tuple[dict[str, str], dict[str, str]]:
    """The slots of two people; nothing is the same for both."""
    who = some_people(rng, language, split, 2)
    place = some_places(rng, language, split, 2)
    animal, colour = rng.sample(_ANIMALS[language], 2), rng.sample(_COLOURS[language], 2)
    things, job = rng.sample(_THINGS[language], 2), rng.sample(_JOBS[language], 2)
    spot, day = rng.sample(_SPOTS[language], 2), rng.sample(list(DAYS.values()), 2)
    n = rng.sample(range(2, 10), 2)
    people = []
    for i in range(2):
        if language == "en":
            pet = with_article(f"{colour[i]} {animal[i]}")
            kind, noun, work = f"{n[i]}", things[i], with_article(job[i])
        else:
            pet = f"一{_MEASURES[animal[i]]}{colour[i]}的{animal[i]}"
            kind, noun, work = f"{n[i]}", things[i][1:], job[i]
        people.append(
            {
                "who": who[i],
                "place": place[i],
                "animal": animal[i],
                "colour": colour[i],
                "pet": pet,
                "things": things[i],
                "noun": noun,
                "n": kind,
                "job": work,
                "spot": spot[i],
                "day": day[i].name(language),
            }
        )
    return people[0], people[1]


def _value(slots: dict[str, str], slot: str, language: Language) -> str:
    if language == "zh" and slot == "things":
        return slots["noun"]
    return slots[slot]


def passage(rng: Random, language: Language, split: Split) -> tuple[str, Scene, dict[str, str], dict[str, str]]:
    """A text of two or three sentences, its scene, and what holds for each of the two people."""
    scene = rng.choice(_SCENES[language])
    first, second = _details(rng, language, split)
    told = [rng.choice(scene.told).format(**slots) for slots in (first, second)]
    if rng.random() < 0.4:
        told.insert(rng.choice((0, 2)) if language == "zh" else 2, rng.choice(_FILLERS[language]))
    if told[0].startswith(("他们", "两个人")):
        told.append(told.pop(0))
    text = (" " if language == "en" else "").join(told)
    return text, scene, first, second


def draft_reading(rng: Random, language: Language, split: Split) -> Draft:
    """A text and a question on one of its two people."""
    text, scene, first, second = passage(rng, language, split)
    mine, other = (first, second) if rng.random() < 0.5 else (second, first)
    number = rng.randrange(len(scene.asks))
    question, tell, slot = scene.asks[number]
    wrap = rng.randrange(len(_WRAPS[language]))
    asked = _WRAPS[language][wrap].format(passage=text, question=question.format(**mine))
    answer = tell.format(**mine)
    right, wrong = _value(mine, slot, language), _value(other, slot, language)
    full = (answer,)
    mistaken = tell.format(**{**mine, slot: other[slot]} if slot != "animal" else {**other, "who": mine["who"]})
    truth: Truth = {"kind": "value", **_spellings(slot, right, wrong, language), "echo": []}
    short = right
    if slot == "n" and language == "zh":
        short = right + mine["things"]
    entities = (mine["who"], other["who"], mine["place"], other["place"], right, wrong)
    item = make_item("reading", language, f"{scene.name}.{number}.{wrap}", entities, turns(asked), answer, truth)
    return Draft(item, full, fragment(sentence(short), language), (mistaken,))


def _spellings(slot: str, right: str, wrong: str, language: Language) -> Truth:
    if slot == "n":
        return {
            "accept": [right, number_word(int(right), language)],
            "reject": [wrong, number_word(int(wrong), language)],
        }
    if slot == "job" and language == "en":
        return {"accept": [right.split()[-1]], "reject": [wrong.split()[-1]]}
    if slot == "things" and language == "en":
        return {"accept": [right, right.rstrip("s")], "reject": [wrong, wrong.rstrip("s")]}
    return {"accept": [right], "reject": [wrong]}
