"""How the world tells of countries and cities."""

from __future__ import annotations

from chatwheel.data.world.relation import AGAIN_EN, AGAIN_ZH, Relation, Sentences

CAPITAL = Relation(
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
        again=(*AGAIN_ZH, "那{s}的首都呢？"),
        own=("它的首都是哪里？", "那首都呢？", "这个国家的首都是哪里？"),
        tell=("很多人去{s}的首都{v}旅行。",),
    ),
)

COUNTRY = Relation(
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
        again=AGAIN_EN,
    ),
    Sentences(
        ask=("{s}是哪个国家的首都？", "{s}在哪个国家？", "哪个国家的首都是{s}？", "你知道{s}在哪个国家吗？"),
        answer=("{s}在{v}。", "{s}是{v}的首都。"),
        deny="{s}不是{w}的首都。",
        rather="{s}在{v}，不在{w}。",
        why="为什么{s}在{w}？",
        again=AGAIN_ZH,
    ),
)

CONTINENT = Relation(
    "continent",
    "country",
    Sentences(
        ask=(
            "Which continent is {s} in?",
            "What continent is {s} in?",
            "On which continent is {s}?",
            "Can you tell me which continent {s} is in?",
            "Where in the world is {s}?",
            "Tell me about {s}.",
        ),
        answer=("{s} is in {v}.", "{s} is a country in {v}."),
        deny="{s} is not in {w}.",
        rather="{s} is in {v}, not in {w}.",
        why="Why is {s} in {w}?",
        again=AGAIN_EN,
        own=("Which continent is it in?", "And where in the world is it?", "What continent is that in?"),
        tell=("You can find {s} on a map of {v}.",),
    ),
    Sentences(
        ask=(
            "{s}在哪个洲？",
            "{s}属于哪个洲？",
            "你知道{s}在哪个洲吗？",
            "请问{s}在哪个洲？",
            "{s}是哪个洲的国家？",
            "给我讲讲{s}吧。",
        ),
        answer=("{s}在{v}。", "{s}是{v}的一个国家。"),
        deny="{s}不在{w}。",
        rather="{s}在{v}，不在{w}。",
        why="为什么{s}在{w}？",
        again=AGAIN_ZH,
        own=("它在哪个洲？", "这个国家在哪个洲？", "那它属于哪个洲？"),
        tell=("在{v}的地图上可以找到{s}。",),
    ),
)

TONGUE = Relation(
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
        own=(
            "What language do they speak there?",
            "And which language do people speak there?",
            "What is its language?",
        ),
        tell=("If you go to {s}, you will hear {v} in the street.",),
    ),
    Sentences(
        ask=(
            "{s}人说什么语言？",
            "{s}的主要语言是什么？",
            "在{s}，人们说什么话？",
            "去{s}旅行要说什么语言？",
            "你知道{s}人说什么语言吗？",
        ),
        answer=("{s}人说{v}。", "{s}的主要语言是{v}。"),
        deny="{s}人说的不是{w}。",
        rather="{s}人说{v}，不是{w}。",
        why="为什么{s}人说{w}？",
        again=AGAIN_ZH,
        own=("那里的人说什么语言？", "那边说什么话？", "他们说什么语言？"),
        tell=("在{s}的街上，你会听到{v}。",),
    ),
)
