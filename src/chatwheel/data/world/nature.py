"""How the world tells of planets, colours, days and months."""

from __future__ import annotations

from chatwheel.data.world.relation import AGAIN_EN, AGAIN_ZH, Relation, Sentences

POSITION = Relation(
    "position",
    "planet",
    Sentences(
        ask=(
            "Which place does {s} have, counted from the sun?",
            "Counted from the sun, which planet is {s}?",
            "Where does {s} stand in the row of planets?",
        ),
        answer=("Counted from the sun, {s} is the {v}.", "{s} is the {v} planet from the sun."),
        deny="{s} is not the {w} planet from the sun.",
        rather="Counted from the sun, {s} is the {v}, not the {w}.",
        why="Why is {s} the {w} planet from the sun?",
        again=AGAIN_EN,
    ),
    Sentences(
        ask=("{s}是太阳系的第几颗行星？", "从太阳数起，{s}是第几颗行星？", "你知道{s}是第几颗行星吗？"),
        answer=("从太阳数起，{s}是{v}。", "{s}是太阳系的{v}行星。"),
        deny="{s}不是太阳系的{w}行星。",
        rather="从太阳数起，{s}是{v}，不是{w}。",
        why="为什么{s}是太阳系的{w}行星？",
        again=AGAIN_ZH,
    ),
)

PLANET = Relation(
    "planet",
    "planet",
    Sentences(
        ask=("Which planet {s}?", "What planet {s}?", "Do you know which planet {s}?", "Tell me which planet {s}."),
        answer=("The planet that {s} is {v}.", "{v} {s}."),
        deny="It is not {w} that {s}.",
        rather="The planet that {s} is {v}, not {w}.",
        why="Why do people say that {w} {s}?",
        tell=("Of the eight planets, {v} {s}.",),
    ),
    Sentences(
        ask=("哪颗行星{s}？", "{s}的行星是哪一颗？", "你知道哪颗行星{s}吗？", "请告诉我哪颗行星{s}。"),
        answer=("{s}的行星是{v}。", "{v}{s}。"),
        deny="{s}的行星不是{w}。",
        rather="{s}的行星是{v}，不是{w}。",
        why="为什么{w}{s}？",
        tell=("在八颗行星里，{v}{s}。",),
    ),
)

COLOUR = Relation(
    "colour",
    "thing",
    Sentences(
        ask=(
            "What colour is {s}?",
            "What is the colour of {s}?",
            "Which colour does {s} have?",
            "What color is {s}?",
            "I want to paint {s}. What colour do I need?",
        ),
        answer=("{s} is {v}.", "The colour of {s} is {v}."),
        deny="{s} is not {w}.",
        rather="{s} is {v}, not {w}.",
        why="Why is {s} {w}?",
        again=AGAIN_EN,
        tell=("In the picture {s} is {v}.",),
    ),
    Sentences(
        ask=(
            "{s}是什么颜色？",
            "{s}是什么颜色的？",
            "你知道{s}是什么颜色吗？",
            "我想画{s}，要用什么颜色？",
            "{s}的颜色是什么？",
        ),
        answer=("{s}的颜色是{v}。", "{s}是{v}的。"),
        deny="{s}不是{w}的。",
        rather="{s}的颜色是{v}，不是{w}。",
        why="为什么{s}是{w}的？",
        again=AGAIN_ZH,
        tell=("画上的{s}是{v}的。",),
    ),
)


def calendar(unit: str, side: str) -> Relation:
    """The day or month (`unit`) right after or before (`side`) another."""
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
            answer=(
                f"The {unit} {side} {{s}} is {{v}}.",
                f"{{v}} comes {side} {{s}}.",
                f"{{s}} comes {en_other} {{v}}.",
            ),
            deny=f"{{w}} does not come right {side} {{s}}.",
            rather=f"The {unit} {side} {{s}} is {{v}}, not {{w}}.",
            why=f"Why does {{w}} come right {side} {{s}}?",
            again=AGAIN_EN,
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
            again=AGAIN_ZH,
        ),
    )
