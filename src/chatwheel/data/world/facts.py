"""Questions about facts, and follow-ups that make no sense without the turns before them."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from chatwheel.data.world.arithmetic import first_question
from chatwheel.data.world.items import Draft, Language, Split, held_out, make_item, turns
from chatwheel.data.world.knowledge import COUNTRIES
from chatwheel.data.world.relation import Relation, say
from chatwheel.data.world.relations import false_values, relations
from chatwheel.data.world.terms import Term, fill

Truth = dict[str, object]

_WEIGHTS = {
    "capital": 40,
    "country": 18,
    "continent": 28,
    "tongue": 28,
    "class": 26,
    "food": 26,
    "home": 22,
    "legs": 16,
    "maker": 20,
    "deed": 14,
    "year": 24,
    "position": 12,
    "planet": 14,
    "colour": 22,
    "day_after": 9,
    "day_before": 9,
    "month_after": 10,
    "month_before": 10,
}
CASUAL = 0.08
"""How often a stranger types without capitals and punctuation."""


def some_fact(rng: Random) -> tuple[Relation, Term, Term]:
    """A relation, a subject and the true value."""
    name = rng.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
    relation = relations()[name]
    subject, value = rng.choice(list(relation.facts.items()))
    return relation, subject, value


def wrong_value(rng: Random, relation: Relation, subject: Term, value: Term) -> Term:
    """Another value of the same relation, one that is surely false."""
    return rng.choice([v for v in false_values(relation, subject) if v is not value and v is not subject])


@lru_cache(maxsize=8192)
def _value_truth(name: str, subject: Term, value: Term, language: Language) -> tuple[tuple[str, ...], ...]:
    accept = value.forms(language)
    others = [f for v in relations()[name].candidates() if v is not value for f in v.forms(language)]
    echo = subject.forms(language)
    return tuple(accept), tuple(f for f in dict.fromkeys(others) if f not in accept), tuple(echo)


def value_truth(relation: Relation, subject: Term, value: Term, language: Language) -> Truth:
    """What a judge needs: the spellings of the right value, of all others, and of the subject."""
    accept, reject, echo = _value_truth(relation.name, subject, value, language)
    return {
        "kind": "value",
        "accept": list(accept),
        "reject": list(reject),
        "echo": list(echo),
        "relation": relation.name,
    }


def fragment(text: str, language: Language) -> str:
    """A bare answer: the words with a capital letter and a full stop."""
    return (text[:1].upper() + text[1:] + ".") if language == "en" else f"{text}。"


def short_answer(relation: Relation, value: Term, language: Language) -> str:
    """The value alone."""
    name = value.name(language)
    if language == "zh" and relation.name == "position":
        name += "行星"
    if language == "en" and relation.name in {"class", "position"}:
        name = f"the {name}" if relation.name == "position" else f"a{'n' if name[0] in 'aei' else ''} {name}"
    return fragment(name, language)


def casual(text: str, language: Language) -> str:
    """How people type in a hurry."""
    return text.lower().rstrip("?.") if language == "en" else text.rstrip("？。")


def ask(rng: Random, relation: Relation, subject: Term, language: Language) -> str:
    """A question that may stand in training: none of the held-out combinations."""
    forms = relation.sentences(language).ask
    name = subject.name(language)
    free = [i for i in range(len(forms)) if not held_out(f"{language}/facts/{relation.name}.{i}", (name,))]
    return fill(forms[rng.choice(free or [0])], language, subject)


def tell(rng: Random, relation: Relation, subject: Term, value: Term, language: Language) -> str:
    """A plain statement of a fact, as an assistant says it."""
    return say(rng.choice(relation.sentences(language).answer), language, subject, value)


def draft_fact(rng: Random, language: Language, split: Split) -> Draft:
    """A question about one fact."""
    del split
    relation, subject, value = some_fact(rng)
    forms = relation.sentences(language).ask
    number = rng.randrange(len(forms))
    question, template = fill(forms[number], language, subject), f"{relation.name}.{number}"
    if rng.random() < CASUAL:
        question = casual(question, language)
    return _answered("facts", language, template, (subject.name(language),), (question,), relation, subject, value, rng)


def _answered(
    behaviour: str,
    language: Language,
    template: str,
    entities: tuple[str, ...],
    contents: tuple[str, ...],
    relation: Relation,
    subject: Term,
    value: Term,
    rng: Random,
) -> Draft:
    answers = relation.sentences(language).answer
    full = tuple(say(a, language, subject, value) for a in answers)
    wrong = say(answers[0], language, subject, wrong_value(rng, relation, subject, value))
    truth = value_truth(relation, subject, value, language)
    item = make_item(behaviour, language, template, entities, turns(*contents), rng.choice(full), truth)
    return Draft(item, full, short_answer(relation, value, language), (wrong,))


# Follow-ups -----------------------------------------------------------------------------------------------------------

_TOPICS = {
    "country": ("capital", "continent", "tongue"),
    "animal": ("class", "food", "home", "legs"),
}
_AGAIN = (
    "capital",
    "continent",
    "tongue",
    "class",
    "food",
    "home",
    "legs",
    "colour",
    "maker",
    "position",
    "country",
    "day_after",
    "month_after",
)
_SUMS = {
    "en": (("And plus {n}?", 1), ("Now add {n}.", 1), ("And minus {n}?", -1), ("Now take away {n}.", -1)),
    "zh": (("再加{n}呢？", 1), ("那再加上{n}是多少？", 1), ("再减{n}呢？", -1), ("那再减去{n}是多少？", -1)),
}


def draft_follow_up(rng: Random, language: Language, split: Split) -> Draft:
    """Two or three turns; the last one leans on those before it."""
    del split
    kind = rng.random()
    if kind < 0.36:
        return _same_question(rng, language)
    if kind < 0.68:
        return _same_subject(rng, language)
    if kind < 0.84:
        return _chain(rng, language)
    return _running_sum(rng, language)


def _same_question(rng: Random, language: Language) -> Draft:
    relation = relations()[rng.choice(_AGAIN)]
    first = rng.choice(list(relation.facts))
    others = [s for s in relation.facts if s is not first and dict(s.slots).get("did") == dict(first.slots).get("did")]
    if not others:
        return _same_question(rng, language)
    second = rng.choice(others)
    forms = relation.sentences(language).again
    number = rng.randrange(len(forms))
    contents = (
        ask(rng, relation, first, language),
        tell(rng, relation, first, relation.facts[first], language),
        fill(forms[number], language, second),
    )
    entities = (first.name(language), second.name(language))
    template = f"again.{relation.name}.{number}"
    return _answered("follow_up", language, template, entities, contents, relation, second, relation.facts[second], rng)


def _own(rng: Random, topic: str, but: str, subject: Term) -> Relation:
    names = [n for n in _TOPICS[topic] if n != but and subject in relations()[n].facts]
    return relations()[rng.choice(names)]


def _same_subject(rng: Random, language: Language) -> Draft:
    topic = rng.choice(("country", "country", "animal", "city"))
    if topic == "city":
        before = relations()["country"]
        city = rng.choice(list(before.facts))
        subject = before.facts[city]
        asked = (ask(rng, before, city, language), tell(rng, before, city, subject, language))
        relation = _own(rng, "country", "capital", subject)
    else:
        before = relations()[rng.choice(_TOPICS[topic])]
        subject = rng.choice(list(before.facts))
        asked = (
            ask(rng, before, subject, language),
            tell(rng, before, subject, before.facts[subject], language),
        )
        relation = _own(rng, topic, before.name, subject)
    forms = relation.sentences(language).own
    number = rng.randrange(len(forms))
    template = f"own.{before.name}.{relation.name}.{number}"
    contents = (*asked, forms[number])
    value = relation.facts[subject]
    return _answered(
        "follow_up", language, template, (subject.name(language),), contents, relation, subject, value, rng
    )


def _chain(rng: Random, language: Language) -> Draft:
    before = relations()[rng.choice(_TOPICS["country"])]
    first, second = rng.sample(list(COUNTRIES.values()), 2)
    relation = _own(rng, "country", before.name, second)
    forms = relation.sentences(language).own
    number = rng.randrange(len(forms))
    contents = (
        ask(rng, before, first, language),
        tell(rng, before, first, before.facts[first], language),
        fill(rng.choice(before.sentences(language).again), language, second),
        tell(rng, before, second, before.facts[second], language),
        forms[number],
    )
    entities = (first.name(language), second.name(language))
    template = f"chain.{before.name}.{relation.name}.{number}"
    return _answered("follow_up", language, template, entities, contents, relation, second, relation.facts[second], rng)


def _running_sum(rng: Random, language: Language) -> Draft:
    a, b, n = rng.randint(1, 5), rng.randint(1, 5), rng.randint(1, 9)
    number = rng.randrange(len(_SUMS[language]))
    form, sign = _SUMS[language][number]
    if a + b + sign * n < 0:
        sign, n = -1, 1
    total = a + b + sign * n
    first = first_question(a, b, "+", language)
    if first is None:
        return _running_sum(rng, language)
    stop = "." if language == "en" else "。"
    told = f"{a} + {b} = {a + b}{stop}"
    full = (f"{a + b} {'+' if sign > 0 else '-'} {n} = {total}{stop}",)
    wrong = full[0].replace(str(total), str(total + rng.choice((-1, 1, 2))))
    truth: Truth = {"kind": "number", "value": total, "operands": [a + b, n, a, b]}
    item = make_item(
        "follow_up",
        language,
        f"sum.{number}",
        (str(a), str(b), str(n)),
        turns(first, told, form.format(n=n)),
        full[0],
        truth,
    )
    return Draft(item, full, fragment(str(total), language), (wrong,))
