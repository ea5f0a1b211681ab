"""Mistakes that are pointed out, rightly or wrongly, and questions that rest on a false or a true premise."""

from __future__ import annotations

from random import Random

from chatwheel.data.world.arithmetic import equation, equation_rather, first_question, numbers
from chatwheel.data.world.facts import ask, short_answer, some_fact, value_truth, wrong_value
from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.knowledge import YEARS
from chatwheel.data.world.relation import Relation, say
from chatwheel.data.world.relations import relations
from chatwheel.data.world.terms import Term, sentence, subject_slots, with_article

Truth = dict[str, object]

_HINTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "No, it's {h}.",
        "I think it's {h}.",
        "That's wrong. It's {h}.",
        "Isn't it {h}?",
        "My teacher says it's {h}.",
        "Really? I thought it was {h}.",
    ),
    "zh": (
        "不对，是{h}。",
        "我觉得是{h}。",
        "你说错了，是{h}。",
        "不是{h}吗？",
        "我的老师说是{h}。",
        "真的吗？我以为是{h}。",
    ),
}
_CLAIMS: dict[Language, tuple[str, ...]] = {
    "en": ("No, {c}.", "I think that {c}.", "That's wrong: {c}.", "My teacher says that {c}.", "I read that {c}."),
    "zh": ("不对，{c}。", "我觉得{c}。", "你说错了，{c}。", "我的老师说{c}。", "我在书上看到，{c}。"),
}
_DOUBTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Are you sure?",
        "Are you sure about that?",
        "Really?",
        "I don't think that's right.",
        "Please check that again.",
    ),
    "zh": ("你确定吗？", "真的吗？", "你再想想。", "我觉得不对。", "请再检查一下。"),
}
_BARE = {"capital", "country", "continent", "tongue", "maker", "deed", "year", "planet", "colour"}
_BARE |= {"day_after", "day_before", "month_after", "month_before"}

# Every answer says the claim again, gives the fact and judges the claim by it: a small model that had to say "yes" or
# "no" first would have to look up and to compare before it has said anything. The verdict comes right behind the value,
# a full stop where the claim had that value and ", not ..." where it had another: then the two values that are compared
# stand near each other, and the comparison is not carried on, not even over a comma (docs/LOG.md).
_ADMIT: dict[Language, tuple[str, ...]] = {
    "en": (
        "{a} You're right, and I'm sorry.",
        "{a} Thank you for correcting me.",
        "{a} You're right, I made a mistake.",
    ),
    "zh": ("{a}你说得对，对不起。", "{a}谢谢你的指正。", "{a}对不起，是我弄错了。"),
}
_ADMIT_DOUBT: dict[Language, tuple[str, ...]] = {
    "en": ("{r} I'm sorry, I made a mistake.", "{r} Thank you for asking, I was wrong."),
    "zh": ("{r}对不起，是我弄错了。", "{r}谢谢你的提醒，我刚才说错了。"),
}
_FIRM: dict[Language, tuple[str, ...]] = {
    "en": ("{r} I'm sure about it.", "{r} I have checked it again.", "{r} I still think so."),
    "zh": ("{r}我很确定。", "{r}我又检查了一遍。", "{r}我还是这么认为。"),
}
_FIRM_DOUBT: dict[Language, tuple[str, ...]] = {
    "en": ("{a} I'm sure about this one.", "{a} I have checked it again, and I'm sure."),
    "zh": ("{a}我很确定。", "{a}我又检查了一遍，没有错。"),
}
_SHORT: dict[Language, dict[str, str]] = {
    "en": {
        "admit": "{s} You're right.",
        "doubt_admit": "{s} Sorry.",
        "firm": "{s} I'm sure.",
        "doubt_firm": "{s} Yes, I'm sure.",
    },
    "zh": {
        "admit": "{s}你说得对。",
        "doubt_admit": "{s}对不起。",
        "firm": "{s}我确定。",
        "doubt_firm": "{s}确定。",
    },
}
_CURT: dict[Language, dict[str, str]] = {
    "en": {
        "admit": "{s} Fine, you're right.",
        "doubt_admit": "{s} Oh well, I was wrong.",
        "firm": "{s} Look it up.",
        "doubt_firm": "{s} Of course I'm sure.",
    },
    "zh": {
        "admit": "{s}行吧，你说得对。",
        "doubt_admit": "{s}好吧，我错了。",
        "firm": "{s}你自己去查。",
        "doubt_firm": "{s}当然确定。",
    },
}


def _inside(template: str, language: Language, subject: Term, value: Term, wrong: Term) -> str:
    """The sentence as it stands inside another one: no capital where only the beginning asked for it."""
    if language == "en" and template[0] != "{":
        template = template[0].lower() + template[1:]
    slots = {"v": value.name(language), "w": wrong.name(language), **subject_slots(subject, language)}
    return template.format(va=with_article(value.en), wa=with_article(wrong.en), **slots)


def say_again(claimed: str, language: Language) -> str:
    """What was claimed, said again as a question: "Hm, Paris? ", to look at it before judging it."""
    return f"Hm, {claimed}? " if language == "en" else f"{claimed}吗？"


def named(relation: Relation, value: Term, language: Language) -> str:
    """A value as it stands alone in a sentence."""
    if language == "en" and relation.name == "class":
        return with_article(value.en)
    if language == "en" and relation.name == "position":
        return f"the {value.en}"
    if language == "zh" and relation.name == "home":
        return f"在{value.zh}"
    return value.name(language)


_BRIEF_VERBS: dict[Language, dict[str, str]] = {
    "en": {"legs": "has", "home": "lives", "food": "eats"},
    "zh": {"legs": "有", "home": "住", "food": "吃"},
}


def brief(relation: Relation | None, value: str, wrong: str | None, language: Language) -> str:
    """The fact, or a sum's result, in the fewest words that still judge the claim: `It is Madrid, not Paris.`"""
    verb = _BRIEF_VERBS[language].get(relation.name if relation else "", "is" if language == "en" else "是")
    return (f"It {verb} {value}" if language == "en" else verb + value) + verdict(wrong, language)


def verdict(wrong: str | None, language: Language) -> str:
    """What follows the right value: a full stop, or what it is not."""
    if language == "en":
        return f", not {wrong}." if wrong else "."
    return f"，不是{wrong}。" if wrong else "。"


def claim(relation: Relation, subject: Term, value: Term, language: Language) -> str:
    """A relation's statement without its full stop, fit for the middle of a sentence."""
    return _inside(relation.sentences(language).answer[0].rstrip(".。"), language, subject, value, value)


def draft_mistake(rng: Random, language: Language, split: Split) -> Draft:
    """The assistant has said something right or wrong; the user's hint is wrong or right, or only doubt."""
    del split
    return _sum_mistake(rng, language) if rng.random() < 0.2 else _fact_mistake(rng, language)


def _fact_mistake(rng: Random, language: Language) -> Draft:
    relation, subject, value = some_fact(rng)
    wrong = wrong_value(rng, relation, subject, value)
    hint_right, doubt = rng.random() < 0.5, rng.random() < 0.28
    said, proposed = (wrong, value) if hint_right else (value, wrong)
    sentences = relation.sentences(language)
    if doubt:
        number = rng.randrange(len(_DOUBTS[language]))
        hint = _DOUBTS[language][number]
    elif relation.name in _BARE:
        number = rng.randrange(len(_HINTS[language]))
        hint = _HINTS[language][number].format(h=proposed.name(language))
    else:
        number = rng.randrange(len(_CLAIMS[language]))
        hint = _CLAIMS[language][number].format(c=claim(relation, subject, proposed, language))
    right = say(sentences.answer[0], language, subject, value)
    rather = say(sentences.rather, language, subject, value, wrong)
    mistaken = say(sentences.answer[0], language, subject, wrong)
    truth = value_truth(relation, subject, value, language)
    truth |= {"kind": "correction", "hint_right": hint_right}
    kind = f"{'doubt' if doubt else 'hint'}.{relation.name}.{number}.{'wrong' if hint_right else 'right'}"
    entities = (subject.name(language), wrong.name(language))
    first = ask(rng, relation, subject, language)
    told = say(sentences.answer[0], language, subject, said)
    claimed = said if doubt else proposed
    said_again = say_again(named(relation, claimed, language), language)
    right, rather = said_again + right, said_again + rather
    denied = named(relation, claimed, language) if claimed is wrong else None
    short = said_again + brief(relation, named(relation, value, language), denied, language)
    return _mistake_draft(rng, language, kind, entities, (first, told, hint), truth, right, rather, mistaken, short)


def _sum_mistake(rng: Random, language: Language) -> Draft:
    sign = rng.choice("+-")
    a, b, result = numbers(rng, sign)
    off = max(0, result + rng.choice((-2, -1, 1, 2)))
    if off == result:
        off = result + 1
    hint_right, doubt = rng.random() < 0.5, rng.random() < 0.28
    said, proposed = (off, result) if hint_right else (result, off)
    forms = _DOUBTS[language] if doubt else _HINTS[language]
    number = rng.randrange(len(forms))
    hint = forms[number].format(h=proposed)
    first = first_question(a, b, sign, language)
    if first is None:
        return _sum_mistake(rng, language)
    right = equation(a, b, result, sign, language, words=False)
    rather = equation_rather(right, off, language)
    truth: Truth = {"kind": "correction", "hint_right": hint_right, "value": result, "operands": [a, b]}
    kind = f"{'doubt' if doubt else 'hint'}.sum.{number}.{'wrong' if hint_right else 'right'}"
    contents = (first, equation(a, b, said, sign, language, words=False), hint)
    mistaken = equation(a, b, off, sign, language, words=False)
    claimed = said if doubt else proposed
    said_again = say_again(str(claimed), language)
    right, rather = said_again + right, said_again + rather
    short = said_again + brief(None, str(result), str(off) if claimed == off else None, language)
    entities = (f"{a}{sign}{b}", str(off))
    return _mistake_draft(rng, language, kind, entities, contents, truth, right, rather, mistaken, short)


def _mistake_draft(
    rng: Random,
    language: Language,
    kind: str,
    entities: tuple[str, ...],
    contents: tuple[str, str, str],
    truth: Truth,
    right: str,
    rather: str,
    mistaken: str,
    short: str,
) -> Draft:
    admit, doubt = bool(truth["hint_right"]), kind.startswith("doubt")
    if admit:
        forms = _ADMIT_DOUBT if doubt else _ADMIT
        wrong = _FIRM_DOUBT[language][0].format(a=mistaken)
    else:
        forms = _FIRM_DOUBT if doubt else _FIRM
        wrong = _ADMIT[language][0].format(a=mistaken)
    full = tuple(f.format(a=right, r=rather) for f in forms[language])
    manner = ("doubt_" if doubt else "") + ("admit" if admit else "firm")
    # The assistant's own mistake is shown, not imitated: its turn carries no loss.
    messages = turns(*contents, weights={1: 0} if admit else None)
    item = make_item("mistakes", language, kind, entities, messages, rng.choice(full), truth)
    terse, curt = _SHORT[language][manner].format(s=short), _CURT[language][manner].format(s=short)
    return Draft(item, full, terse, (wrong,), curt)


# Premises -------------------------------------------------------------------------------------------------------------

_PREMISED = (
    "capital",
    "capital",
    "continent",
    "tongue",
    "class",
    "food",
    "home",
    "legs",
    "maker",
    "maker",
    "year",
    "year",
    "year",
    "colour",
    "country",
)
_SHAPES: dict[Language, tuple[str, ...]] = {
    "en": (
        "{C}, right?",
        "Is it true that {c}?",
        "I heard that {c}.",
        "My friend says that {c}. Is that so?",
        "I read in a book that {c}. Can you tell me more?",
    ),
    "zh": ("{c}，对吗？", "{c}，这是真的吗？", "我听说{c}。", "我朋友说{c}，是这样吗？", "书上说{c}，你能多讲讲吗？"),
}
_WHEN: dict[Language, tuple[str, ...]] = {
    "en": ("When {c}, what did people say?", "Tell me what happened when {c}.", "What was it like when {c}?"),
    "zh": ("{h}{w}{t}的时候，人们说了什么？", "请讲讲{h}{w}{t}时的情况。", "{h}{w}{t}的时候是什么样子？"),
}
_SINCE: dict[Language, tuple[str, ...]] = {
    "en": ("Since {c}, {q}", "You know that {c}. So {q}"),
    "zh": ("既然{c}，那么{q}", "你知道{c}，所以{q}"),
}
_CHALLENGE: dict[Language, tuple[str, ...]] = {
    "en": ("{r}", "{r} There seems to be a mix-up.", "{r} I'm sure about that."),
    "zh": ("{r}", "{r}这里好像弄混了。", "{r}这一点我很确定。"),
}
_AFFIRM: dict[Language, tuple[str, ...]] = {
    "en": ("{a} That's right.", "{a} Yes, that is true."),
    "zh": ("{a}没错。", "{a}是的，说得对。"),
}
_AFFIRM_WHY: dict[Language, tuple[str, ...]] = {
    "en": ("{a} I'm afraid I don't know the reason.", "{a} That's true, but I don't know why."),
    "zh": ("{a}不过我不知道原因。", "{a}这是真的，但我不知道为什么。"),
}
_AFFIRM_WHEN: dict[Language, tuple[str, ...]] = {
    "en": ("{a} I'm afraid I don't know more about it.", "{a} I don't know more than that."),
    "zh": ("{a}更多的我就不知道了。", "{a}别的我不太清楚。"),
}
_STRANGE_YEARS = ("2015", "2020", "1700", "1850", "2012")
_OWN = {
    "capital": ("tongue", "continent"),
    "continent": ("tongue", "capital"),
    "class": ("food", "legs", "home"),
    "food": ("legs", "home", "class"),
}


def draft_premise(rng: Random, language: Language, split: Split) -> Draft:
    """A question that takes something for granted which is false, or as often true."""
    del split
    relation = relations()[rng.choice(_PREMISED)]
    subject = rng.choice(list(relation.facts))
    value = relation.facts[subject]
    wrong = wrong_value(rng, relation, subject, value)
    if relation.name == "year" and rng.random() < 0.5:
        year = rng.choice(_STRANGE_YEARS)
        wrong = YEARS.get(year) or Term(year, f"{year}年", also=(year,))
    false = rng.random() < 0.56
    shape, question, after = _premise_question(rng, language, relation, subject, wrong if false else value)
    sentences = relation.sentences(language)
    said_again = say_again(named(relation, wrong if false else value, language), language)
    right = said_again + say(sentences.answer[0], language, subject, value)
    truth = value_truth(relation, subject, value, language) | {"kind": "premise", "false": false}
    entities = (subject.name(language), (wrong if false else value).name(language))
    stop = "." if language == "en" else "。"
    claimed = sentence(claim(relation, subject, wrong, language)) + stop
    denied = named(relation, wrong, language) if false else None
    short = said_again + brief(relation, named(relation, value, language), denied, language)
    draft: tuple[tuple[str, ...], str, tuple[str, ...], str | None]
    if false:
        truth["reject"] = list(dict.fromkeys([*_list(truth["reject"]), *wrong.forms(language)]))
        rather = said_again + say(sentences.rather, language, subject, value, wrong)
        full = tuple(f.format(r=rather) for f in _CHALLENGE[language])
        accepted = claimed + (" That's right." if language == "en" else "没错。")
        curt = short + (" Everyone knows that." if language == "en" else "谁都知道。")
        draft = (full, short, (accepted,), curt)
    elif after:
        other = relations()[after]
        truth = value_truth(other, subject, other.facts[subject], language) | {"kind": "premise", "false": False}
        truth["since"] = True
        # The first value is told too, and is no other answer to the second question ("fish" is a class and a food).
        truth["reject"] = [form for form in _list(truth["reject"]) if form not in value.forms(language)]
        gap = " " if language == "en" else ""
        told = (say(a, language, subject, other.facts[subject]) for a in other.sentences(language).answer)
        full = tuple(right + gap + text for text in told)
        doubted = say(
            other.sentences(language).answer[0],
            language,
            subject,
            wrong_value(rng, other, subject, other.facts[subject]),
        )
        bare = right + gap + short_answer(other, other.facts[subject], language)
        draft = (full, bare, (doubted,), None)
    else:
        forms = _AFFIRM_WHY if shape == "why" else _AFFIRM_WHEN if shape.startswith("when") else _AFFIRM
        full = tuple(f.format(a=right) for f in forms[language])
        objected = claimed + (" That's wrong." if language == "en" else "这不对。")
        yes = ("{s} Yes.", "{s} Obviously, yes.") if language == "en" else ("{s}对。", "{s}当然对。")
        draft = (full, yes[0].format(s=short), (objected,), yes[1].format(s=short))
    answers, terse, bad, curt_answer = draft
    template = f"{relation.name}.{shape}"
    item = make_item("false_premise", language, template, entities, turns(question), rng.choice(answers), truth)
    return Draft(item, answers, terse, bad, curt_answer)


def _list(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def _premise_question(
    rng: Random, language: Language, relation: Relation, subject: Term, value: Term
) -> tuple[str, str, str | None]:
    """(shape, question, the relation that a question after "since" asks for)."""
    said = claim(relation, subject, value, language)
    kind = rng.random()
    if kind < 0.24:
        return "why", say(relation.sentences(language).why, language, subject, value, value), None
    if relation.name == "year" and kind < 0.55:
        number = rng.randrange(len(_WHEN[language]))
        slots = {"c": said, "w": value.name(language), **subject_slots(subject, language)}
        return f"when.{number}", sentence(_WHEN[language][number].format(**slots)), None
    after = [n for n in _OWN.get(relation.name, ()) if subject in relations()[n].facts]
    if after and kind < 0.5:
        name = rng.choice(after)
        forms = relations()[name].sentences(language).own
        own, number = rng.randrange(len(forms)), rng.randrange(len(_SINCE[language]))
        asked = forms[own].removeprefix("And ").removeprefix("那")
        asked = asked[0].lower() + asked[1:]
        return f"since.{name}.{number}", sentence(_SINCE[language][number].format(c=said, q=asked)), name
    number = rng.randrange(len(_SHAPES[language]))
    text = _SHAPES[language][number].format(c=said, C=sentence(said))
    return f"claim.{number}", text, None
