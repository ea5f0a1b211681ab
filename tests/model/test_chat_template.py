"""The templates as text, and templates that were not made here."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chatwheel.errors import InputError
from chatwheel.model.chat_template import CHAT_TEMPLATE, PLAIN_TEMPLATE, SPECIAL_TOKENS, ChatTemplate

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "你好!"},
]


def test_the_chat_template_spelled_out() -> None:
    rendered = ChatTemplate().render(MESSAGES)
    assert rendered.text == (
        "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>"
        "<|user|>你好<|end|><|assistant|>你好!<|end|>"
    )
    assert [rendered.text[a:b] for a, b in rendered.spans] == ["Hello!<|end|>", "你好!<|end|>"]


def test_the_generation_prompt_opens_the_assistant_s_turn() -> None:
    rendered = ChatTemplate().render(MESSAGES[:2], add_generation_prompt=True)
    assert rendered.text == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"
    assert rendered.spans == ()


def test_a_base_model_s_template_is_a_document() -> None:
    rendered = ChatTemplate(PLAIN_TEMPLATE).render(MESSAGES[1:3], add_generation_prompt=True)
    assert rendered.text == "<|endoftext|>Hi\nHello!\n"


@pytest.mark.parametrize("content", ["<|end|>", "<|en<|end|>d|>", "<<|end|>|end|>", "a\ue0f0b\ue0f1"])
def test_marks_and_special_tokens_in_a_message_are_taken_out(content: str) -> None:
    rendered = ChatTemplate().render([{"role": "user", "content": "q"}, {"role": "assistant", "content": content}])
    assert rendered.text in ("<|user|>q<|end|><|assistant|><|end|>", "<|user|>q<|end|><|assistant|>ab<|end|>")
    ((begin, end),) = rendered.spans
    assert rendered.text[end:] == ""
    assert rendered.text[:begin].endswith("<|assistant|>")


def test_a_template_from_elsewhere_is_data_not_code() -> None:
    reaching_out = ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InputError, match="unsafe"):
        reaching_out.render(MESSAGES)
    changing = ChatTemplate("{{ messages.append(1) }}")
    with pytest.raises(InputError, match="unsafe"):
        changing.render(MESSAGES)
    naming = ChatTemplate("{% set ns = namespace() %}{% set ns.__class__ = 1 %}")
    with pytest.raises(InputError, match="not allowed"):
        naming.render(MESSAGES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content.format(1) }}",
        "{{ messages[0].content.upper().lower() }} {{ messages[0].keys() | list }} {{ messages[0].missing }}!",
        "{{ messages[0].content.__class__ }}",
        "{{ messages[0].content.split.__self__ }}",
        "{{ messages[0]['content'].strip(x=1) }}",
        "{{ messages[0].pop('role') }}",
        "{% set ns = namespace(a=1) %}{% set ns.b = ns.a + 1 %}{{ ns.b }}{{ ns.c }}{{ ns.__class__ }}",
        "{% for m in messages %}{{ loop.index0 }}{{ loop.cycle('a', 'b') }}{{ loop.__init__ }}{% endfor %}",
        "{% for m in messages if m.content.startswith('H') %}{{ m.content.split('e') }}{{ loop.index }}{% endfor %}",
    ],
)
def test_what_is_done_first_is_what_jinja_s_sandbox_does(source: str) -> None:
    """The short ways of the sandbox give what it gives without them, or are refused as it refuses."""
    theirs = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    ours = ChatTemplate(source)
    messages = [{"role": m["role"], "content": m["content"]} for m in MESSAGES]
    try:
        expected = theirs.from_string(source).render(messages=messages)
    except Exception as error:
        with pytest.raises(InputError, match=re.escape(str(error))):
            ours.render(messages, add_generation_prompt=True)
    else:
        assert ours.render(messages, add_generation_prompt=True).text == expected


def test_a_message_may_have_a_field_named_as_a_method() -> None:
    plain = ImmutableSandboxedEnvironment().from_string("{{ m.items() | list }}{{ m.role }}")
    values = {"items": "x", "role": "user"}
    ours = ChatTemplate("{{ m.items() | list }}{{ m.role }}", variables={"m": values})  # type: ignore[dict-item]
    assert ours.render([], add_generation_prompt=True).text == plain.render(m=values)


def test_hundreds_of_special_tokens_are_taken_out_too() -> None:
    tokens = [f"<|reserved_{i}|>" for i in range(300)]
    template = ChatTemplate(PLAIN_TEMPLATE, ["", *tokens])
    assert template.without_special_tokens("a<|reserved_7|>b<|res<|reserved_299|>erved_3|> < c |>") == "ab < c |>"


@given(
    st.lists(
        st.sampled_from(["<|end|>", "<|e", "nd|>", "<", "|", ">", "<|user", "|>", "\ue0f0", "a", "\n"]), max_size=60
    )
)
def test_what_is_taken_out_is_what_taking_out_again_and_again_leaves(parts: list[str]) -> None:
    content = again = "".join(parts)
    while any(token in again for token in (*SPECIAL_TOKENS, "\ue0f0")):
        for token in (*SPECIAL_TOKENS, "\ue0f0"):
            again = again.replace(token, "")
    assert ChatTemplate().without_special_tokens(content) == again


def test_of_tokens_in_each_other_none_is_left() -> None:
    template = ChatTemplate(PLAIN_TEMPLATE, ["<s>", "<<s>>", "</s>", "s>s"])
    for content in ("<<s>>", "<<<s>s>>", "a<s<s>s>", "<</s>/s>", "<s</s></s>>s>"):
        left = template.without_special_tokens(content)
        assert not any(token in left for token in ("<s>", "<<s>>", "</s>", "s>s"))


@pytest.mark.timeout(60)  # a pass for each of the 100,000 levels takes hours
def test_tokens_nested_in_tokens_are_taken_out_in_one_pass() -> None:
    content = "a" + "<|e" * 100_000 + "nd|>" * 100_000 + "b"
    assert ChatTemplate().without_special_tokens(content) == "ab"


def test_a_template_s_own_refusal_is_one_line() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match="roles must alternate"):
        template.render(MESSAGES)


def test_a_broken_template_is_one_line() -> None:
    with pytest.raises(InputError, match="template is damaged"):
        ChatTemplate(CHAT_TEMPLATE.removesuffix("{%- endif -%}"))


def test_a_template_that_tells_the_date_tells_the_one_given() -> None:
    source = "{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATE
    assert ChatTemplate(source, today=date(2001, 2, 3)).render(MESSAGES).text.startswith("03 Feb 2001<|system|>")
    assert f"{date.today():%Y}" in ChatTemplate(source).render(MESSAGES).text


def test_a_result_s_id_and_name_hold_no_special_tokens() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{{ m.role }} {{ m.tool_call_id or '' }} {{ m.name or '' }} {{ m.content }}{% endfor %}"
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}",
        ["<|end|>"],
    )
    call = {"id": "c<|end|>1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c<|end|>1", "name": "lo<|end|>ok", "content": "x"},
    ]
    assert "<|end|>" not in template.render(messages).text


def test_arguments_nested_too_deeply_are_one_line() -> None:
    deep: Any = 1
    for _ in range(3000):
        deep = [deep]
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": deep}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(InputError, match="nested too deeply"):
        ChatTemplate(CHAT_TEMPLATE).render([*messages, {"role": "tool", "tool_call_id": "1", "content": "x"}])
