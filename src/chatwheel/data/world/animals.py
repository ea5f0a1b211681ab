"""How the world tells of animals."""

from __future__ import annotations

from chatwheel.data.world.relation import AGAIN_ZH, Relation, Sentences

CLASS = Relation(
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
        ask=(
            "{s}是什么动物？",
            "{s}属于哪一类动物？",
            "你知道{s}是哪一类动物吗？",
            "请问{s}是哪类动物？",
            "{s}是鸟、鱼还是别的动物？",
        ),
        answer=("{s}是{v}。", "{s}属于{v}。"),
        deny="{s}不是{w}。",
        rather="{s}是{v}，不是{w}。",
        why="为什么{s}是{w}？",
        again=AGAIN_ZH,
        own=("它是哪一类动物？", "它属于什么动物？"),
        tell=("老师说，{s}是一种{v}。",),
    ),
)

FOOD = Relation(
    "food",
    "animal",
    Sentences(
        ask=(
            "What do {p} eat?",
            "What does {a} eat?",
            "What is the food of {p}?",
            "Can you tell me what {p} eat?",
            "What should I feed {a}?",
        ),
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
        again=AGAIN_ZH,
        own=("它吃什么？", "那它喜欢吃什么？", "它的食物是什么？"),
        tell=("{s}饿了，就去找{v}吃。",),
    ),
)

HOME = Relation(
    "home",
    "animal",
    Sentences(
        ask=(
            "Where do {p} live?",
            "Where does {a} live?",
            "Where can I find {p}?",
            "Where is the home of the {s}?",
            "Do you know where {p} live?",
        ),
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
        again=AGAIN_ZH,
        own=("它生活在哪里？", "那它住在哪里？", "在哪里可以看到它？"),
        tell=("想看{s}，可以去{v}找一找。",),
    ),
)

LEGS = Relation(
    "legs",
    "animal",
    Sentences(
        ask=(
            "How many legs does {a} have?",
            "How many legs do {p} have?",
            "How many legs has {a}?",
            "Count the legs of {a}. How many are there?",
        ),
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
        answer=("{s}有{v}。", "一{m}{s}有{v}。"),
        deny="{s}没有{w}。",
        rather="{s}有{v}，不是{w}。",
        why="为什么{s}有{w}？",
        again=AGAIN_ZH,
        own=("它有几条腿？", "那它有多少条腿？"),
        tell=("小{s}用{v}跑来跑去。",),
    ),
)
