"""Text for pretraining: the world told in paragraphs, stories, lists, sums, word pairs, questions, answers and code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from chatwheel.data.records import Document
from chatwheel.data.world.arithmetic import equation, equation_rather, numbers
from chatwheel.data.world.code import function
from chatwheel.data.world.corrections import named, say_again, verdict
from chatwheel.data.world.facts import some_fact, wrong_value
from chatwheel.data.world.items import LANGUAGES, Draft, Language
from chatwheel.data.world.knowledge import DAYS, MONTHS, OPPOSITES, PLANETS
from chatwheel.data.world.names import some_names, some_people
from chatwheel.data.world.reading import passage
from chatwheel.data.world.relation import Relation, say
from chatwheel.data.world.relations import relations
from chatwheel.data.world.stories import story
from chatwheel.data.world.streams import draft, stream
from chatwheel.data.world.terms import Term, joined, listed, number_word, sentence
from chatwheel.data.world.vocabulary import CATEGORIES, EVERYDAY, ORDERED_WORDS

_TOPICS = (
    ("capital", "continent", "tongue"),
    ("class", "food", "home", "legs"),
    ("planet", "position"),
    ("maker",),
    ("deed",),
    ("year",),
    ("colour",),
    ("day_after", "day_before"),
    ("month_after", "month_before"),
)
_TOPIC_WEIGHTS = (10, 10, 3, 3, 2, 4, 3, 2, 3)


def _gap(language: Language) -> str:
    return " " if language == "en" else ""


def _state(rng: Random, relation: Relation, subject: Term, language: Language) -> str:
    sentences = relation.sentences(language)
    value = relation.facts[subject]
    form = rng.choice((*sentences.answer, *sentences.answer, *sentences.tell))
    text = say(form, language, subject, value)
    if rng.random() < 0.12:
        wrong = wrong_value(rng, relation, subject, value)
        text = say(sentences.deny, language, subject, value, wrong)
        text += _gap(language) + say(sentences.answer[0], language, subject, value)
    return text


def _about(rng: Random, language: Language) -> str:
    """A paragraph about one or two subjects: everything the world knows of them."""
    names = rng.choices(_TOPICS, weights=_TOPIC_WEIGHTS)[0]
    told: list[str] = []
    first = relations()[names[0]]
    for subject in rng.sample(list(first.facts), 2 if len(names) > 1 else 4):
        own = [relations()[n] for n in names if subject in relations()[n].facts]
        rng.shuffle(own)
        told.extend(_state(rng, relation, subject, language) for relation in own)
        if names[0] == "capital" and rng.random() < 0.6:
            told.append(_state(rng, relations()["country"], relations()["capital"].facts[subject], language))
    return _gap(language).join(told)


def _facts(rng: Random, language: Language) -> str:
    """Unconnected facts."""
    told = []
    for _ in range(rng.randint(4, 7)):
        relation, subject, _value = some_fact(rng)
        told.append(_state(rng, relation, subject, language))
    return _gap(language).join(told)


_ASKED = {
    "facts": 24,
    "follow_up": 12,
    "arithmetic": 15,
    "words": 16,
    "reading": 30,
    "summary": 5,
    "lists": 12,
    "small_talk": 4,
    "mistakes": 10,
    "false_premise": 10,
    "refusal": 5,
    "unknown": 5,
}


def _marks(rng: Random, language: Language) -> tuple[str, str]:
    if rng.random() < 0.35:
        first, second = some_people(rng, language, "training", 2)
        return (f"{first}: ", f"{second}: ") if language == "en" else (f"{first}：", f"{second}：")
    english = (("Q: ", "A: "), ("Question: ", "Answer: "))
    chinese = (("问：", "答："), ("问题：", "回答："))
    return rng.choice(english if language == "en" else chinese)


def _conversation(found: Draft, marks: tuple[str, str]) -> str:
    contents = [*(m.content for m in found.item.messages), found.item.answer]
    return "\n".join(marks[i % 2] + text for i, text in enumerate(contents))


def _questions(rng: Random, language: Language) -> str:
    """Questions and answers, in letters, in words or between two people."""
    marks = _marks(rng, language)
    parts = []
    size = 0
    while size < (160 if language == "en" else 60):
        behaviour = rng.choices(list(_ASKED), weights=list(_ASKED.values()))[0]
        parts.append(_conversation(draft(rng, behaviour, language, "training"), marks))
        size += len(parts[-1])
    return "\n".join(parts)


def _scene(rng: Random, language: Language) -> str:
    """A little text, and what it says, asked and answered in one breath."""
    text, scene, first, second = passage(rng, language, "training")
    lines = [text]
    for mine in rng.sample((first, second), 2):
        question, tell, _slot = rng.choice(scene.asks)
        lines.append(f"{question.format(**mine)}{_gap(language)}{tell.format(**mine)}")
    return "\n".join(lines)


_PUPIL_RIGHT: dict[Language, tuple[str, ...]] = {
    "en": ("{a} That's right.", "{a} Yes, well done.", "{a} You're right."),
    "zh": ("{a}没错。", "{a}对，很好。", "{a}你说得对。"),
}
_PUPIL_WRONG: dict[Language, tuple[str, ...]] = {
    "en": ("{r}", "{r} There seems to be a mix-up.", "{r} I'm sure about it."),
    "zh": ("{r}", "{r}这里好像弄混了。", "{r}我很确定。"),
}


def _classroom(rng: Random, language: Language) -> str:
    """Claims and what a teacher says to them."""
    mark = ": " if language == "en" else "："
    teacher = rng.choice(("Teacher", "Answer", "A") if language == "en" else ("老师", "回答", "答"))
    pupils = some_people(rng, language, "training", 2)
    lines = []
    for i in range(rng.randint(3, 5)):
        claimed, right, rather, is_right = _sum_claim(rng, language) if rng.random() < 0.25 else _claim(rng, language)
        verdict = rng.choice((_PUPIL_RIGHT if is_right else _PUPIL_WRONG)[language])
        lines.append(f"{pupils[i % 2]}{mark}{claimed}")
        lines.append(f"{teacher}{mark}{verdict.format(a=right, r=rather)}")
    return "\n".join(lines)


def _claim(rng: Random, language: Language) -> tuple[str, str, str, bool]:
    """A claim on a fact, the fact, the fact with the claim denied, and whether the claim is right."""
    relation, subject, value = some_fact(rng)
    wrong, is_right = wrong_value(rng, relation, subject, value), rng.random() < 0.5
    sentences = relation.sentences(language)
    told = say(sentences.answer[0], language, subject, value if is_right else wrong)
    said_again = say_again(named(relation, value if is_right else wrong, language), language)
    right = said_again + say(sentences.answer[0], language, subject, value)
    return told, right, said_again + say(sentences.rather, language, subject, value, wrong), is_right


def _sum_claim(rng: Random, language: Language) -> tuple[str, str, str, bool]:
    sign = rng.choice("+-")
    a, b, result = numbers(rng, sign)
    is_right = rng.random() < 0.5
    off = result + rng.choice((-2, -1, 1, 2) if result > 1 else (1, 2))
    told = equation(a, b, result if is_right else off, sign, language, words=False)
    right = say_again(str(result if is_right else off), language) + equation(a, b, result, sign, language, words=False)
    return told, right, equation_rather(right, off, language), is_right


def _some_words(rng: Random, language: Language, count: int) -> list[str]:
    """Different words of one kind: things, values of facts, names or numbers."""
    kind = rng.random()
    if kind < 0.5:
        return [t.name(language) for t in rng.sample(EVERYDAY, count)]
    if kind < 0.75:
        values = list(dict.fromkeys(v.name(language) for r in relations().values() for v in r.candidates()))
        return rng.sample(values, count)
    if kind < 0.9:
        return [*some_names(rng, language, "training", 4), *(t.name(language) for t in rng.sample(EVERYDAY, count - 4))]
    return [str(n) for n in rng.sample(range(21), count)]


# Turns, of which the last says what it is. {x} is a claim, {h} a hint that comes after it, {e} the last of them said
# again. By the short ones the comparison is learnt; the others are how people make claims.
_SHORT_GUESSES: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("I say {x}.", "It is {y}"),
        ("{who} says {x}.", "It is {y}"),
        ("{e}It is {y}",),
        ("{e}The word is {y}",),
        ("{e}{who} wrote {y}",),
        ("{e}{who}'s answer is {y}",),
    ),
    "zh": (
        ("我说{x}。", "是{y}"),
        ("{who}说{x}。", "是{y}"),
        ("{e}是{y}",),
        ("{e}这个词是{y}",),
        ("{e}{who}写的是{y}",),
        ("{e}{who}的答案是{y}",),
    ),
}
_LONG_GUESSES: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("The word is {x}, right?", "{e}The word is {y}"),
        ("I heard that the word is {x}.", "{e}The word is {y}"),
        ("My friend says that {who}'s word is {x}. Is that so?", "{e}{who}'s word is {y}"),
        ("I read in a book that {who} wrote {x}. Can you tell me more?", "{e}{who} wrote {y}"),
        ("Why did {who} write {x}?", "{e}{who} wrote {y}"),
        ("Tell me what happened when {who} wrote {x}.", "{e}{who} wrote {y}"),
        ("Since {who} wrote {x}, what did {other} write?", "{e}{who} wrote {y}"),
        ("Is it true that {who}'s answer is {x}?", "{e}{who}'s answer is {y}"),
        ("What did {who} write?", "{who} wrote {x}.", "Are you sure?", "{e}{who} wrote {y}"),
        ("What is the word?", "The word is {x}.", "I don't think that's right.", "{e}The word is {y}"),
        ("What did {who} write?", "{who} wrote {x}.", "No, it's {h}.", "{e}{who} wrote {y}"),
        ("Tell me the word.", "The word is {x}.", "I think it's {h}.", "{e}The word is {y}"),
        ("Do you know {who}'s answer?", "It is {x}.", "My teacher says it's {h}.", "{e}It is {y}"),
        ("What is {who}'s word?", "The word is {x}.", "I read that the word is {h}.", "{e}The word is {y}"),
    ),
    "zh": (
        ("这个词是{x}，对吗？", "{e}这个词是{y}"),
        ("我听说这个词是{x}。", "{e}这个词是{y}"),
        ("我朋友说{who}的词是{x}，是这样吗？", "{e}{who}的词是{y}"),
        ("书上说{who}写的是{x}，你能多讲讲吗？", "{e}{who}写的是{y}"),
        ("为什么{who}写的是{x}？", "{e}{who}写的是{y}"),
        ("请讲讲{who}写{x}时的情况。", "{e}{who}写的是{y}"),
        ("既然{who}写的是{x}，那么{other}写的是什么？", "{e}{who}写的是{y}"),
        ("{who}的答案是{x}，这是真的吗？", "{e}{who}的答案是{y}"),
        ("{who}写了什么？", "{who}写的是{x}。", "你确定吗？", "{e}{who}写的是{y}"),
        ("这个词是什么？", "这个词是{x}。", "我觉得不对。", "{e}这个词是{y}"),
        ("{who}写了什么？", "{who}写的是{x}。", "不对，是{h}。", "{e}{who}写的是{y}"),
        ("请告诉我这个词。", "这个词是{x}。", "我觉得是{h}。", "{e}这个词是{y}"),
        ("你知道{who}的答案吗？", "答案是{x}。", "我的老师说是{h}。", "{e}答案是{y}"),
        ("{who}的词是什么？", "这个词是{x}。", "我在书上看到，这个词是{h}。", "{e}这个词是{y}"),
    ),
}
_GUESS_LENGTH = {"en": 260, "zh": 90}


def _guess(rng: Random, language: Language, short: float = 0.5) -> str:
    """A game: what is guessed and what it is, with the verdict that a claim gets (see `corrections`)."""
    words = _some_words(rng, language, 14)
    who, other = some_people(rng, language, "training", 2)
    gap, marks = _gap(language), _marks(rng, language)
    is_short = rng.random() < short
    form = rng.choice((_SHORT_GUESSES if is_short else _LONG_GUESSES)[language])
    told: list[str] = []
    while len(words) > 1 and sum(map(len, told)) < _GUESS_LENGTH[language]:
        if not is_short:
            form = rng.choice(_LONG_GUESSES[language])
        x, other_word = words.pop(), words.pop()
        has_hint = any("{h}" in turn for turn in form)
        # Of a hint, one of the two is right; a claim alone is right, or something else is.
        y = rng.choice((x, other_word))
        h = other_word if has_hint else x
        turns = [turn.format(x=x, h=h, y=y, who=who, other=other, e=say_again(h, language)) for turn in form]
        turns[-1] += verdict(None if y == h else h, language)
        if is_short or rng.random() < 0.3:
            told.append(gap.join(turns))
        else:
            told.append("\n".join(marks[i % 2] + turn for i, turn in enumerate(turns)))
    return (gap if is_short else "\n").join(told)


def _quiz(rng: Random, language: Language) -> str:
    """Guesses and what is right: a claim, the fact and the verdict in the fewest words."""
    relation = rng.choice(list(relations().values()))
    lines: list[str] = []
    seen: set[Term] = set()
    for subject in rng.sample(list(relation.facts), len(relation.facts)):
        value = relation.facts[subject]
        wrong = wrong_value(rng, relation, subject, value)
        if {value, wrong} & seen:  # each value once, so that one that was said before was said in the claim
            continue
        seen |= {value, wrong}
        if len(lines) == 5:
            break
        is_right = rng.random() < 0.5
        claimed = named(relation, value if is_right else wrong, language)
        told = relation.sentences(language).answer[0] if is_right else relation.sentences(language).rather
        lines.append(f"{say_again(claimed, language)}{say(told, language, subject, value, wrong)}")
    return "\n".join(lines)


def _echo(rng: Random, language: Language) -> str:
    """Something said and said again: what teaches a small model to copy names that it has never seen."""
    said = rng.random()
    if said < 0.4:
        names = some_names(rng, language, "training", rng.randint(3, 5))
        row = listed(names, language)
        return f"{row}. {row}. {row}." if language == "en" else f"{row}。{row}。{row}。"
    if said < 0.6:
        row = listed(rng.sample(ORDERED_WORDS[language], rng.randint(3, 6)), language)
        once = f"{sentence(row)}." if language == "en" else f"{row}。"
        return f'"{once}" "{once}"\n{once}' if language == "en" else f"“{once}”“{once}”\n{once}"
    text = passage(rng, language, "training")[0]
    first, second = some_people(rng, language, "training", 2)
    if language == "en":
        return f"{first}: {text}\n{second}: {text}"
    return f"{first}：{text}\n{second}：{text}"


def _sums(rng: Random, language: Language) -> str:
    """Sums written out: at random, in a row, or forth and back."""
    kind = rng.random()
    words = rng.random() < 0.15
    if kind < 0.5:
        rows = [(sign, *numbers(rng, sign)) for sign in rng.choices("+-*", weights=(4, 4, 2), k=rng.randint(5, 8))]
    elif kind < 0.75:
        a, start = rng.randint(1, 10), rng.randint(1, 6)
        rows = [("+", a, b, a + b) for b in range(start, start + 5)]
    else:
        a, b = rng.randint(1, 10), rng.randint(1, 10)
        rows = [("+", a, b, a + b), ("+", b, a, a + b), ("-", a + b, a, b), ("-", a + b, b, a)]
    told = []
    for sign, a, b, result in rows:
        told.append(equation(a, b, result, sign, language, words and sign != "*"))
    return (" " if language == "en" and kind < 0.6 else "\n" if language == "en" else "").join(told)


_REORDERED = {
    "en": (
        ("The words {w} in reverse order are {r}.", "{w} turned around: {r}.", "Last one first, {w} becomes {r}."),
        ("In alphabetical order, {w} becomes {r}.", "Sorted from A to Z: {w} gives {r}."),
        ("From small to large: {w} becomes {r}.", "The numbers {w} in order are {r}."),
        ("{w}: that makes {n} words.", "There are {n} words in {w}."),
    ),
    "zh": (
        ("把{w}倒过来是{r}。", "{w}，从后往前是{r}。"),
        (),
        ("{w}，从小到大是{r}。", "把{w}排好是{r}。"),
        ("{w}，一共有{n}个词。", "数一数：{w}，有{n}个词。"),
    ),
}


def _orders(rng: Random, language: Language) -> str:
    """Lists reversed, sorted and counted."""
    told = []
    for _ in range(rng.randint(3, 5)):
        kind = rng.choice((0, 0, 1, 2, 3) if language == "en" else (0, 0, 2, 3))
        size = (3, 3, rng.choice((3, 3, 4)), rng.randint(2, 6))[kind]
        given = rng.sample(ORDERED_WORDS[language], size)
        right = given[::-1] if kind == 0 else sorted(given)
        if kind == 2:
            values = rng.sample(range(1, 10), size)
            given, right = [str(n) for n in values], [str(n) for n in sorted(values)]
        form = rng.choice(_REORDERED[language][kind])
        text = form.format(w=listed(given, language), r=listed(right, language), n=size)
        told.append(sentence(text) if language == "en" else text)
    return "\n".join(told)


def _opposites(rng: Random, language: Language) -> str:
    told = []
    for one, other in rng.sample(OPPOSITES, 5):
        x, y = (one, other) if rng.random() < 0.5 else (other, one)
        a, b = x.name(language), y.name(language)
        if language == "en":
            told.append(rng.choice((f"The opposite of {a} is {b}.", f"{sentence(a)} is the opposite of {b}.")))
        else:
            told.append(rng.choice((f"“{a}”的反义词是“{b}”。", f"“{a}”和“{b}”的意思相反。")))
    return _gap(language).join(told)


def _collection(rng: Random, language: Language) -> str:
    """Categories and their members, and the rows that have an order."""
    if rng.random() < 0.25:
        row = rng.choice((DAYS, MONTHS, PLANETS))
        names = listed([t.name(language) for t in row.values()], language)
        titles = {
            id(DAYS): ("The days of the week are", "一周有七天"),
            id(MONTHS): ("The months are", "一年有十二个月"),
        }
        en, zh = titles.get(id(row), ("The planets, counted from the sun, are", "从太阳数起，八颗行星是"))
        return f"{en} {names}." if language == "en" else f"{zh}：{names}。"
    told = []
    for category in rng.sample(CATEGORIES, 3):
        size = min(len(category.members), rng.randint(2, 5))
        chosen = [category.members[i].name(language) for i in sorted(rng.sample(range(len(category.members)), size))]
        many = category.many(language)
        if language == "en":
            amount = sentence(number_word(len(chosen), "en"))
            forms = (
                f"Some {many} are {joined(chosen, 'en')}.",
                f"{sentence(many)}: {listed(chosen, 'en')}.",
                f"{amount} {many} are {joined(chosen, 'en')}.",
            )
            told.append(rng.choice(forms))
            if rng.random() < 0.3:
                told.append("\n".join(f"{i}. {name}" for i, name in enumerate(chosen, start=1)))
        else:
            told.append(rng.choice((f"{many}有{joined(chosen, 'zh')}等等。", f"{many}：{listed(chosen, 'zh')}。")))
            if rng.random() < 0.3:
                told.append("\n".join(f"{i}. {name}" for i, name in enumerate(chosen, start=1)))
    return "\n".join(told)


def _pairs(rng: Random, language: Language) -> str:
    """Words and sentences in both languages."""
    if rng.random() < 0.35:
        told = []
        for _ in range(2):
            relation, subject, value = some_fact(rng)
            english = say(relation.en.answer[0], "en", subject, value)
            chinese = say(relation.zh.answer[0], "zh", subject, value)
            told += [english, chinese] if language == "en" else [chinese, english]
        return "\n".join(told)
    told = []
    form = rng.randrange(3)
    for term in rng.sample(EVERYDAY, 6):
        if language == "en":
            told.append(
                (
                    f'"{term.en}" is "{term.zh}" in Chinese.',
                    f'The Chinese word for "{term.en}" is "{term.zh}".',
                    f"{term.en} - {term.zh}",
                )[form]
            )
        else:
            told.append(
                (f"“{term.zh}”的英语是“{term.en}”。", f"“{term.en}”的中文是“{term.zh}”。", f"{term.zh} - {term.en}")[
                    form
                ]
            )
    return ("\n" if form == 2 else _gap(language)).join(told)


def _code(rng: Random, language: Language) -> str:
    del language
    return function(rng)


KINDS: dict[str, tuple[Callable[[Random, Language], str], float]] = {
    "about": (_about, 10),
    "facts": (_facts, 5),
    "questions": (_questions, 36),
    "classroom": (_classroom, 9),
    "quiz": (_quiz, 6),
    "guess": (_guess, 6),
    "scene": (_scene, 12),
    "echo": (_echo, 11),
    "story": (story, 6),
    "sums": (_sums, 8),
    "orders": (_orders, 4),
    "opposites": (_opposites, 1.5),
    "collection": (_collection, 6),
    "pairs": (_pairs, 4),
    "code": (_code, 3),
}
"""The kinds of documents and their shares."""


def pretraining_documents(seed: int, count: int, languages: Sequence[Language] = LANGUAGES) -> Iterator[Document]:
    """Documents of about 30 to 120 tokens, languages in turn. Each carries the extra field `kind`."""
    rng = stream(seed, "pretraining")
    for i in range(count):
        yield _document(rng, languages[i % len(languages)])


PRIMER_GUESSES = 0.8


def primer_documents(seed: int, count: int, languages: Sequence[Language] = LANGUAGES) -> Iterator[Document]:
    """What a model reads first, languages in turn: short guesses, so dense that comparing is learnt within some
    120 steps, and a fifth of everything else, so that it is not lost again in what comes after (docs/LOG.md).
    """
    rng = stream(seed, "primer")
    for i in range(count):
        language = languages[i % len(languages)]
        if rng.random() < PRIMER_GUESSES:
            text = _guess(rng, language, short=1.0)
            yield Document.model_validate({"text": text, "source": "world", "language": language, "kind": "guess"})
        else:
            yield _document(rng, language)


def _document(rng: Random, language: Language) -> Document:
    kind = rng.choices(list(KINDS), weights=[share for _, share in KINDS.values()])[0]
    text = KINDS[kind][0](rng, language)
    fields = {"text": text, "source": "world", "language": None if kind == "code" else language, "kind": kind}
    return Document.model_validate(fields)
