"""Lists of things in the form that was asked for."""

from __future__ import annotations

from random import Random

from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.terms import Term, joined, number_word, sentence, with_article
from chatwheel.data.world.vocabulary import CATEGORIES, Category

_ASK: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "plain": ("Name {n} {k}.", "List {n} {k}.", "Can you name {n} {k}?", "Tell me {n} {k}.", "I need {n} {k}."),
        "comma": ("Name {n} {k}, separated by commas.", "Give me {n} {k} with commas between them."),
        "numbered": ("Give me {n} {k} as a numbered list.", "Write a numbered list of {n} {k}."),
        "bullets": ("Give me {n} {k} as a list with dashes.", "List {n} {k}, each on its own line with a dash."),
        "one": ("Name {one} in one word.", "Give me {one}. Just one word, please."),
    },
    "zh": {
        "plain": ("说出{n}{k}。", "请举{n}{k}的例子。", "你能说{n}{k}吗？", "告诉我{n}{k}。", "我想知道{n}{k}。"),
        "comma": ("说出{n}{k}，用逗号隔开。", "给我{n}{k}，中间用逗号。"),
        "numbered": ("请用编号列出{n}{k}。", "写一个有编号的列表，列出{n}{k}。"),
        "bullets": ("请分行列出{n}{k}，每行用短横开头。", "列出{n}{k}，一行一个，前面加短横。"),
        "one": ("用一个词说出{n}{k}。", "说{n}{k}，只要一个词。"),
    },
}
_FORMS = ("plain", "comma", "numbered", "bullets", "one")
_WEIGHTS = (9, 4, 4, 3, 3)


def _amount(category: Category, n: int, language: Language) -> str:
    if language == "en":
        return number_word(n, "en")
    return ("两" if n == 2 else number_word(n, "zh")) + category.measure


def arrange(names: list[str], form: str, language: Language) -> str:
    """The names in the form asked for."""
    if form == "numbered":
        return "\n".join(f"{i}. {name}" for i, name in enumerate(names, start=1))
    if form == "bullets":
        return "\n".join(f"- {name}" for name in names)
    stop = "." if language == "en" else "。"
    if form == "comma":
        text = (", " if language == "en" else "，").join(names)
        return (sentence(text) if language == "en" else text) + stop
    text = joined(names, language)
    return (sentence(text) if language == "en" else text) + stop


def _answers(category: Category, names: list[str], form: str, n: int, language: Language) -> tuple[str, ...]:
    bare = arrange(names, form, language)
    if form != "plain":
        return (bare,)
    listed = joined(names, language)
    amount = _amount(category, n, language)
    if language == "en":
        return (f"{sentence(amount)} {category.many(language)} are {listed}.", f"Here are {amount}: {listed}.")
    return (f"{amount}{category.zh}：{listed}。", f"比如{listed}。")


def draft_list(rng: Random, language: Language, split: Split) -> Draft:
    """A list of two to four members of a category."""
    del split
    category = rng.choice(CATEGORIES)
    form = rng.choices(_FORMS, weights=_WEIGHTS)[0]
    n = 1 if form == "one" else rng.choice((2, 3, 3, 4) if len(category.members) > 3 else (2, 3))
    forms = _ASK[language][form]
    number = rng.randrange(len(forms))
    asked = forms[number].format(
        n=_amount(category, n, language), k=category.many(language), one=with_article(category.en)
    )
    # In the category's own order: what comes next is then easier to learn than any order at all.
    chosen = sorted(rng.sample(range(len(category.members)), n))
    names = [category.members[i].name(language) for i in chosen]
    full = _answers(category, names, form, n, language)
    other = rng.choice([c for c in CATEGORIES if not set(c.members) & set(category.members)])
    strangers = [m.name(language) for m in rng.sample(other.members, min(n, len(other.members)))]
    truth = {
        "kind": "list",
        "members": [_shown(m, language) for m in category.members],
        "count": n,
        "form": form,
    }
    entities = (category.en, str(n))
    item = make_item("lists", language, f"{form}.{number}", entities, turns(asked), rng.choice(full), truth)
    short = arrange(names, "comma" if form == "plain" else form, language)
    return Draft(item, full, short, (arrange(strangers, form, language),), plain=form in ("one", "comma"))


def _shown(member: Term, language: Language) -> list[str]:
    return member.forms(language)
