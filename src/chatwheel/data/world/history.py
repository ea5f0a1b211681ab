"""How the world tells of people, what they made, and what happened when."""

from __future__ import annotations

from chatwheel.data.world.relation import AGAIN_ZH, Relation, Sentences

MAKER = Relation(
    "maker",
    "work",
    Sentences(
        ask=(
            "Who {did} {s}?",
            "Do you know who {did} {s}?",
            "By whom was {s} {done}?",
            "Tell me who {did} {s}.",
            "Can you tell me who {did} {s}?",
        ),
        answer=("{s} was {done} by {v}.", "{v} {did} {s}."),
        deny="{w} did not {do} {s}.",
        rather="{s} was {done} by {v}, not by {w}.",
        why="Why did {w} {do} {s}?",
        again=("And {s}?", "What about {s}?", "And who {did} {s}?"),
        tell=("{v} became famous for {s}.",),
    ),
    Sentences(
        ask=(
            "{s}是谁{act}的？",
            "谁{act}了{s}？",
            "{s}的{maker}是谁？",
            "你知道{s}是谁{act}的吗？",
            "请告诉我{s}的{maker}是谁。",
        ),
        answer=("{s}的{maker}是{v}。", "{s}是{v}{act}的。", "{v}{act}了{s}。"),
        deny="{s}不是{w}{act}的。",
        rather="{s}的{maker}是{v}，不是{w}。",
        why="{w}为什么{act}了{s}？",
        again=AGAIN_ZH,
        tell=("{v}因为{s}而有名。",),
    ),
)

DEED = Relation(
    "deed",
    "person",
    Sentences(
        ask=(
            "Who {be} {s}?",
            "What did {s} {do}?",
            "Tell me about {s}.",
            "Do you know what {s} {did}?",
            "Why do people know the name of {s}?",
        ),
        answer=("{s} {did} {v}.", "It was {s} who {did} {v}."),
        deny="{s} did not {do} {w}.",
        rather="{s} {did} {v}, not {w}.",
        why="Why did {s} {do} {w}?",
        tell=("Many books speak of {s}, who {did} {v}.",),
    ),
    Sentences(
        ask=("{s}是谁？", "{s}{act}了什么？", "给我讲讲{s}吧。", "你知道{s}{act}了什么吗？", "{s}为什么有名？"),
        answer=("{s}{act}了{v}。", "是{s}{act}了{v}。"),
        deny="{s}没有{act}{w}。",
        rather="{s}{act}了{v}，不是{w}。",
        why="{s}为什么{act}了{w}？",
        tell=("很多书里都写到，{s}{act}了{v}。",),
    ),
)

YEAR = Relation(
    "year",
    "event",
    Sentences(
        ask=(
            "When did {ask}?",
            "In which year did {ask}?",
            "What year did {ask}?",
            "Do you know when {s}?",
            "Can you tell me the year when {s}?",
        ),
        answer=("{s} in {v}.", "It was in {v} that {s}."),
        deny="{neg} in {w}.",
        rather="{s} in {v}, not in {w}.",
        why="Why did {ask} in {w}?",
        tell=("In the year {v}, {s}.",),
    ),
    Sentences(
        ask=(
            "{h}是哪一年{t}的？",
            "{h}是在哪一年{t}的？",
            "你知道{h}是哪一年{t}的吗？",
            "{s}是什么时候？",
            "请问{s}是在哪一年？",
        ),
        answer=("{h}{t}的时间是{v}。", "{h}是在{v}{t}的。"),
        deny="{h}不是在{w}{t}的。",
        rather="{h}{t}的时间是{v}，不是{w}。",
        why="为什么{h}是在{w}{t}的？",
        tell=("书上说，{v}{s}。",),
    ),
)
