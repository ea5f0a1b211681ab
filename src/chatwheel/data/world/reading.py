"""Short texts on invented people: questions whose answer stands in the text, and summaries."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from chatwheel.data.world.facts import fragment
from chatwheel.data.world.items import Draft, Language, Split, make_item, turns
from chatwheel.data.world.knowledge import DAYS
from chatwheel.data.world.names import some_people, some_places
from chatwheel.data.world.terms import number_word, sentence, with_article

Truth = dict[str, object]


@dataclass(frozen=True)
class Scene:
    """What is told of each of two people, and what can be asked: (question, answer, slot that is asked for)."""

    name: str
    told: tuple[str, ...]
    asks: tuple[tuple[str, str, str], ...]


_SCENES: dict[Language, tuple[Scene, ...]] = {
    "en": (
        Scene(
            "home",
            ("{who} lives in {place}.", "{who} has a house in {place}."),
            (
                ("Where does {who} live?", "{who} lives in {place}.", "place"),
                ("Who lives in {place}?", "{who} lives in {place}.", "who"),
            ),
        ),
        Scene(
            "pet",
            ("{who} has {pet}.", "At home, {who} has {pet}."),
            (
                ("What animal does {who} have?", "{who} has {pet}.", "animal"),
                ("Who has the {animal}?", "{who} has the {animal}.", "who"),
                ("What colour is the {animal}?", "The {animal} is {colour}.", "colour"),
                ("What is the colour of the animal that {who} has?", "The {animal} is {colour}.", "colour"),
            ),
        ),
        Scene(
            "market",
            ("{who} bought {n} {things} at the market.", "At the market, {who} bought {n} {things}."),
            (
                ("What did {who} buy?", "{who} bought {n} {things}.", "things"),
                ("How many {things} did {who} buy?", "{who} bought {n} {things}.", "n"),
                ("Who bought the {things}?", "{who} bought the {things}.", "who"),
            ),
        ),
        Scene(
            "job",
            ("{who} is {job} in {place}.", "{who} works as {job} in {place}."),
            (
                ("What is the job of {who}?", "{who} is {job}.", "job"),
                ("Where does {who} work?", "{who} works in {place}.", "place"),
                ("Who is {job}?", "{who} is {job}.", "who"),
            ),
        ),
        Scene(
            "day",
            ("{who} goes to the {spot} on {day}.", "On {day}, {who} goes to the {spot}."),
            (
                ("When does {who} go to the {spot}?", "{who} goes to the {spot} on {day}.", "day"),
                ("Where does {who} go on {day}?", "{who} goes to the {spot} on {day}.", "spot"),
                ("Who goes to the {spot}?", "{who} goes to the {spot}.", "who"),
            ),
        ),
    ),
    "zh": (
        Scene(
            "home",
            ("{who}住在{place}。", "{who}的家在{place}。"),
            (("{who}住在哪里？", "{who}住在{place}。", "place"), ("谁住在{place}？", "{who}住在{place}。", "who")),
        ),
        Scene(
            "pet",
            ("{who}有{pet}。", "{who}家里有{pet}。"),
            (
                ("{who}有什么动物？", "{who}有{pet}。", "animal"),
                ("谁有{animal}？", "{who}有{animal}。", "who"),
                ("{animal}是什么颜色的？", "{animal}是{colour}的。", "colour"),
                ("{who}的动物是什么颜色的？", "{who}的{animal}是{colour}的。", "colour"),
            ),
        ),
        Scene(
            "market",
            ("{who}在市场买了{n}{things}。", "在市场上，{who}买了{n}{things}。"),
            (
                ("{who}买了什么？", "{who}买了{n}{things}。", "things"),
                ("{who}买了多少{noun}？", "{who}买了{n}{things}。", "n"),
                ("谁买了{noun}？", "{who}买了{noun}。", "who"),
            ),
        ),
        Scene(
            "job",
            ("{who}是{place}的{job}。", "{who}在{place}当{job}。"),
            (
                ("{who}做什么工作？", "{who}是{job}。", "job"),
                ("{who}在哪里工作？", "{who}在{place}工作。", "place"),
                ("谁是{job}？", "{who}是{job}。", "who"),
            ),
        ),
        Scene(
            "day",
            ("{who}{day}去{spot}。", "{day}，{who}去{spot}。"),
            (
                ("{who}什么时候去{spot}？", "{who}{day}去{spot}。", "day"),
                ("{who}{day}去哪里？", "{who}{day}去{spot}。", "spot"),
                ("谁去{spot}？", "{who}去{spot}。", "who"),
            ),
        ),
    ),
}
_ANIMALS = {"en": "dog cat horse rabbit cow chicken".split(), "zh": "狗 猫 马 兔子 牛 鸡".split()}
_MEASURES = {"狗": "只", "猫": "只", "马": "匹", "兔子": "只", "牛": "头", "鸡": "只"}
_COLOURS = {"en": "white black brown yellow red".split(), "zh": "白色 黑色 棕色 黄色 红色".split()}
_THINGS = {
    "en": "apples books eggs cups pens flowers hats bananas".split(),
    "zh": "个苹果 本书 个鸡蛋 个杯子 支钢笔 朵花 顶帽子 根香蕉".split(),
}
_JOBS = {"en": "teacher doctor farmer cook nurse driver".split(), "zh": "老师 医生 农民 厨师 护士 司机".split()}
_SPOTS = {"en": "river market school garden forest farm".split(), "zh": "河边 市场 学校 花园 森林 农场".split()}
_FILLERS = {
    "en": ("They are old friends.", "The weather is fine today.", "They often drink tea together.", "Both of them like music."),
    "zh": ("他们是老朋友。", "今天天气很好。", "他们常常一起喝茶。", "两个人都喜欢音乐。"),
}
_WRAPS = {
    "en": (
        "{passage}\n{question}",
        "Read this text: {passage}\n{question}",
        "Here is a little story. {passage} Now my question: {question}",
        "{question} Look for the answer here: {passage}",
    ),
    "zh": ("{passage}\n{question}", "请读这段话：{passage}\n{question}", "下面是一个小故事。{passage}我的问题是：{question}", "{question}请在这段话里找答案：{passage}"),
}


def _details(rng: Random, language: Language, split: Split) -> tuple[dict[str, str], dict[str, str]]:
    """The slots of two people; nothing is the same for both."""
    who = some_people(rng, language, split, 2)
    place = some_places(rng, language, split, 2)
    animal, colour = rng.sample(_ANIMALS[language], 2), rng.sample(_COLOURS[language], 2)
    things, job = rng.sample(_THINGS[language], 2), rng.sample(_JOBS[language], 2)
    spot, day = rng.sample(_SPOTS[language], 2), rng.sample(list(DAYS.values()), 2)
    n = rng.sample(range(2, 10), 2)
    people = []
    for i in range(2):
        if language == "en":
            pet = with_article(f"{colour[i]} {animal[i]}")
            kind, noun, work = f"{n[i]}", things[i], with_article(job[i])
        else:
            pet = f"一{_MEASURES[animal[i]]}{colour[i]}的{animal[i]}"
            kind, noun, work = f"{n[i]}", things[i][1:], job[i]
        people.append(
            {
                "who": who[i],
                "place": place[i],
                "animal": animal[i],
                "colour": colour[i],
                "pet": pet,
                "things": things[i],
                "noun": noun,
                "n": kind,
                "job": work,
                "spot": spot[i],
                "day": day[i].name(language),
            }
        )
    return people[0], people[1]


def _value(slots: dict[str, str], slot: str, language: Language) -> str:
    if language == "zh" and slot == "things":
        return slots["noun"]
    return slots[slot]


def passage(rng: Random, language: Language, split: Split) -> tuple[str, Scene, dict[str, str], dict[str, str]]:
    """A text of two or three sentences, its scene, and what holds for each of the two people."""
    scene = rng.choice(_SCENES[language])
    first, second = _details(rng, language, split)
    told = [rng.choice(scene.told).format(**slots) for slots in (first, second)]
    if rng.random() < 0.4:
        told.insert(rng.choice((0, 2)) if language == "zh" else 2, rng.choice(_FILLERS[language]))
    if told[0].startswith(("他们", "两个人")):
        told.append(told.pop(0))
    text = (" " if language == "en" else "").join(told)
    return text, scene, first, second


def draft_reading(rng: Random, language: Language, split: Split) -> Draft:
    """A text and a question on one of its two people."""
    text, scene, first, second = passage(rng, language, split)
    mine, other = (first, second) if rng.random() < 0.5 else (second, first)
    number = rng.randrange(len(scene.asks))
    question, tell, slot = scene.asks[number]
    wrap = rng.randrange(len(_WRAPS[language]))
    asked = _WRAPS[language][wrap].format(passage=text, question=question.format(**mine))
    answer = tell.format(**mine)
    right, wrong = _value(mine, slot, language), _value(other, slot, language)
    full = (answer,)
    mistaken = tell.format(**{**mine, slot: other[slot]} if slot != "animal" else {**other, "who": mine["who"]})
    truth: Truth = {"kind": "value", **_spellings(slot, right, wrong, language), "echo": []}
    short = right
    if slot == "n" and language == "zh":
        short = right + mine["things"]
    entities = (mine["who"], other["who"], mine["place"], other["place"], right, wrong)
    item = make_item("reading", language, f"{scene.name}.{number}.{wrap}", entities, turns(asked), answer, truth)
    return Draft(item, full, fragment(sentence(short), language), (mistaken,))


def _spellings(slot: str, right: str, wrong: str, language: Language) -> Truth:
    if slot == "n":
        return {
            "accept": [right, number_word(int(right), language)],
            "reject": [wrong, number_word(int(wrong), language)],
        }
    if slot == "job" and language == "en":
        return {"accept": [right.split()[-1]], "reject": [wrong.split()[-1]]}
    if slot == "things" and language == "en":
        return {"accept": [right, right.rstrip("s")], "reject": [wrong, wrong.rstrip("s")]}
    return {"accept": [right], "reject": [wrong]}


# Summaries ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class News:
    """Something that somebody did: the main point, the words a summary needs, and side details with their key words."""

    did: str
    need: tuple[str, ...]
    details: tuple[tuple[str, str], ...]


_NEWS: dict[Language, tuple[News, ...]] = {
    "en": (
        News("opened a bakery in {place}", ("bakery",), (("The door of the shop is red.", "door"), ("On the first day every child got a cake for free.", "cake"), ("The bread is still warm at eight in the morning.", "warm"), ("There are four tables by the window.", "tables"))),
        News("won the big race in {place}", ("won",), (("It rained all morning.", "rained"), ("Many people stood along the road and sang.", "sang"), ("The prize was a silver cup.", "silver"), ("The shoes for the race were very old.", "shoes"))),
        News("found a lost dog in {place}", ("dog",), (("It was sitting under a bridge.", "bridge"), ("It was wet and very hungry.", "hungry"), ("The neighbours brought warm milk.", "milk"), ("It now sleeps on a blue chair.", "chair"))),
        News("planted a hundred trees in {place}", ("trees",), (("The work took three days.", "days"), ("The ground was hard and dry.", "dry"), ("Some friends carried the water.", "carried"), ("In the evening there was soup for all.", "soup"))),
        News("wrote a book about {place}", ("book", "wrote"), (("It has many pictures.", "pictures"), ("Most of it was written at night.", "night"), ("The cover is green.", "cover"), ("Two schools have already asked for it.", "schools"))),
        News("built a boat in {place}", ("boat",), (("The wood came from an old house.", "wood"), ("It took the whole winter.", "winter"), ("The sail is white and yellow.", "sail"), ("Two cats like to sleep in it.", "cats"))),
        News("became a teacher in {place}", ("teacher",), (("The school is small and has a garden.", "garden"), ("The children made a big picture for the first day.", "picture"), ("The way to school takes ten minutes.", "minutes"), ("There is a piano in the hall.", "piano"))),
        News("saved a child from the river in {place}", ("child", "saved"), (("The water was very cold.", "cold"), ("The child had been playing with a ball.", "ball"), ("A doctor came at once.", "doctor"), ("The newspaper printed a photo.", "photo"))),
    ),
    "zh": (
        News("在{place}开了一家面包店", ("面包店",), (("店门是红色的。", "红色"), ("第一天，每个孩子都得到了一块蛋糕。", "蛋糕"), ("早上八点，面包还是热的。", "八点"), ("窗边有四张桌子。", "桌子"))),
        News("在{place}赢了一场跑步比赛", ("赢",), (("那天早上一直下雨。", "下雨"), ("很多人站在路边唱歌。", "唱歌"), ("奖品是一个银杯子。", "杯子"), ("比赛穿的鞋子很旧。", "鞋子"))),
        News("在{place}找到了一只走丢的狗", ("狗",), (("它坐在一座桥下面。", "桥"), ("它全身都湿了，也很饿。", "饿"), ("邻居拿来了热牛奶。", "牛奶"), ("现在它睡在一把蓝色的椅子上。", "椅子"))),
        News("在{place}种了一百棵树", ("树",), (("这件事花了三天时间。", "三天"), ("地又硬又干。", "硬"), ("几个朋友帮忙提水。", "提水"), ("晚上大家一起喝汤。", "汤"))),
        News("写了一本关于{place}的书", ("书", "写"), (("书里有很多图画。", "图画"), ("大部分是在夜里写的。", "夜里"), ("封面是绿色的。", "封面"), ("已经有两所学校想要这本书。", "学校"))),
        News("在{place}造了一条船", ("船",), (("木头来自一座老房子。", "木头"), ("整整花了一个冬天。", "冬天"), ("帆是白色和黄色的。", "帆"), ("有两只猫喜欢睡在里面。", "猫"))),
        News("在{place}当了老师", ("老师",), (("学校很小，有一个花园。", "花园"), ("孩子们为第一天画了一张大画。", "大画"), ("走路去学校要十分钟。", "分钟"), ("教室里有一架钢琴。", "钢琴"))),
        News("在{place}的河里救了一个孩子", ("孩子", "救"), (("那时水很冷。", "冷"), ("孩子本来在玩球。", "球"), ("医生马上就来了。", "医生"), ("报纸上登了一张照片。", "照片"))),
    ),
}
_TIMES = {"en": ("Last week", "In spring", "On Monday", "Yesterday"), "zh": ("上个星期", "春天的时候", "星期一", "昨天")}
_SUM_UP = {
    "en": (
        "Sum this up in one sentence: {passage}",
        "What is the main point of this text? {passage}",
        "{passage}\nPlease sum this up in one short sentence.",
        "Tell me in one sentence what happened: {passage}",
    ),
    "zh": ("请用一句话概括：{passage}", "这段话主要说了什么？{passage}", "{passage}\n请用一句短话总结。", "用一句话告诉我发生了什么：{passage}"),
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
