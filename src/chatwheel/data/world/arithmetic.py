"""Small sums, in signs, in words and in little stories."""

from __future__ import annotations

from random import Random

from chatwheel.data.world.items import Draft, Language, Split, held_out, make_item, turns
from chatwheel.data.world.names import people
from chatwheel.data.world.terms import number_word, sentence

_ASK: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "+": (
            "What is {a} + {b}?",
            "{a} + {b} = ?",
            "What is {a} plus {b}?",
            "How much is {a} plus {b}?",
            "Add {a} and {b}.",
        ),
        "-": (
            "What is {a} - {b}?",
            "{a} - {b} = ?",
            "What is {a} minus {b}?",
            "How much is {a} minus {b}?",
            "Take {b} away from {a}.",
        ),
        "*": ("What is {a} times {b}?", "{a} x {b} = ?", "How much is {a} times {b}?", "Multiply {a} by {b}."),
    },
    "zh": {
        "+": (
            "{a}加{b}等于多少？",
            "请计算：{a} + {b}",
            "{a}加{b}是多少？",
            "请算一下{a}加{b}。",
            "{a}加上{b}等于几？",
        ),
        "-": (
            "{a}减{b}等于多少？",
            "请计算：{a} - {b}",
            "{a}减{b}是多少？",
            "请算一下{a}减{b}。",
            "{a}减去{b}等于几？",
        ),
        "*": ("{a}乘{b}等于多少？", "请计算：{a} x {b}", "{a}乘{b}是多少？", "请算一下{a}乘{b}。"),
    },
}
_SIGNS = {"+": ("plus", "加"), "-": ("minus", "减"), "*": ("times", "乘")}

_THINGS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("apple", "apples"),
        ("book", "books"),
        ("egg", "eggs"),
        ("cup", "cups"),
        ("pen", "pens"),
        ("flower", "flowers"),
        ("hat", "hats"),
        ("banana", "bananas"),
    ),
    "zh": (
        ("个", "苹果"),
        ("本", "书"),
        ("个", "鸡蛋"),
        ("个", "杯子"),
        ("支", "钢笔"),
        ("朵", "花"),
        ("顶", "帽子"),
        ("根", "香蕉"),
    ),
}
STORIES: dict[Language, tuple[tuple[str, str, int], ...]] = {
    "en": (
        ("I have {a} {ta} and buy {b} more. How many {t} do I have now?", "You have {n} {tn} now.", 1),
        ("I have {a} {ta} and give away {b}. How many {t} do I have left?", "You have {n} {tn} left.", -1),
        ("{who} has {a} {ta} and gets {b} more. How many {t} does {who} have?", "{who} has {n} {tn}.", 1),
        ("{who} had {a} {ta} and lost {b}. How many {t} are left?", "{who} has {n} {tn} left.", -1),
        (
            "There are {a} {ta} on the table. I put {b} more there. How many are there now?",
            "There are {n} {tn} on the table.",
            1,
        ),
    ),
    "zh": (
        ("我有{a}{t}，又买了{b}{m}。我现在一共有多少{t0}？", "你现在有{n}{t}。", 1),
        ("我有{a}{t}，送给别人{b}{m}。我还剩多少{t0}？", "你还剩{n}{t}。", -1),
        ("{who}有{a}{t}，又得到{b}{m}。{who}现在有多少{t0}？", "{who}现在有{n}{t}。", 1),
        ("{who}有{a}{t}，丢了{b}{m}。{who}还剩多少{t0}？", "{who}还剩{n}{t}。", -1),
        ("桌子上有{a}{t}，我又放了{b}{m}。现在桌子上有多少{t0}？", "现在桌子上有{n}{t}。", 1),
    ),
}


def numbers(rng: Random, sign: str) -> tuple[int, int, int]:
    """Two operands and the result: the sums of two numbers up to ten, those taken back, and a small times table."""
    if sign == "*":
        a, b = rng.randint(2, 9), rng.randint(2, 5)
        return a, b, a * b
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    return (a + b, b, a) if sign == "-" else (a, b, a + b)


def first_question(a: int, b: int, sign: str, language: Language) -> str | None:
    """The plain question for a sum, or None if it belongs to the examination and may not open a conversation."""
    if held_out(f"{language}/arithmetic/sum.{sign}.0", (str(a), str(b))):
        return None
    return _ASK[language][sign][0].format(a=a, b=b)


def equation(a: int, b: int, result: int, sign: str, language: Language, words: bool) -> str:
    """`3 + 4 = 7.`, in both languages alike, so that what is learnt in one helps the other; or all in words."""
    english, chinese = _SIGNS[sign]
    if words and language == "zh":
        return f"{number_word(a, 'zh')}{chinese}{number_word(b, 'zh')}等于{number_word(result, 'zh')}。"
    if words:
        return sentence(f"{number_word(a, 'en')} {english} {number_word(b, 'en')} is {number_word(result, 'en')}.")
    return f"{a} {'x' if sign == '*' else sign} {b} = {result}{'.' if language == 'en' else '。'}"


def equation_rather(right: str, off: int, language: Language) -> str:
    """An equation in signs, and a wrong result denied, in one sentence: `3 + 4 = 7, not 8.`"""
    return f"{right[:-1]}, not {off}." if language == "en" else f"{right[:-1]}，不是{off}。"


def draft_arithmetic(rng: Random, language: Language, split: Split) -> Draft:
    """A sum or a story with one."""
    return _story(rng, language, split) if rng.random() < 0.3 else _sum(rng, language)


def _near(rng: Random, result: int) -> int:
    return rng.choice([n for n in (result - 2, result - 1, result + 1, result + 2, result + 10) if n >= 0])


def _sum(rng: Random, language: Language) -> Draft:
    sign = rng.choices("+-*", weights=(4, 4, 2))[0]
    a, b, result = numbers(rng, sign)
    forms = _ASK[language][sign]
    number = rng.randrange(len(forms))
    words = sign != "*" and f" {sign} " not in forms[number] and rng.random() < 0.15
    names = [number_word(n, language) if words else str(n) for n in (a, b)]
    question = sentence(forms[number].format(a=names[0], b=names[1]))
    full = (equation(a, b, result, sign, language, words=False),)
    wrong = equation(a, b, _near(rng, result), sign, language, words=False)
    template = f"sum.{sign}.{number}{'w' if words else ''}"
    truth = {"kind": "number", "value": result, "operands": [a, b]}
    item = make_item("arithmetic", language, template, (str(a), str(b)), turns(question), full[0], truth)
    return Draft(item, full, str(result) + ("." if language == "en" else "。"), (wrong,))


def _story(rng: Random, language: Language, split: Split) -> Draft:
    number = rng.randrange(len(STORIES[language]))
    ask, tell, sign = STORIES[language][number]
    a, b = rng.randint(2, 10), rng.randint(2, 9)
    if sign < 0:
        a += b
    result = a + sign * b
    thing = rng.randrange(len(_THINGS[language]))
    who = rng.choice(people(language, split)) if "{who}" in ask else ""
    if language == "en":
        one, many = _THINGS["en"][thing]
        slots = {"t": many, "ta": many}

        def told(n: int) -> str:
            return tell.format(n=n, tn=one if n == 1 else many, who=who).replace("There are 1 ", "There is 1 ")
    else:
        measure, noun = _THINGS["zh"][thing]
        slots = {"t": measure + noun, "m": measure, "t0": noun}

        def told(n: int) -> str:
            return tell.format(n=n, t=measure + noun, who=who)

    question = ask.format(a=a, b=b, who=who, **slots)
    # The sum first, then what it means: small steps are easier than one.
    gap = " " if language == "en" else ""
    full = (equation(a, b, result, "+" if sign > 0 else "-", language, words=False) + gap + told(result),)
    short = str(result) + ("." if language == "en" else "。")
    entities = tuple(e for e in (str(a), str(b), _THINGS[language][thing][1], who) if e)
    others = [noun for i, (_, noun) in enumerate(_THINGS[language]) if i != thing]
    truth = {"kind": "number", "value": result, "operands": [a, b], "others": others}
    item = make_item("arithmetic", language, f"story.{number}", entities, turns(question), full[0], truth)
    return Draft(item, full, short, (told(_near(rng, result)),))
