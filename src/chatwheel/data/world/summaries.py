"""Texts with one main point and some details, and the sentence that keeps the point."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.names import some_people, some_places

Truth = dict[str, object]


@dataclass(frozen=True)
class News:
    """Something that somebody did: the main point, the words a summary needs, and side details with their key words."""

    did: str
    need: tuple[str, ...]
    details: tuple[tuple[str, str], ...]


_NEWS: dict[Language, tuple[News, ...]] = {
    "en": (
        News(
            "opened a bakery in {place}",
            ("bakery",),
            (
                ("The door of the shop is red.", "door"),
                ("On the first day every child got a cake for free.", "cake"),
                ("The bread is still warm at eight in the morning.", "warm"),
                ("There are four tables by the window.", "tables"),
            ),
        ),
        News(
            "won the big race in {place}",
            ("won",),
            (
                ("It rained all morning.", "rained"),
                ("Many people stood along the road and sang.", "sang"),
                ("The prize was a silver cup.", "silver"),
                ("The shoes for the race were very old.", "shoes"),
            ),
        ),
        News(
            "found a lost dog in {place}",
            ("dog",),
            (
                ("It was sitting under a bridge.", "bridge"),
                ("It was wet and very hungry.", "hungry"),
                ("The neighbours brought warm milk.", "milk"),
                ("It now sleeps on a blue chair.", "chair"),
            ),
        ),
        News(
            "planted a hundred trees in {place}",
            ("trees",),
            (
                ("The work took three days.", "days"),
                ("The ground was hard and dry.", "dry"),
                ("Some friends carried the water.", "carried"),
                ("In the evening there was soup for all.", "soup"),
            ),
        ),
        News(
            "wrote a book about {place}",
            ("book", "wrote"),
            (
                ("It has many pictures.", "pictures"),
                ("Most of it was written at night.", "night"),
                ("The cover is green.", "cover"),
                ("Two schools have already asked for it.", "schools"),
            ),
        ),
        News(
            "built a boat in {place}",
            ("boat",),
            (
                ("The wood came from an old house.", "wood"),
                ("It took the whole winter.", "winter"),
                ("The sail is white and yellow.", "sail"),
                ("Two cats like to sleep in it.", "cats"),
            ),
        ),
        News(
            "became a teacher in {place}",
            ("teacher",),
            (
                ("The school is small and has a garden.", "garden"),
                ("The children made a big picture for the first day.", "picture"),
                ("The way to school takes ten minutes.", "minutes"),
                ("There is a piano in the hall.", "piano"),
            ),
        ),
        News(
            "saved a child from the river in {place}",
            ("child", "saved"),
            (
                ("The water was very cold.", "cold"),
                ("The child had been playing with a ball.", "ball"),
                ("A doctor came at once.", "doctor"),
                ("The newspaper printed a photo.", "photo"),
            ),
        ),
    ),
    "zh": (
        News(
            "在{place}开了一家面包店",
            ("面包店",),
            (
                ("店门是红色的。", "红色"),
                ("第一天，每个孩子都得到了一块蛋糕。", "蛋糕"),
                ("早上八点，面包还是热的。", "八点"),
                ("窗边有四张桌子。", "桌子"),
            ),
        ),
        News(
            "在{place}赢了一场跑步比赛",
            ("赢",),
            (
                ("那天早上一直下雨。", "下雨"),
                ("很多人站在路边唱歌。", "唱歌"),
                ("奖品是一个银杯子。", "杯子"),
                ("比赛穿的鞋子很旧。", "鞋子"),
            ),
        ),
        News(
            "在{place}找到了一只走丢的狗",
            ("狗",),
            (
                ("它坐在一座桥下面。", "桥"),
                ("它全身都湿了，也很饿。", "饿"),
                ("邻居拿来了热牛奶。", "牛奶"),
                ("现在它睡在一把蓝色的椅子上。", "椅子"),
            ),
        ),
        News(
            "在{place}种了一百棵树",
            ("树",),
            (
                ("这件事花了三天时间。", "三天"),
                ("地又硬又干。", "硬"),
                ("几个朋友帮忙提水。", "提水"),
                ("晚上大家一起喝汤。", "汤"),
            ),
        ),
        News(
            "写了一本关于{place}的书",
            ("书", "写"),
            (
                ("书里有很多图画。", "图画"),
                ("大部分是在夜里写的。", "夜里"),
                ("封面是绿色的。", "封面"),
                ("已经有两所学校想要这本书。", "学校"),
            ),
        ),
        News(
            "在{place}造了一条船",
            ("船",),
            (
                ("木头来自一座老房子。", "木头"),
                ("整整花了一个冬天。", "冬天"),
                ("帆是白色和黄色的。", "帆"),
                ("有两只猫喜欢睡在里面。", "猫"),
            ),
        ),
        News(
            "在{place}当了老师",
            ("老师",),
            (
                ("学校很小，有一个花园。", "花园"),
                ("孩子们为第一天画了一张大画。", "大画"),
                ("走路去学校要十分钟。", "分钟"),
                ("教室里有一架钢琴。", "钢琴"),
            ),
        ),
        News(
            "在{place}的河里救了一个孩子",
            ("孩子", "救"),
            (
                ("那时水很冷。", "冷"),
                ("孩子本来在玩球。", "球"),
                ("医生马上就来了。", "医生"),
                ("报纸上登了一张照片。", "照片"),
            ),
        ),
    ),
}
_TIMES = {
    "en": ("Last week", "In spring", "On Monday", "Yesterday"),
    "zh": ("上个星期", "春天的时候", "星期一", "昨天"),
}
_SUM_UP = {
    "en": (
        "Sum this up in one sentence: {passage}",
        "What is the main point of this text? {passage}",
        "{passage}\nPlease sum this up in one short sentence.",
        "Tell me in one sentence what happened: {passage}",
    ),
    "zh": (
        "请用一句话概括：{passage}",
        "这段话主要说了什么？{passage}",
        "{passage}\n请用一句短话总结。",
        "用一句话告诉我发生了什么：{passage}",
    ),
}


def draft_summary(rng: Random, language: Language, split: Split) -> Draft:
    """A text with one main point and some details; the answer keeps the point."""
    news = rng.choice(_NEWS[language])
    who = some_people(rng, language, split, 1)[0]
    place = some_places(rng, language, split, 1)[0]
    details = rng.sample(news.details, 3)
    did = news.did.format(place=place)
    when = rng.choice(_TIMES[language])
    gap, comma = (" ", ", ") if language == "en" else ("", "，")
    stop = "." if language == "en" else "。"
    text = gap.join([f"{when}{comma}{who}{gap}{did}{stop}", *(d for d, _ in details)])
    number = rng.randrange(len(_SUM_UP[language]))
    full = (f"{who}{gap}{did}{stop}",)
    truth: Truth = {
        "kind": "summary",
        "need": [[who], *([n] for n in news.need)],
        "details": [key for _, key in details],
        "length": len(text.split()) if language == "en" else len(text),
    }
    asked = _SUM_UP[language][number].format(passage=text)
    entities = (who, place, *(key for _, key in details), when)
    item = make_item("summary", language, f"{news.need[0]}.{number}", entities, turns(asked), full[0], truth)
    return Draft(item, full, full[0], (gap.join(d for d, _ in details),))
