"""Functions in chat templates: the same ids as transformers', and a general form for templates that know none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatwheel.errors import InputError
from chatwheel.model.call_format import GENERAL
from chatwheel.model.chat_template import CHAT_TEMPLATE, PLAIN_TEMPLATE, TURNS_TEMPLATE, ChatTemplate
from chatwheel.model.tokenizer import Tokenizer
from tests.model.tool_templates import STYLES, TAGS, TOOLS, as_sent, call, conversation, written

each_style = pytest.mark.parametrize("style", STYLES)


def at_once(style: str) -> int:
    return 1 if style == "bare" else 2


@each_style
def test_every_prompt_of_a_conversation_is_that_of_transformers(style: str, tmp_path: Path) -> None:
    theirs, ours = written(tmp_path, style), Tokenizer.load(tmp_path)
    messages = conversation(at_once(style))
    prompts = [messages[:n] for n in range(2, len(messages) + 1) if messages[n - 1]["role"] in ("user", "tool")]
    assert len(prompts) == 3 + at_once(style)
    for prompt in prompts:
        for tools in (TOOLS, None):
            expected = theirs.apply_chat_template(prompt, tools=tools, add_generation_prompt=True, return_dict=True)
            assert ours.encode_prompt(as_sent(prompt), tools) == expected["input_ids"]
    whole = theirs.apply_chat_template(messages, tools=TOOLS, tokenize=False)
    assert ours.template.render(as_sent(messages), tools=TOOLS).text == whole


@pytest.mark.parametrize(
    ("style", "opening", "middle", "closing", "following", "marker"),
    [
        ("tags", *(getattr(GENERAL, n) for n in ("opening", "middle", "closing", "following")), "<tool_call>"),
        ("thoughts", *(getattr(GENERAL, n) for n in ("opening", "middle", "closing", "following")), "<tool_call>"),
        ("bare", '{"name": "', '", "parameters": ', "}", None, ""),
        (
            "list",
            '[TOOL_CALLS] [{"name": "',
            '", "arguments": ',
            ', "id": "\ue0f2"}]',
            ', "id": "\ue0f2"}, {"name": "',
            "[TOOL_CALLS]",
        ),
    ],
)
def test_how_calls_are_written_is_read_off_the_template(
    style: str, opening: str, middle: str, closing: str, following: str | None, marker: str, tmp_path: Path
) -> None:
    written(tmp_path, style)
    form = Tokenizer.load(tmp_path).template.call_format
    assert (form.opening, form.middle, form.closing, form.following) == (opening, middle, closing, following)
    assert (form.native, form.marker, form.short_ids) == (True, marker, style == "list")


def test_arguments_stay_text_for_a_template_that_joins_them(tmp_path: Path) -> None:
    written(tmp_path, "tags")
    source = TAGS.replace("{{- call.arguments | tojson }}", "{{- '' + call.arguments }}")
    template = ChatTemplate(source, ["<|im_end|>"])
    assert template.call_format.text_arguments
    messages = [{"role": "user", "content": "x"}, *as_sent([conversation(1)[2]])]
    assert '"arguments": {"city": "巴黎", "days": 2}}' in template.render(messages, tools=TOOLS).text


def test_ids_that_a_template_does_not_take_are_shortened_alike(tmp_path: Path) -> None:
    written(tmp_path, "list")
    template = Tokenizer.load(tmp_path).template
    text = template.render(
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [call("call_0123456789abcdef", "add", {"a": 1})]},
            {"role": "tool", "tool_call_id": "call_0123456789abcdef", "content": "2"},
        ],
        tools=TOOLS,
    ).text
    first, second = (text.partition(key)[2][:9] for key in ('"id": "', '"call_id": "'))
    assert first == second
    assert first.isalnum()


@each_style
def test_calls_are_supervised_to_the_end_of_their_turn(style: str, tmp_path: Path) -> None:
    written(tmp_path, style)
    template = Tokenizer.load(tmp_path).template
    form, end = template.call_format, STYLES[style][1]["eos_token"]
    rendered = template.render(as_sent(conversation(at_once(style))), tools=TOOLS)
    said = [rendered.text[a:b] for a, b in rendered.spans]
    assert len(said) == 4
    assert all(text.endswith(end) and text.count(end) == 1 for text in said)
    assert said[0].startswith(form.opening + "get_weather" + form.middle + '{"city": "巴黎"')
    assert said[0].count("get_weather") == at_once(style)
    assert said[2].startswith(form.opening + "add" + form.middle + '{"a": 1, "b": 1}')
    assert [said[1].strip(), said[3].split("</think>")[-1].strip()] == ["巴黎 20.5 度。" + end, "It is 2." + end]


def test_words_before_a_call_are_supervised_with_it(tmp_path: Path) -> None:
    written(tmp_path, "tags")
    template = Tokenizer.load(tmp_path).template
    message = {"role": "assistant", "content": "Let me see.", "tool_calls": [call("x", "add", {"a": 1})]}
    rendered = template.render([{"role": "user", "content": "1?"}, message], tools=TOOLS)
    ((begin, end),) = rendered.spans
    assert rendered.text[begin:end].startswith("Let me see.\n<tool_call>\n")
    assert rendered.text[begin:end].endswith("</tool_call><|im_end|>")


@pytest.mark.parametrize("source", [CHAT_TEMPLATE, TURNS_TEMPLATE, PLAIN_TEMPLATE])
def test_a_template_without_functions_gets_them_in_the_system_message(source: str) -> None:
    template = ChatTemplate(source, variables={"bos_token": "", "eos_token": "<|end|>"})
    assert template.call_format is GENERAL
    messages = as_sent(conversation(2))
    text = template.render(messages, add_generation_prompt=True, tools=TOOLS).text
    assert (
        text.index("Be brief.\n\n# Tools") < text.index(json.dumps(TOOLS[0], ensure_ascii=False)) < text.index("巴黎的")
    )
    calls = (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "巴黎", "days": 2}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "\\"Rome\\" <b>\\n", "extra": [1.0, null, true]}}\n'
        "</tool_call>"
    )
    assert calls in text
    assert '<tool_response>\n{"t": 20.5}\n</tool_response>\n<tool_response>\n晴天\n</tool_response>' in text
    without = template.render(messages[1:2], add_generation_prompt=True, tools=TOOLS).text
    assert "# Tools" in without
    assert "# Tools" not in template.render(messages, add_generation_prompt=True).text


def test_our_own_template_supervises_calls_in_the_general_form() -> None:
    rendered = ChatTemplate().render(as_sent(conversation(1)), tools=TOOLS)
    said = [rendered.text[a:b] for a, b in rendered.spans]
    assert (
        said[0] == '<tool_call>\n{"name": "get_weather", "arguments": {"city": "巴黎", "days": 2}}\n</tool_call><|end|>'
    )
    assert said[3] == "It is 2.<|end|>"


def test_a_template_that_takes_no_system_message_gets_functions_in_the_question() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ '<' + m.role + '>' + m.content }}{% endfor %}"
    )
    text = ChatTemplate(source, []).render(conversation(1)[1:2], add_generation_prompt=True, tools=TOOLS).text
    assert text.startswith("<user>巴黎的天气怎么样? And Rome?\n\n# Tools")


@each_style
def test_special_tokens_in_definitions_arguments_and_results_are_taken_out(style: str, tmp_path: Path) -> None:
    theirs, ours = written(tmp_path, style), Tokenizer.load(tmp_path)
    bad = STYLES[style][1]["eos_token"]

    def prompt(text: str) -> list[int]:
        function = {"name": "f", "description": f"D{text}", "parameters": {"type": "object", f"x{text}": [text]}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call("abcdefgh0", "f", {f"k{text}": [f"v{text}"]})]},
            {"role": "tool", "tool_call_id": "abcdefgh0", "content": f"r{text}"},
        ]
        return ours.encode_prompt(messages, [{"type": "function", "function": function}])

    assert prompt(bad) == prompt("")
    assert theirs.convert_tokens_to_ids(bad) in prompt("")


def test_arguments_that_are_no_json_are_one_line() -> None:
    broken = {"role": "assistant", "content": "", "tool_calls": [call("a", "f", {})]}
    broken["tool_calls"][0]["function"]["arguments"] = '{"a": '  # type: ignore[index]
    with pytest.raises(InputError, match="arguments of a call of f are not JSON"):
        ChatTemplate().render([{"role": "user", "content": "x"}, broken])
