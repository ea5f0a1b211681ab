"""The facts of the world: a small slice of the real one. Every line here is true outside as well."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from chatwheel.data.world.terms import Term

Facts = Mapping[Term, Term]


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _terms(table: str) -> dict[str, Term]:
    """Terms by English name from lines `english | chinese | plural | also, also`."""
    found = {}
    for row in _rows(table):
        row += [""] * (4 - len(row))
        also = tuple(word.strip() for word in row[3].split(",") if word.strip())
        found[row[0]] = Term(row[0], row[1], row[2], also)
    return found


# Countries ------------------------------------------------------------------------------------------------------------

CONTINENTS = _terms("""
Europe | 欧洲
Asia | 亚洲
Africa | 非洲
North America | 北美洲 | | 北美
South America | 南美洲 | | 南美
Oceania | 大洋洲
""")

TONGUES = _terms("""
French | 法语
Spanish | 西班牙语
Italian | 意大利语
German | 德语
English | 英语
Portuguese | 葡萄牙语
Greek | 希腊语
Swedish | 瑞典语
Polish | 波兰语
Norwegian | 挪威语
Chinese | 中文 | | 汉语
Japanese | 日语
Korean | 韩语
Thai | 泰语
Vietnamese | 越南语
Arabic | 阿拉伯语
""")

_COUNTRIES = _rows("""
France | 法国 | Paris | 巴黎 | Europe | French
Spain | 西班牙 | Madrid | 马德里 | Europe | Spanish
Italy | 意大利 | Rome | 罗马 | Europe | Italian
Germany | 德国 | Berlin | 柏林 | Europe | German
Britain | 英国 | London | 伦敦 | Europe | English
Portugal | 葡萄牙 | Lisbon | 里斯本 | Europe | Portuguese
Greece | 希腊 | Athens | 雅典 | Europe | Greek
Sweden | 瑞典 | Stockholm | 斯德哥尔摩 | Europe | Swedish
Poland | 波兰 | Warsaw | 华沙 | Europe | Polish
Norway | 挪威 | Oslo | 奥斯陆 | Europe | Norwegian
China | 中国 | Beijing | 北京 | Asia | Chinese
Japan | 日本 | Tokyo | 东京 | Asia | Japanese
South Korea | 韩国 | Seoul | 首尔 | Asia | Korean
Thailand | 泰国 | Bangkok | 曼谷 | Asia | Thai
Vietnam | 越南 | Hanoi | 河内 | Asia | Vietnamese
Egypt | 埃及 | Cairo | 开罗 | Africa | Arabic
Ghana | 加纳 | Accra | 阿克拉 | Africa | English
the United States | 美国 | Washington | 华盛顿 | North America | English
Canada | 加拿大 | Ottawa | 渥太华 | North America | English
Cuba | 古巴 | Havana | 哈瓦那 | North America | Spanish
Brazil | 巴西 | Brasilia | 巴西利亚 | South America | Portuguese
Peru | 秘鲁 | Lima | 利马 | South America | Spanish
Chile | 智利 | Santiago | 圣地亚哥 | South America | Spanish
Australia | 澳大利亚 | Canberra | 堪培拉 | Oceania | English
""")

COUNTRIES: dict[str, Term] = {r[0]: Term(r[0], r[1]) for r in _COUNTRIES}
CITIES: dict[str, Term] = {r[2]: Term(r[2], r[3]) for r in _COUNTRIES}

# Animals --------------------------------------------------------------------------------------------------------------

CLASSES = _terms("""
mammal | 哺乳动物 | mammals
bird | 鸟类 | birds | 鸟
fish | 鱼类 | | 鱼
reptile | 爬行动物 | reptiles
amphibian | 两栖动物 | amphibians
insect | 昆虫 | insects
""")

FOODS = _terms("""
grass | 草
meat | 肉
fish | 鱼
bamboo | 竹子 | | 竹
fruit | 水果
mice | 老鼠 | mouse
insects | 虫子 | insect | 昆虫
nectar | 花蜜
seeds | 种子 | seed
krill | 磷虾
""")

HOMES = _terms("""
on farms | 农场里 | | farm, farms, 农场
in forests | 森林里 | | forest, forests, 森林
on grassland | 草原上 | | grasslands, 草原
in the sea | 海里 | | sea, ocean, 大海, 海洋
in rivers | 河里 | | river, rivers
in ponds | 池塘里 | | pond, ponds, 池塘
in the mountains | 山里 | | mountain, mountains, 山上
in people's homes | 人们家里 | | homes, home, house, houses, 家里
in gardens | 花园里 | | garden, gardens, 花园
under the ground | 地下 | | underground, ground
""")

LEGS = {
    2: Term("two legs", "两条腿", also=("two", "2条腿")),
    4: Term("four legs", "四条腿", also=("four", "4条腿")),
    6: Term("six legs", "六条腿", also=("six", "6条腿")),
    8: Term("eight legs", "八条腿", also=("eight", "8条腿")),
}

_ANIMALS = _rows("""
cow | cows | 牛 | mammal | grass | on farms | 4
horse | horses | 马 | mammal | grass | on farms | 4
sheep | sheep | 羊 | mammal | grass | on farms | 4
cat | cats | 猫 | mammal | meat | in people's homes | 4
dog | dogs | 狗 | mammal | meat | in people's homes | 4
lion | lions | 狮子 | mammal | meat | on grassland | 4
tiger | tigers | 老虎 | mammal | meat | in forests | 4
panda | pandas | 熊猫 | mammal | bamboo | in forests | 4
elephant | elephants | 大象 | mammal | grass | on grassland | 4
rabbit | rabbits | 兔子 | mammal | grass | | 4
monkey | monkeys | 猴子 | mammal | fruit | in forests |
dolphin | dolphins | 海豚 | mammal | fish | in the sea |
whale | whales | 鲸 | mammal | krill | in the sea |
shark | sharks | 鲨鱼 | fish | fish | in the sea |
eagle | eagles | 鹰 | bird | meat | in the mountains | 2
owl | owls | 猫头鹰 | bird | mice | in forests | 2
chicken | chickens | 鸡 | bird | seeds | on farms | 2
penguin | penguins | 企鹅 | bird | fish | | 2
snake | snakes | 蛇 | reptile | mice | |
crocodile | crocodiles | 鳄鱼 | reptile | meat | in rivers | 4
frog | frogs | 青蛙 | amphibian | insects | in ponds | 4
bee | bees | 蜜蜂 | insect | nectar | in gardens | 6
butterfly | butterflies | 蝴蝶 | insect | nectar | in gardens | 6
ant | ants | 蚂蚁 | insect | | under the ground | 6
spider | spiders | 蜘蛛 | | insects | | 8
""")

_MEASURES = {
    "cow": "头",
    "horse": "匹",
    "lion": "头",
    "elephant": "头",
    "whale": "头",
    "shark": "条",
    "snake": "条",
    "crocodile": "条",
}
ANIMALS: dict[str, Term] = {r[0]: Term(r[0], r[2], r[1], slots=(("m", _MEASURES.get(r[0], "只")),)) for r in _ANIMALS}

# People and what they made --------------------------------------------------------------------------------------------

PEOPLE = _terms("""
Shakespeare | 莎士比亚
Tolstoy | 托尔斯泰
Cervantes | 塞万提斯
Hemingway | 海明威
Dickens | 狄更斯
Wu Cheng'en | 吴承恩
Cao Xueqin | 曹雪芹
Leonardo da Vinci | 达芬奇 | | Leonardo, da Vinci
Van Gogh | 梵高
Bell | 贝尔
the Wright brothers | 莱特兄弟 | | Wright
Edison | 爱迪生
Newton | 牛顿
Marie Curie | 居里夫人 | | Curie
Fleming | 弗莱明
""")

_VERBS = {
    "wrote": (("did", "wrote"), ("do", "write"), ("done", "written"), ("act", "写"), ("maker", "作者")),
    "painted": (("did", "painted"), ("do", "paint"), ("done", "painted"), ("act", "画"), ("maker", "作者")),
    "invented": (("did", "invented"), ("do", "invent"), ("done", "invented"), ("act", "发明"), ("maker", "发明者")),
    "discovered": (
        ("did", "discovered"),
        ("do", "discover"),
        ("done", "discovered"),
        ("act", "发现"),
        ("maker", "发现者"),
    ),
}

_WORKS = _rows("""
wrote | Romeo and Juliet | 《罗密欧与朱丽叶》 | Shakespeare
wrote | War and Peace | 《战争与和平》 | Tolstoy
wrote | Don Quixote | 《堂吉诃德》 | Cervantes
wrote | The Old Man and the Sea | 《老人与海》 | Hemingway
wrote | Oliver Twist | 《雾都孤儿》 | Dickens
wrote | Journey to the West | 《西游记》 | Wu Cheng'en
wrote | Dream of the Red Chamber | 《红楼梦》 | Cao Xueqin
painted | the Mona Lisa | 《蒙娜丽莎》 | Leonardo da Vinci
painted | The Starry Night | 《星夜》 | Van Gogh
invented | the telephone | 电话 | Bell
invented | the airplane | 飞机 | the Wright brothers
invented | the light bulb | 电灯 | Edison
discovered | the law of gravity | 万有引力 | Newton
discovered | radium | 镭 | Marie Curie
discovered | penicillin | 青霉素 | Fleming
""")

WORKS: dict[str, Term] = {r[1]: Term(r[1], r[2], slots=_VERBS[r[0]]) for r in _WORKS}

# Events ---------------------------------------------------------------------------------------------------------------

_EVENTS = _rows("""
Columbus | reached America | reach America | 哥伦布/到达美洲 | 1492
the United States | declared independence | declare independence | 美国/宣布独立 | 1776
the French Revolution | began | begin | 法国大革命/开始 | 1789
Athens | held the first modern Olympic Games | hold the first modern Olympic Games | 雅典/举办第一届现代奥运会 | 1896
the Titanic | sank | sink | 泰坦尼克号/沉没 | 1912
the First World War | began | begin | 第一次世界大战/开始 | 1914
the Second World War | ended | end | 第二次世界大战/结束 | 1945
people | first climbed Mount Everest | first climb Mount Everest | 人类/第一次登上珠穆朗玛峰 | 1953
Gagarin | flew into space | fly into space | 加加林/飞上太空 | 1961
people | first walked on the Moon | first walk on the Moon | 人类/第一次登上月球 | 1969
the Berlin Wall | fell | fall | 柏林墙/倒塌 | 1989
the first iPhone | came out | come out | 第一部 iPhone /上市 | 2007
Beijing | held the Olympic Games | hold the Olympic Games | 北京/举办奥运会 | 2008
""")


def _event(actor: str, past: str, base: str, chinese: str) -> Term:
    head, tail = chinese.split("/")
    slots = (("ask", f"{actor} {base}"), ("neg", f"{actor} did not {base}"), ("h", head), ("t", tail))
    return Term(f"{actor} {past}", head + tail, slots=slots)


EVENTS: dict[str, Term] = {f"{r[0]} {r[1]}": _event(*r[:4]) for r in _EVENTS}
YEARS = {r[4]: Term(r[4], f"{r[4]}年", also=(r[4],)) for r in _EVENTS}

# The sky, colours and the calendar ------------------------------------------------------------------------------------

PLANETS = _terms("""
Mercury | 水星
Venus | 金星
Earth | 地球
Mars | 火星
Jupiter | 木星
Saturn | 土星
Uranus | 天王星
Neptune | 海王星
""")
PLACES_IN_ORDER = [
    Term(en, f"第{zh}颗")
    for en, zh in zip(
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"], "一二三四五六七八", strict=True
    )
]
_PLANET_MARKS = _rows("""
is the smallest | 最小 | Mercury
is the hottest | 最热 | Venus
is our home | 是我们的家 | Earth
is called the red planet | 被叫做红色星球 | Mars
is the largest | 最大 | Jupiter
is famous for its rings | 因为光环而有名 | Saturn
spins on its side | 躺着转 | Uranus
is farthest from the sun | 离太阳最远 | Neptune
""")

COLOURS = _terms("""
red | 红色
blue | 蓝色
green | 绿色
yellow | 黄色
white | 白色
black | 黑色
brown | 棕色
orange | 橙色
""")
_COLOURED = _rows("""
a banana | 香蕉 | yellow
a lemon | 柠檬 | yellow
a tomato | 西红柿 | red
a strawberry | 草莓 | red
blood | 血 | red
grass | 草 | green
a leaf | 树叶 | green
a cucumber | 黄瓜 | green
the sky | 天空 | blue
the sea | 大海 | blue
snow | 雪 | white
milk | 牛奶 | white
coal | 煤 | black
chocolate | 巧克力 | brown
a carrot | 胡萝卜 | orange
""")
DAYS = _terms("""
Monday | 星期一
Tuesday | 星期二
Wednesday | 星期三
Thursday | 星期四
Friday | 星期五
Saturday | 星期六
Sunday | 星期天 | | 星期日
""")
MONTHS = {
    en: Term(en, zh)
    for en, zh in zip(
        [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ],
        ["一月", "二月", "三月", "四月", "五月", "六月", "七月", "八月", "九月", "十月", "十一月", "十二月"],
        strict=True,
    )
}


def _next(circle: dict[str, Term], step: int) -> dict[Term, Term]:
    ring = list(circle.values())
    return {term: ring[(i + step) % len(ring)] for i, term in enumerate(ring)}


def _doer(work: Term, person: Term) -> Term:
    """A person with the verb of what the person did."""
    slots = (*work.slots, ("be", "were" if person.en.endswith("brothers") else "was"))
    return Term(person.en, person.zh, person.plural, person.also, slots)


def _animal_facts(column: int, values: Mapping[str, Term]) -> dict[Term, Term]:
    return {ANIMALS[r[0]]: values[r[column]] for r in _ANIMALS if r[column]}


FACTS: Mapping[str, Facts] = MappingProxyType(
    {
        "capital": {COUNTRIES[r[0]]: CITIES[r[2]] for r in _COUNTRIES},
        "country": {CITIES[r[2]]: COUNTRIES[r[0]] for r in _COUNTRIES},
        "continent": {COUNTRIES[r[0]]: CONTINENTS[r[4]] for r in _COUNTRIES},
        "tongue": {COUNTRIES[r[0]]: TONGUES[r[5]] for r in _COUNTRIES},
        "class": _animal_facts(3, CLASSES),
        "food": _animal_facts(4, FOODS),
        "home": _animal_facts(5, HOMES),
        "legs": _animal_facts(6, {str(n): term for n, term in LEGS.items()}),
        "maker": {WORKS[r[1]]: PEOPLE[r[3]] for r in _WORKS},
        "deed": {_doer(WORKS[r[1]], PEOPLE[r[3]]): WORKS[r[1]] for r in _WORKS},
        "year": {EVENTS[f"{r[0]} {r[1]}"]: YEARS[r[4]] for r in _EVENTS},
        "position": dict(zip(PLANETS.values(), PLACES_IN_ORDER, strict=True)),
        "planet": {Term(r[0], r[1]): PLANETS[r[2]] for r in _PLANET_MARKS},
        "colour": {Term(r[0], r[1]): COLOURS[r[2]] for r in _COLOURED},
        "day_after": _next(DAYS, 1),
        "day_before": _next(DAYS, -1),
        "month_after": _next(MONTHS, 1),
        "month_before": _next(MONTHS, -1),
    }
)
"""relation -> subject -> value"""

OPPOSITES: tuple[tuple[Term, Term], ...] = tuple(
    (Term(r[0], r[1]), Term(r[2], r[3]))
    for r in _rows("""
big | 大 | small | 小
hot | 热 | cold | 冷
long | 长 | short | 短
high | 高 | low | 低
fast | 快 | slow | 慢
new | 新 | old | 旧
good | 好 | bad | 坏
rich | 富 | poor | 穷
heavy | 重 | light | 轻
open | 开 | closed | 关
happy | 开心 | sad | 难过
early | 早 | late | 晚
full | 满 | empty | 空
strong | 强 | weak | 弱
left | 左 | right | 右
up | 上 | down | 下
black | 黑 | white | 白
day | 白天 | night | 夜晚
inside | 里面 | outside | 外面
love | 爱 | hate | 恨
""")
)
