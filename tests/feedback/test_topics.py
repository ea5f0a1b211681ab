"""What prompts are about: examples in English and Chinese that people sorted by hand."""

from __future__ import annotations

import pytest

from chatwheel.feedback.topics import topic_of

EXAMPLES = {
    "code": """
        Write a Python function that reverses a list
        Why does this SQL query return nothing?
        def add(a, b): what is wrong with it?
        How do I debug a segfault in C++?
        用 Python 写一个快速排序
        写一个判断闰年的函数
        这段代码为什么报错？
    """,
    "maths": """
        What is 12 + 30?
        How much is 7 times 8, and 7*8?
        Solve the equation 2x - 3 = 5
        What is the probability of two sixes?
        计算 15 乘以 4
        解方程：x + 5 = 12
        求 f 的导数
        三角形的内角和是多少？
    """,
    "translation": """
        Translate "apple" into Chinese
        How do you say good night in French?
        What does 苹果 mean in English?
        把“苹果”翻译成英文
        “谢谢”用日语怎么说？
        猫的英语怎么说
    """,
    "writing": """
        Please write a short letter to my landlord
        Summarize the following text in two sentences: ...
        Give me a poem about the sea
        Can you rewrite this paragraph?
        写一首关于秋天的诗
        帮我润色这段话
        给老板写一封请假邮件
    """,
    "small_talk": """
        hello there
        Hi! How are you?
        Thanks a lot
        Who are you?
        你好
        谢谢你
        你是谁？
        早上好呀
    """,
    "question": """
        What is the capital of France?
        Why is the sky blue
        Is Pluto a planet?
        Tell me about the Great Wall
        Hello, could you please tell me at which time of the year the cherry trees are in flower in Kyoto?
        法国的首都是哪里？
        天空为什么是蓝色的
        介绍一下长城
        水是液体吗
    """,
    "other": """
        Buy milk on 2026-11-27
        red, green, blue
        今天天气真好。
        ok
    """,
}


@pytest.mark.parametrize("topic", EXAMPLES)
def test_each_topic_is_told_in_english_and_chinese(topic: str) -> None:
    prompts = [line.strip() for line in EXAMPLES[topic].strip().splitlines()]
    assert {prompt: topic_of(prompt) for prompt in prompts} == dict.fromkeys(prompts, topic)


def test_only_the_beginning_is_read_and_long_texts_take_no_time() -> None:
    assert topic_of("the same words " * 200_000 + "in python") == "other"
    assert topic_of("say " * 100_000) == "other"
    assert topic_of("") == "other"
