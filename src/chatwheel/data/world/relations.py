"""How the world's facts are asked and told: for each relation the sentences in both languages.

Slots: {s} {a} {p} are the subject, with its article, in the plural; {v} the value, {w} a wrong one, {va} and {wa} with article.
The first answer is also the form in which a claim, right or wrong, is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from chatwheel.data.world.items import Language
from chatwheel.data.world.knowledge import COLOURS, FACTS, FOODS, HOMES, Facts
from chatwheel.data.world.terms import Term, fill, with_article


@dataclass(frozen=True)
class Sentences:
    """A relation's sentences in one language."""

    ask: tuple[str, ...]
    answer: tuple[str, ...]
    deny: str
    """What is not so."""
    rather: str
    """Right value, and the wrong one denied, in one sentence."""
    why: str
    """A question that takes {w} for granted."""
    again: tuple[str, ...] = ()
    """Follow-ups on another subject."""
    own: tuple[str, ...] = ()
    """Follow-ups on the same subject, which they do not name."""
    tell: tuple[str, ...] = ()
    """Further statements, for prose."""


@dataclass(frozen=True)
class Relation:
    """One kind of fact."""

    name: str
    topic: str
    en: Sentences
    zh: Sentences

    @property
    def facts(self) -> Facts:
        return FACTS[self.name]

    def sentences(self, language: Language) -> Sentences:
        return self.en if language == "en" else self.zh

    def candidates(self) -> tuple[Term, ...]:
        """All values that an answer could give."""
        return tuple(dict.fromkeys(self.facts.values()))


def say(template: str, language: Language, subject: Term, value: Term, wrong: Term | None = None) -> str:
    """A sentence of a relation with its subject, its value and perhaps a wrong value."""
    other = wrong or value
    slots = {"v": value.name(language), "w": other.name(language)}
    if "{va}" in template or "{wa}" in template:
        slots |= {"va": with_article(value.en), "wa": with_article(other.en)}
    return fill(template, language, subject, **slots)


_AGAIN_EN = ("And {s}?", "What about {s}?", "How about {s}?")
_AGAIN_ZH = ("那{s}呢？", "{s}呢？")

_CAPITAL = Relation(
    "capital",
    "country",
    Sentences(
        ask=(
            "What is the capital of {s}?",
            "What's the capital of {s}?",
            "Which city is the capital of {s}?",
            "Can you tell me the capital of {s}?",
            "Tell me the capital of {s}, please.",
            "Do you know the capital of {s}?",
            "I forgot the capital of {s}. What is it?",
        ),
        answer=("The capital of {s} is {v}.", "{v} is the capital of {s}."),
        deny="{w} is not the capital of {s}.",
        rather="The capital of {s} is {v}, not {w}.",
        why="Why is {w} the capital of {s}?",
        again=("And of {s}?", "And the capital of {s}?", "What about {s}?", "How about {s}?"),
        own=("What is its capital?", "And what is the capital?", "What's the capital of that country?"),
        tell=("Many people visit {v}, the capital of {s}.",),
    ),
    Sentences(
        ask=(
            "{s}的首都是哪里？",
            "{s}的首都是哪个城市？",
            "你知道{s}的首都吗？",
            "请告诉我{s}的首都。",
            "哪个城市是{s}的首都？",
            "我忘了{s}的首都，你能告诉我吗？",
            "{s}的首都叫什么？",
        ),
        answer=("{s}的首都是{v}。", "{v}是{s}的首都。"),
        deny="{w}不是{s}的首都。",
        rather="{s}的首都是{v}，不是{w}。",
        why="为什么{w}是{s}的首都？",
        again=(*_AGAIN_ZH, "那{s}的首都呢？"),
        own=("它的首都是哪里？", "那首都呢？", "这个国家的首都是哪里？"),
        tell=("很多人去{s}的首都{v}旅行。",),
    ),
)

_COUNTRY = Relation(
    "country",
    "city",
    Sentences(
        ask=(
            "Which country has the capital {s}?",
            "{s} is the capital of which country?",
            "In which country is {s}?",
            "What country is {s} in?",
            "Where is {s}?",
        ),
        answer=("{s} is the capital of {v}.", "{s} is in {v}."),
        deny="{s} is not the capital of {w}.",
        rather="{s} is the capital of {v}, not of {w}.",
        why="Why is {s} in {w}?",
        again=_AGAIN_EN,
    ),
    Sentences(
        ask=("{s}是哪个国家的首都？", "{s}在哪个国家？", "哪个国家的首都是{s}？", "你知道{s}在哪个国家吗？"),
        answer=("{s}是{v}的首都。", "{s}在{v}。"),
        deny="{s}不是{w}的首都。",
        rather="{s}是{v}的首都，不是{w}的。",
        why="为什么{s}在{w}？",
        again=_AGAIN_ZH,
    ),
)

_CONTINENT = Relation(
    "continent",
    "country",
    Sentences(
        ask=(
            "Which continent is {s} in?",
            "What continent is {s} in?",
            "On which continent is {s}?",
            "Can you tell me which continent {s} is in?",
            "Where in the world is {s}?",
        ),
        answer=("{s} is in {v}.", "{s} is a country in {v}."),
        deny="{s} is not in {w}.",
        rather="{s} is in {v}, not in {w}.",
        why="Why is {s} in {w}?",
        again=_AGAIN_EN,
        own=("Which continent is it in?", "And where in the world is it?", "What continent is that in?"),
        tell=("You can find {s} on a map of {v}.",),
    ),
    Sentences(
        ask=("{s}在哪个洲？", "{s}属于哪个洲？", "你知道{s}在哪个洲吗？", "请问{s}在哪个洲？", "{s}是哪个洲的国家？"),
        answer=("{s}在{v}。", "{s}是{v}的一个国家。"),
        deny="{s}不在{w}。",
        rather="{s}在{v}，不在{w}。",
        why="为什么{s}在{w}？",
        again=_AGAIN_ZH,
        own=("它在哪个洲？", "这个国家在哪个洲？", "那它属于哪个洲？"),
        tell=("在{v}的地图上可以找到{s}。",),
    ),
)

_TONGUE = Relation(
    "tongue",
    "country",
    Sentences(
        ask=(
            "What language do people speak in {s}?",
            "Which language do they speak in {s}?",
            "What is the main language of {s}?",
            "What language is spoken in {s}?",
            "If I go to {s}, which language will I hear?",
        ),
        answer=("People in {s} speak {v}.", "The main language of {s} is {v}.", "They speak {v} in {s}."),
        deny="The main language of {s} is not {w}.",
        rather="People in {s} speak {v}, not {w}.",
        why="Why do people in {s} speak {w}?",
        again=("And in {s}?", "What about {s}?", "How about {s}?"),
        own=("What language do they speak there?", "And which language do people speak there?", "What is its language?"),
        tell=("If you go to {s}, you will hear {v} in the street.",),
    ),
    Sentences(
        ask=("{s}人说什么语言？", "{s}的主要语言是什么？", "在{s}，人们说什么话？", "去{s}旅行要说什么语言？", "你知道{s}人说什么语言吗？"),
        answer=("{s}人说{v}。", "{s}的主要语言是{v}。"),
        deny="{s}人说的不是{w}。",
        rather="{s}人说{v}，不是{w}。",
        why="为什么{s}人说{w}？",
        again=_AGAIN_ZH,
        own=("那里的人说什么语言？", "那边说什么话？", "他们说什么语言？"),
        tell=("在{s}的街上，你会听到{v}。",),
    ),
)

_CLASS = Relation(
    "class",
    "animal",
    Sentences(
        ask=(
            "What kind of animal is {a}?",
            "Which kind of animal is the {s}?",
            "Is {a} a mammal, a bird or something else?",
            "What class of animals do {p} belong to?",
            "Tell me what kind of animal {a} is.",
        ),
        answer=("{a} is {va}.", "The {s} is {va}."),
        deny="{a} is not {wa}.",
        rather="{a} is {va}, not {wa}.",
        why="Why is {a} {wa}?",
        again=("And {a}?", "What about {a}?", "How about {p}?"),
        own=("What kind of animal is it?", "Which kind of animal is that?"),
        tell=("Children learn at school that {a} is {va}.",),
    ),
    Sentences(
        ask=("{s}是什么动物？", "{s}属于哪一类动物？", "你知道{s}是哪一类动物吗？", "请问{s}是哪类动物？", "{s}是鸟、鱼还是别的动物？"),
        answer=("{s}是{v}。", "{s}属于{v}。"),
        deny="{s}不是{w}。",
        rather="{s}是{v}，不是{w}。",
        why="为什么{s}是{w}？",
        again=_AGAIN_ZH,
        own=("它是哪一类动物？", "它属于什么动物？"),
        tell=("老师说，{s}是一种{v}。",),
    ),
)

_FOOD = Relation(
    "food",
    "animal",
    Sentences(
        ask=("What do {p} eat?", "What does {a} eat?", "What is the food of {p}?", "Can you tell me what {p} eat?", "What should I feed {a}?"),
        answer=("{p} eat {v}.", "{a} eats {v}."),
        deny="{p} do not eat {w}.",
        rather="{p} eat {v}, not {w}.",
        why="Why do {p} eat {w}?",
        again=("And {p}?", "What about {p}?", "How about {a}?"),
        own=("What does it eat?", "And what do they eat?", "What is its food?"),
        tell=("A hungry {s} looks for {v}.",),
    ),
    Sentences(
        ask=("{s}吃什么？", "{s}喜欢吃什么？", "你知道{s}吃什么吗？", "{s}的食物是什么？", "请告诉我{s}吃什么。"),
        answer=("{s}吃{v}。", "{s}的食物是{v}。"),
        deny="{s}不吃{w}。",
        rather="{s}吃{v}，不吃{w}。",
        why="为什么{s}吃{w}？",
        again=_AGAIN_ZH,
        own=("它吃什么？", "那它喜欢吃什么？", "它的食物是什么？"),
        tell=("{s}饿了，就去找{v}吃。",),
    ),
)

_HOME = Relation(
    "home",
    "animal",
    Sentences(
        ask=("Where do {p} live?", "Where does {a} live?", "Where can I find {p}?", "Where is the home of the {s}?", "Do you know where {p} live?"),
        answer=("{p} live {v}.", "{a} lives {v}."),
        deny="{p} do not live {w}.",
        rather="{p} live {v}, not {w}.",
        why="Why do {p} live {w}?",
        again=("And {p}?", "What about {p}?", "How about {a}?"),
        own=("Where does it live?", "And where do they live?", "Where can I find one?"),
        tell=("If you want to see {a}, look {v}.",),
    ),
    Sentences(
        ask=("{s}生活在哪里？", "{s}住在哪里？", "在哪里可以看到{s}？", "你知道{s}住在哪里吗？", "{s}的家在哪里？"),
        answer=("{s}生活在{v}。", "{s}住在{v}。"),
        deny="{s}不生活在{w}。",
        rather="{s}生活在{v}，不在{w}。",
        why="为什么{s}生活在{w}？",
        again=_AGAIN_ZH,
        own=("它生活在哪里？", "那它住在哪里？", "在哪里可以看到它？"),
        tell=("想看{s}，可以去{v}找一找。",),
    ),
)

_LEGS = Relation(
    "legs",
    "animal",
    Sentences(
        ask=("How many legs does {a} have?", "How many legs do {p} have?", "How many legs has {a}?", "Count the legs of {a}. How many are there?"),
        answer=("{a} has {v}.", "{p} have {v}."),
        deny="{a} does not have {w}.",
        rather="{a} has {v}, not {w}.",
        why="Why does {a} have {w}?",
        again=("And {a}?", "What about {a}?", "How about {p}?"),
        own=("How many legs does it have?", "And how many legs do they have?"),
        tell=("The little {s} ran away on its {v}.",),
    ),
    Sentences(
        ask=("{s}有几条腿？", "{s}有多少条腿？", "你知道{s}有几条腿吗？", "请数一数{s}有几条腿。"),
        answer=("{s}有{v}。", "一只{s}有{v}。"),
        deny="{s}没有{w}。",
        rather="{s}有{v}，不是{w}。",
        why="为什么{s}有{w}？",
        again=_AGAIN_ZH,
        own=("它有几条腿？", "那它有多少条腿？"),
        tell=("小{s}用{v}跑来跑去。",),
    ),
)

_MAKER = Relation(
    "maker",
    "work",
    Sentences(
        ask=("Who {did} {s}?", "Do you know who {did} {s}?", "By whom was {s} {done}?", "Tell me who {did} {s}.", "Can you tell me who {did} {s}?"),
        answer=("{s} was {done} by {v}.", "{v} {did} {s}."),
        deny="{w} did not {do} {s}.",
        rather="{s} was {done} by {v}, not by {w}.",
        why="Why did {w} {do} {s}?",
        again=("And {s}?", "What about {s}?", "And who {did} {s}?"),
        tell=("{v} became famous for {s}.",),
    ),
    Sentences(
        ask=("{s}是谁{act}的？", "谁{act}了{s}？", "{s}的{maker}是谁？", "你知道{s}是谁{act}的吗？", "请告诉我{s}的{maker}是谁。"),
        answer=("{s}是{v}{act}的。", "{v}{act}了{s}。", "{s}的{maker}是{v}。"),
        deny="{s}不是{w}{act}的。",
        rather="{s}的{maker}是{v}，不是{w}。",
        why="{w}为什么{act}了{s}？",
        again=_AGAIN_ZH,
        tell=("{v}因为{s}而有名。",),
    ),
)

_YEAR = Relation(
    "year",
    "event",
    Sentences(
        ask=("When did {ask}?", "In which year did {ask}?", "What year did {ask}?", "Do you know when {s}?", "Can you tell me the year when {s}?"),
        answer=("{s} in {v}.", "It was in {v} that {s}."),
        deny="{neg} in {w}.",
        rather="{s} in {v}, not in {w}.",
        why="Why did {ask} in {w}?",
        tell=("In the year {v}, {s}.",),
    ),
    Sentences(
        ask=("{h}是哪一年{t}的？", "{h}是在哪一年{t}的？", "你知道{h}是哪一年{t}的吗？", "{s}是什么时候？", "请问{s}是在哪一年？"),
        answer=("{h}是在{v}{t}的。", "{v}，{s}。"),
        deny="{h}不是在{w}{t}的。",
        rather="{h}是在{v}{t}的，不是{w}。",
        why="为什么{h}是在{w}{t}的？",
        tell=("书上说，{v}{s}。",),
    ),
)

_POSITION = Relation(
    "position",
    "planet",
    Sentences(
        ask=("Which place does {s} have, counted from the sun?", "Counted from the sun, which planet is {s}?", "Where does {s} stand in the row of planets?"),
        answer=("{s} is the {v} planet from the sun.", "Counted from the sun, {s} is the {v} planet."),
        deny="{s} is not the {w} planet from the sun.",
        rather="{s} is the {v} planet from the sun, not the {w}.",
        why="Why is {s} the {w} planet from the sun?",
        again=_AGAIN_EN,
    ),
    Sentences(
        ask=("{s}是太阳系的第几颗行星？", "从太阳数起，{s}是第几颗行星？", "你知道{s}是第几颗行星吗？"),
        answer=("{s}是太阳系的{v}行星。", "从太阳数起，{s}是{v}行星。"),
        deny="{s}不是太阳系的{w}行星。",
        rather="{s}是太阳系的{v}行星，不是{w}。",
        why="为什么{s}是太阳系的{w}行星？",
        again=_AGAIN_ZH,
    ),
)

_PLANET = Relation(
    "planet",
    "planet",
    Sentences(
        ask=("Which planet {s}?", "What planet {s}?", "Do you know which planet {s}?", "Tell me which planet {s}."),
        answer=("{v} {s}.", "The planet that {s} is {v}."),
        deny="It is not {w} that {s}.",
        rather="The planet that {s} is {v}, not {w}.",
        why="Why do people say that {w} {s}?",
        tell=("Of the eight planets, {v} {s}.",),
    ),
    Sentences(
        ask=("哪颗行星{s}？", "{s}的行星是哪一颗？", "你知道哪颗行星{s}吗？", "请告诉我哪颗行星{s}。"),
        answer=("{v}{s}。", "{s}的行星是{v}。"),
        deny="{s}的行星不是{w}。",
        rather="{s}的行星是{v}，不是{w}。",
        why="为什么{w}{s}？",
        tell=("在八颗行星里，{v}{s}。",),
    ),
)

_COLOUR = Relation(
    "colour",
    "thing",
    Sentences(
        ask=("What colour is {s}?", "What is the colour of {s}?", "Which colour does {s} have?", "What color is {s}?", "I want to paint {s}. What colour do I need?"),
        answer=("{s} is {v}.", "The colour of {s} is {v}."),
        deny="{s} is not {w}.",
        rather="{s} is {v}, not {w}.",
        why="Why is {s} {w}?",
        again=_AGAIN_EN,
        tell=("In the picture {s} is {v}.",),
    ),
    Sentences(
        ask=("{s}是什么颜色？", "{s}是什么颜色的？", "你知道{s}是什么颜色吗？", "我想画{s}，要用什么颜色？", "{s}的颜色是什么？"),
        answer=("{s}是{v}的。", "{s}的颜色是{v}。"),
        deny="{s}不是{w}的。",
        rather="{s}是{v}的，不是{w}的。",
        why="为什么{s}是{w}的？",
        again=_AGAIN_ZH,
        tell=("画上的{s}是{v}的。",),
    ),
)


def _calendar(unit: str, side: str) -> Relation:
    zh_unit, which = ("天", "星期几") if unit == "day" else ("个月", "几月")
    zh_side, en_other = ("后", "before") if side == "after" else ("前", "after")
    return Relation(
        f"{unit}_{side}",
        unit,
        Sentences(
            ask=(
                f"What {unit} comes {side} {{s}}?",
                f"Which {unit} comes {side} {{s}}?",
                f"What is the {unit} {side} {{s}}?",
                f"Tell me the {unit} {side} {{s}}.",
            ),
            answer=(f"The {unit} {side} {{s}} is {{v}}.", f"{{v}} comes {side} {{s}}.", f"{{s}} comes {en_other} {{v}}."),
            deny=f"{{w}} does not come right {side} {{s}}.",
            rather=f"The {unit} {side} {{s}} is {{v}}, not {{w}}.",
            why=f"Why does {{w}} come right {side} {{s}}?",
            again=_AGAIN_EN,
        ),
        Sentences(
            ask=(
                f"{{s}}的{zh_side}一{zh_unit}是{which}？",
                f"{{s}}{zh_side}面是{which}？",
                f"你知道{{s}}的{zh_side}一{zh_unit}是{which}吗？",
            ),
            answer=(f"{{s}}的{zh_side}一{zh_unit}是{{v}}。", f"{{s}}{zh_side}面是{{v}}。"),
            deny=f"{{s}}的{zh_side}一{zh_unit}不是{{w}}。",
            rather=f"{{s}}的{zh_side}一{zh_unit}是{{v}}，不是{{w}}。",
            why=f"为什么{{s}}的{zh_side}一{zh_unit}是{{w}}？",
            again=_AGAIN_ZH,
        ),
    )


@lru_cache(maxsize=1)
def relations() -> dict[str, Relation]:
    """All relations by name."""
    fixed = (
        _CAPITAL,
        _COUNTRY,
        _CONTINENT,
        _TONGUE,
        _CLASS,
        _FOOD,
        _HOME,
        _LEGS,
        _MAKER,
        _YEAR,
        _POSITION,
        _PLANET,
        _COLOUR,
    )
    calendar = [_calendar(unit, side) for unit in ("day", "month") for side in ("after", "before")]
    return {relation.name: relation for relation in (*fixed, *calendar)}


_FALSE_FOOD = {"meat": "grass", "fish": "grass", "mice": "grass", "insects": "grass", "krill": "grass"}
_FALSE_HOME = {"in the sea": "in forests", "in rivers": "in the mountains"}
_HALF_TRUE = {"Canada": {"French"}, "the United States": {"Spanish", "French"}}
_FALSE_COLOURS = {"the sky": ("green", "brown"), "the sea": ("orange", "yellow"), "coal": ("blue", "green")}


@lru_cache(maxsize=1024)
def false_values(relation: Relation, subject: Term) -> tuple[Term, ...]:
    """Values that are clearly not true of the subject: nothing that is half true in some light or season."""
    value = relation.facts[subject]
    if relation.name == "food":
        return (FOODS[_FALSE_FOOD.get(value.en, "meat")],)
    if relation.name == "home":
        return (HOMES[_FALSE_HOME.get(value.en, "in the sea")],)
    if relation.name == "colour":
        return tuple(COLOURS[c] for c in _FALSE_COLOURS.get(subject.en, ("blue", "black")))
    half = _HALF_TRUE.get(subject.en, set())
    return tuple(v for v in relation.candidates() if v is not value and v.en not in half)
