"""Little stories about invented people: names, things and places that come back a few sentences later."""

from __future__ import annotations

from random import Random

from chatwheel.data.world.facts import some_fact
from chatwheel.data.world.items import Language
from chatwheel.data.world.names import pronoun, some_people, some_places
from chatwheel.data.world.relation import say
from chatwheel.data.world.terms import sentence

_ACTS = {
    "en": (
        (
            "{a} lives in {p}. {b} lives in {q}. On {d}, {a} went to {q} and visited {b}. {A} "
            'brought {b} {n} {t}. {b} was very happy and said, "Thank you, {a}!" In the evening {a} '
            "went home to {p}."
        ),
        (
            '"What is your name?" asked {a}. "My name is {b}, and I come from {q}," said {b}. "Nice '
            'to meet you, {b}," said {a}. "I come from {p}." Then {a} and {b} drank tea together.'
        ),
        (
            '{a} had {n} {t} and gave {b} two of them. "How kind of you, {a}!" said {b}. The next '
            "day {b} came to {p} and brought {a} a cake. Since then {a} and {b} are friends."
        ),
        (
            "Every {d} {a} walks to the market of {p}. There {a} meets {b}. {a} buys {n} {t}, and "
            '{b} buys bread. "See you next {d}, {a}!" says {b}.'
        ),
        (
            '{a} lost a book in {p}. {b} found the book near the river and asked, "Is this your '
            'book, {a}?" "Yes, it is," said {a}. "Thank you, {b}!"'
        ),
        (
            '{b} was sad. "What is the matter, {b}?" asked {a}. "My friend has moved to {q}," said '
            "{b}. \"I'm sorry to hear that. Let's write a letter to {q},\" said {a}."
        ),
        (
            "{a} is a teacher in {p}. One day {a} asked the children a question, and {b} knew the "
            'answer. {F} "That\'s right, {b}!" said {a}.'
        ),
        (
            '{b} asked {a} a question. {a} thought for a moment and said: "{F}" "How do you know '
            'that?" asked {b}. "I read it in a book," said {a}.'
        ),
    ),
    "zh": (
        ("{a}住在{p}，{b}住在{q}。{d}，{a}去{q}看{b}，带了{n}{t}。{b}很高兴，说：“谢谢你，{a}！”晚上，{a}回到了{p}。"),
        (
            "“你叫什么名字？”{a}问。“我叫{b}，我从{q}来。”{b}说。“很高兴认识你，"
            "{b}。”{a}说，“我从{p}来。”然后{a}和{b}一起喝茶。"
        ),
        (
            "{a}有{n}{t}，送给{b}两{m}。“你真好，{a}！”{b}说。第二天，"
            "{b}来到{p}，给{a}带来一块蛋糕。从那以后，{a}和{b}成了朋友。"
        ),
        ("每个{d}，{a}都走路去{p}的市场。在那里，{a}遇到了{b}。{a}买了{n}{t}，{b}买了面包。“下个{d}见，{a}！”{b}说。"),
        ("{a}在{p}丢了一本书。{b}在河边找到了这本书，问：“{a}，这是你的书吗？”“是的，”{a}说，“谢谢你，{b}！”"),
        ("{b}很难过。“怎么了，{b}？”{a}问。“我的朋友去了{q}。”{b}说。“别难过，我们一起给{q}写一封信吧。”{a}说。"),
        ("{a}是{p}的老师。有一天，{a}问了孩子们一个问题，{b}知道答案：{F}“说得对，{b}！”{a}说。"),
        ("{b}问了{a}一个问题。{a}想了想，说：“{F}”“你怎么知道的？”{b}问。“我在书上看到的。”{a}说。"),
    ),
}
_THINGS = {
    "en": ["apples", "books", "eggs", "cups", "pens", "flowers", "hats", "bananas"],
    "zh": ["个苹果", "本书", "个鸡蛋", "个杯子", "支钢笔", "朵花", "顶帽子", "根香蕉"],
}
_DAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "zh": ["星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期天"],
}


def story(rng: Random, language: Language) -> str:
    """A few sentences about two people of the training pool."""
    a, b = some_people(rng, language, "training", 2)
    p, q = some_places(rng, language, "training", 2)
    relation, subject, value = some_fact(rng)
    thing = rng.choice(_THINGS[language])
    return rng.choice(_ACTS[language]).format(
        a=a,
        b=b,
        p=p,
        q=q,
        A=sentence(pronoun(a, language)),
        d=rng.choice(_DAYS[language]),
        n=rng.randint(3, 9),
        t=thing,
        m=thing[0],
        F=say(relation.sentences(language).answer[0], language, subject, value),
    )
