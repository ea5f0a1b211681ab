"""Everyday words of the world by category, each in both languages."""

from __future__ import annotations

from dataclasses import dataclass

from chatwheel.data.world.items import Language
from chatwheel.data.world.knowledge import ANIMALS, COLOURS, FACTS, PLANETS, TONGUES
from chatwheel.data.world.terms import Term


@dataclass(frozen=True)
class Category:
    """A kind of thing that can be listed: `one` and `many` are how questions name it."""

    en: str
    en_many: str
    zh: str
    members: tuple[Term, ...]
    measure: str = "种"
    """The Chinese measure word in 三种水果."""

    def many(self, language: Language) -> str:
        return self.en_many if language == "en" else self.zh


def _words(table: str) -> tuple[Term, ...]:
    rows = [[cell.strip() for cell in entry.split("=")] for entry in table.replace("\n", " ").split(",")]
    plural_of = {
        "strawberry": "strawberries",
        "potato": "potatoes",
        "tomato": "tomatoes",
        "bus": "buses",
        "dress": "dresses",
    }
    uncountable = {"water", "milk", "tea", "coffee", "juice", "bread", "rice", "cabbage", "rain", "snow", "wind"}
    return tuple(Term(en, zh, plural="" if en in uncountable else plural_of.get(en, f"{en}s")) for en, zh in rows)


FRUITS = _words("apple=苹果, banana=香蕉, pear=梨, grape=葡萄, lemon=柠檬, peach=桃子, strawberry=草莓")
VEGETABLES = _words("carrot=胡萝卜, potato=土豆, onion=洋葱, cabbage=白菜, cucumber=黄瓜")
DRINKS = _words("water=水, milk=牛奶, tea=茶, coffee=咖啡, juice=果汁")
CLOTHES = _words("shirt=衬衫, hat=帽子, coat=大衣, shoe=鞋子, sock=袜子, dress=裙子")
FAMILY = _words("mother=妈妈, father=爸爸")
VEHICLES = _words("car=汽车, bus=公共汽车, train=火车, bike=自行车, boat=船, plane=飞机")
BODY = _words("hand=手, head=头, eye=眼睛, ear=耳朵, nose=鼻子, mouth=嘴")
FURNITURE = _words("table=桌子, chair=椅子, bed=床, door=门, window=窗户, lamp=灯")
NATURE = _words("sun=太阳, moon=月亮, star=星星, tree=树, flower=花, river=河, mountain=山, rain=雨, snow=雪, wind=风")
SCHOOL = _words("book=书, pen=钢笔, bag=书包, school=学校, letter=信, cup=杯子, bread=面包, rice=米饭, house=房子")
JOBS = _words("teacher=老师, doctor=医生, farmer=农民, cook=厨师, nurse=护士, driver=司机")


def _animals_where(relation: str, value: str) -> tuple[Term, ...]:
    return tuple(subject for subject, term in FACTS[relation].items() if term.en == value)


def _countries_in(continent: str) -> tuple[Term, ...]:
    return _animals_where("continent", continent)


CATEGORIES: tuple[Category, ...] = (
    Category("fruit", "fruits", "水果", FRUITS),
    Category("vegetable", "vegetables", "蔬菜", VEGETABLES),
    Category("drink", "drinks", "饮料", DRINKS),
    Category("piece of clothing", "pieces of clothing", "衣物", CLOTHES),
    Category("vehicle", "vehicles", "交通工具", VEHICLES),
    Category("part of the body", "parts of the body", "身体部位", BODY, "个"),
    Category("piece of furniture", "pieces of furniture", "家具", FURNITURE[:3], "件"),
    Category("job", "jobs", "职业", JOBS),
    Category("colour", "colours", "颜色", tuple(COLOURS.values())),
    Category("planet", "planets", "行星", tuple(PLANETS.values()), "颗"),
    Category("language", "languages", "语言", tuple(TONGUES.values())),
    Category("farm animal", "farm animals", "农场里的动物", _animals_where("home", "on farms")),
    Category(
        "animal that lives in the sea",
        "animals that live in the sea",
        "海里的动物",
        _animals_where("home", "in the sea"),
    ),
    Category("bird", "birds", "鸟", _animals_where("class", "bird")),
    Category("insect", "insects", "昆虫", _animals_where("class", "insect")),
    Category("country in Europe", "countries in Europe", "欧洲国家", _countries_in("Europe"), "个"),
    Category("country in Asia", "countries in Asia", "亚洲国家", _countries_in("Asia"), "个"),
)

EVERYDAY: tuple[Term, ...] = (
    *FRUITS,
    *VEGETABLES,
    *DRINKS,
    *CLOTHES,
    *FAMILY,
    *VEHICLES,
    *BODY,
    *FURNITURE,
    *NATURE,
    *SCHOOL,
    *COLOURS.values(),
    *(ANIMALS[name] for name in ("dog", "cat", "horse", "cow", "sheep")),
)
"""The words that are translated."""

ORDERED_WORDS: dict[Language, tuple[str, ...]] = {
    "en": (
        "apple",
        "banana",
        "car",
        "dog",
        "egg",
        "flower",
        "grape",
        "house",
        "juice",
        "king",
        "lemon",
        "moon",
        "nose",
        "orange",
        "pear",
        "queen",
        "river",
        "sun",
        "tree",
        "water",
        "bird",
        "cat",
        "door",
        "fish",
        "hat",
        "lamp",
        "milk",
    ),
    "zh": (
        "苹果",
        "香蕉",
        "汽车",
        "狗",
        "鸡蛋",
        "花",
        "葡萄",
        "房子",
        "果汁",
        "书",
        "柠檬",
        "月亮",
        "鼻子",
        "梨",
        "河",
        "太阳",
        "树",
        "水",
        "鸟",
        "猫",
        "门",
        "鱼",
        "帽子",
        "灯",
        "牛奶",
    ),
}
"""Words for reversing, sorting and counting: few, short and each known well."""
