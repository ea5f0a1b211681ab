"""What a prompt is about, by rules of words that are read here: the first topic that fits. No model decides it, so that
everybody can say why a battle counts where it does."""

from __future__ import annotations

import re

from chatwheel.store.tables import Topic

SAMPLE = 2000
"""Characters that are read: what somebody wants stands before what they want it of."""
SMALL = 80
"""Characters of small talk at most: who greets and then asks is asking."""

_RULES: tuple[tuple[Topic, str], ...] = (
    (
        "code",
        r"```|\b(python|javascript|typescript|java|rust|golang|sql|html|css|regex(es)?|bash|api|json|code|coding|"
        r"program(s|ming)?|script|debug|compiler?|algorithm|unit tests?)\b|c\+\+|"
        r"\bfunction (that|which|to|called|named)\b|\bdef \w+\(|"
        r"代码|编程|程序|脚本|正则|算法|报错|调试|数据库|写.{0,12}函数|实现.{0,6}函数",
    ),
    (
        "translation",
        r"\btranslat(e|ion)\b|\bhow (do|would) (you|i|we) say\b|"
        r"\b(say|mean|means|put) .{0,60}\b(in|into) (english|chinese|french|german|spanish|japanese|russian)\b|"
        r"翻译|译成|译为|(英|中|法|日|德|俄|汉|韩|西班牙)(语|文)(怎么|如何)?(说|写|是什么)|用.{1,4}(语|文)怎么说|"
        r"的(英|中|法|日|德|俄)(语|文)",
    ),
    (
        "maths",
        r"\d\s*[+*×÷^=]\s*\d|\d\s+[-−/]\s+\d|\d\s*[-−/]\s*\d+\s*=|\b\d*x\s*[-+=^]\s*\d|"
        r"\b\d+ (plus|minus|times|divided by|percent of) \d|"
        r"\b(calculate|compute|equations?|integral|derivative|probability|square root|theorem|geometry|algebra|"
        r"arithmetic|fractions?|prime numbers?|triangle|how much is \d+)\b|"
        r"计算|方程|求导|导数|积分|概率|平方根|证明|几何|代数|算一算|质数|三角形|分数|\d\s*(加|减|乘|除)(上|去|以)?\s*\d",
    ),
    (
        "writing",
        r"^\W*(please |can you |could you |help me )*(write|draft|compose|rewrite|summari[sz]e|rephrase|proofread|"
        r"edit|shorten|polish|continue)\b|\b(poem|haiku|essay|short story|tell me a (story|joke)|cover letter|e-?mail|"
        r"slogan|headline|limerick)\b|"
        r"写(一|首|封|篇|个|段|份|出|作)|作文|作诗|诗歌|一首诗|讲(一)?个(故事|笑话)|邮件|改写|润色|总结|概括|续写|摘要|起草|标语",
    ),
    (
        "small_talk",
        r"^\W*(hi|hello|hey|howdy|good (morning|afternoon|evening|night)|thanks|thank you|bye|goodbye|see you|"
        r"how are you|how('s| is) it going|what'?s up|who are you|what('s| is) your name|nice to meet you|"
        r"are you (ok|there|a (robot|bot|human|person)))\b|"
        r"^\W*(你好|您好|嗨|哈喽|早上好|下午好|晚上好|晚安|早安|谢谢|多谢|再见|拜拜|你是谁|您是谁|你叫什么|你还好吗|最近怎么样|很高兴认识你|在吗)",
    ),
    (
        "question",
        r"[?？]\s*$|^\W*(what|who|whose|whom|when|where|why|how|which|is|are|was|were|do|does|did|can|could|should|will|"
        r"would|has|have|explain|tell me|name|describe|define)\b|"
        r"什么|谁|哪|为何|怎么|怎样|如何|多少|几(个|年|月|岁|点|次|种)|吗|是否|是不是|解释|介绍",
    ),
)
_TOPICS = tuple((topic, re.compile(pattern, re.IGNORECASE)) for topic, pattern in _RULES)


def topic_of(prompt: str) -> Topic:
    """One of the topics; "other" where no rule fits. Code comes before all others, as programs hold sums and words;
    translating a poem is translating."""
    text = prompt[:SAMPLE].strip()
    for topic, pattern in _TOPICS:
        if topic == "small_talk" and len(text) > SMALL:
            continue
        if pattern.search(text):
            return topic
    return "other"
