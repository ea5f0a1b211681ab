"""Tasks on words: reverse, sort, count, translate, opposites."""

from __future__ import annotations

from random import Random

from chatwheel.data.world.facts import fragment
from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.knowledge import OPPOSITES
from chatwheel.data.world.terms import Term, listed, number_word, sentence
from chatwheel.data.world.vocabulary import EVERYDAY, ORDERED_WORDS

Truth = dict[str, object]

_REVERSE = {
    "en": (
        "Reverse the order of these words: {w}",
        "Put these words in reverse order: {w}",
        "Turn this list around: {w}",
        "Say these words again, last one first: {w}",
    ),
    "zh": ("把这些词倒过来：{w}", "请把这些词按相反的顺序排列：{w}", "从后往前说一遍：{w}", "请倒着念这些词：{w}"),
}
_REVERSED = {
    "en": ("In reverse order: {w}.", "Here is the list turned around: {w}."),
    "zh": ("倒过来是：{w}。", "相反的顺序是：{w}。"),
}
_SORT = {
    "en": (
        "Sort these words alphabetically: {w}",
        "Put these words in alphabetical order: {w}",
        "Please sort these words from A to Z: {w}",
    ),
}
_SORT_NUMBERS = {
    "en": (
        "Sort these numbers from small to large: {w}",
        "Put these numbers in order, smallest first: {w}",
        "Please sort these numbers: {w}",
    ),
    "zh": ("把这些数从小到大排列：{w}", "请按从小到大的顺序排列：{w}", "请给这些数排队，小的在前：{w}"),
}
_SORTED = {"en": ("In order: {w}.", "Sorted, they are: {w}."), "zh": ("从小到大是：{w}。", "排好以后是：{w}。")}
_COUNT = {
    "en": ("How many words are in this list: {w}?", "Count these words: {w}", "How many words do you see here: {w}?"),
    "zh": ("这里有几个词：{w}？", "请数一数有多少个词：{w}", "下面一共有几个词：{w}？"),
}
_COUNTED = {"en": ("There are {n} words.", "I count {n} words."), "zh": ("一共有{n}个词。", "我数了，有{n}个词。")}
_TRANSLATE: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "to_zh": (
            'How do you say "{x}" in Chinese?',
            'What is the Chinese word for "{x}"?',
            'Translate "{x}" into Chinese.',
            'What is "{x}" in Chinese?',
        ),
        "to_en": ('What does "{x}" mean in English?', 'What is "{x}" in English?', 'Translate "{x}" into English.'),
    },
    "zh": {
        "to_zh": ("“{x}”用中文怎么说？", "“{x}”是什么意思？", "请把“{x}”翻译成中文。"),
        "to_en": ("“{x}”用英语怎么说？", "“{x}”的英语是什么？", "请把“{x}”翻译成英语。", "英语里“{x}”怎么说？"),
    },
}
_TRANSLATED = {
    "en": {
        "to_zh": ('The Chinese word for "{x}" is "{y}".', '"{x}" is "{y}" in Chinese.'),
        "to_en": ('"{x}" means "{y}" in English.', '"{x}" is "{y}" in English.'),
    },
    "zh": {
        "to_zh": ("“{x}”的中文是“{y}”。", "“{x}”的意思是“{y}”。"),
        "to_en": ("“{x}”的英语是“{y}”。", "“{x}”用英语说是“{y}”。"),
    },
}
_OPPOSITE = {
    "en": (
        "What is the opposite of {x}?",
        "What's the opposite of {x}?",
        "Give me the opposite of {x}.",
        'Which word means the opposite of "{x}"?',
    ),
    "zh": ("“{x}”的反义词是什么？", "请告诉我“{x}”的反义词。", "“{x}”的反面是什么？", "和“{x}”相反的词是什么？"),
}
_OPPOSED = {
    "en": ("The opposite of {x} is {y}.", "The opposite is {y}."),
    "zh": ("“{x}”的反义词是“{y}”。", "和“{x}”相反的词是“{y}”。"),
}


def draft_words(rng: Random, language: Language, split: Split) -> Draft:
    """One task on words."""
    del split
    kinds = (_reverse, _sort, _count, _translate, _opposite)
    return rng.choices(kinds, weights=(5, 5, 3, 6, 3))[0](rng, language)


def _order_draft(
    rng: Random,
    language: Language,
    template: str,
    asked: str,
    tells: tuple[str, ...],
    given: list[str],
    right: list[str],
) -> Draft:
    shown = listed(right, language)
    full = tuple(t.format(w=shown) for t in tells)
    mixed = right[:]
    while mixed == right:
        rng.shuffle(mixed)
    wrong = tells[0].format(w=listed(mixed, language))
    pool = [w for w in ORDERED_WORDS[language] if w not in given] if not given[0].isdigit() else []
    truth: Truth = {"kind": "order", "expected": right, "others": pool}
    item = make_item("words", language, template, given, turns(asked), rng.choice(full), truth)
    return Draft(item, full, fragment(shown, language), (wrong,))


def _reverse(rng: Random, language: Language) -> Draft:
    given = rng.sample(ORDERED_WORDS[language], 3)
    number = rng.randrange(len(_REVERSE[language]))
    asked = _REVERSE[language][number].format(w=listed(given, language))
    return _order_draft(rng, language, f"reverse.{number}", asked, _REVERSED[language], given, given[::-1])


def _sort(rng: Random, language: Language) -> Draft:
    if language == "en" and rng.random() < 0.5:
        given = rng.sample(ORDERED_WORDS["en"], 3)
        while len({w[0] for w in given}) < 3:
            given = rng.sample(ORDERED_WORDS["en"], 3)
        number = rng.randrange(len(_SORT["en"]))
        asked = _SORT["en"][number].format(w=listed(given, language))
        return _order_draft(rng, language, f"sort.{number}", asked, _SORTED["en"], given, sorted(given))
    values = rng.sample(range(1, 10), rng.choice((3, 3, 4)))
    given = [str(n) for n in values]
    number = rng.randrange(len(_SORT_NUMBERS[language]))
    asked = _SORT_NUMBERS[language][number].format(w=listed(given, language))
    right = [str(n) for n in sorted(values)]
    return _order_draft(rng, language, f"sort_numbers.{number}", asked, _SORTED[language], given, right)


def _count(rng: Random, language: Language) -> Draft:
    size = rng.randint(2, 6)
    given = rng.sample(ORDERED_WORDS[language], size)
    number = rng.randrange(len(_COUNT[language]))
    asked = _COUNT[language][number].format(w=listed(given, language))
    tells = _COUNTED[language]
    full = tuple(t.format(n=size) for t in tells)
    wrong = tells[0].format(n=size + rng.choice((-1, 1)))
    truth: Truth = {"kind": "number", "value": size, "operands": []}
    item = make_item("words", language, f"count.{number}", given, turns(asked), rng.choice(full), truth)
    return Draft(item, full, fragment(number_word(size, "en") if language == "en" else f"{size}个", language), (wrong,))


def _translate(rng: Random, language: Language) -> Draft:
    term = rng.choice(EVERYDAY)
    way = rng.choice(("to_en", "to_zh"))
    x, y = (term.en, term.zh) if way == "to_zh" else (term.zh, term.en)
    other = rng.choice([t for t in EVERYDAY if t.en != term.en and t.zh != term.zh])
    forms = _TRANSLATE[language][way]
    number = rng.randrange(len(forms))
    tells = _TRANSLATED[language][way]
    full = tuple(t.format(x=x, y=y) for t in tells)
    accept = [t.zh if way == "to_zh" else t.en for t in EVERYDAY if (t.en if way == "to_zh" else t.zh) == x]
    if way == "to_en" and term.plural:
        accept.append(term.plural)
    reject = [t.zh if way == "to_zh" else t.en for t in EVERYDAY]
    truth: Truth = {
        "kind": "value",
        "accept": list(dict.fromkeys(accept)),
        "reject": [r for r in dict.fromkeys(reject) if r not in accept],
        "echo": [x],
        "mixed": True,
        "quoted": True,
    }
    wrong = tells[0].format(x=x, y=other.zh if way == "to_zh" else other.en)
    item = make_item(
        "words", language, f"{way}.{number}", (x,), turns(forms[number].format(x=x)), rng.choice(full), truth
    )
    short = f'"{y}".' if language == "en" else f"“{y}”。"
    return Draft(item, full, short, (wrong,))


def opposite_of(rng: Random) -> tuple[Term, Term]:
    """A word and its opposite."""
    pair = rng.choice(OPPOSITES)
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def _opposite(rng: Random, language: Language) -> Draft:
    given, right = opposite_of(rng)
    x, y = given.name(language), right.name(language)
    others = [t.name(language) for pair in OPPOSITES for t in pair if t.name(language) not in (x, y)]
    forms = _OPPOSITE[language]
    number = rng.randrange(len(forms))
    full = tuple(t.format(x=x, y=y) for t in _OPPOSED[language])
    wrong = _OPPOSED[language][0].format(x=x, y=rng.choice(others))
    truth: Truth = {
        "kind": "value",
        "accept": [y],
        "reject": list(dict.fromkeys(others)),
        "echo": [x],
        "quoted": language == "zh",
    }
    item = make_item(
        "words", language, f"opposite.{number}", (x,), turns(forms[number].format(x=x)), rng.choice(full), truth
    )
    return Draft(item, full, sentence(y) + "." if language == "en" else f"“{y}”。", (wrong,))
