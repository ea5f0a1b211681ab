"""How a chat template writes calls of functions: it is asked to write some, and the text around the names and the
arguments is read off. So no template has to be known by its name.

A template that describes no functions, or writes their calls in another way than a name followed by JSON, gets a
general form: functions are described in the system message, calls stand between `<tool_call>` and `</tool_call>`, and
results in a user's message. Many models have seen that form (Hermes, Qwen), and any can follow it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from chatwheel.errors import InputError

Json = Mapping[str, Any]

CALL_ID = "\ue0f2"
"""In a format's text: nine letters or digits, a call's id as Mistral's templates have it."""
ID_LENGTH = 9


@dataclass(frozen=True, kw_only=True)
class CallFormat:
    """An answer's calls: `opening` NAME `middle` ARGUMENTS (`following` NAME `middle` ARGUMENTS)* `closing`.

    following: None where an answer has one call only. native: whether the template itself writes that.
    text_arguments: it wants arguments as text, not as an object. short_ids: it takes no ids but of nine letters or
    digits.
    """

    opening: str
    middle: str
    closing: str
    following: str | None
    native: bool = True
    text_arguments: bool = False
    short_ids: bool = False

    @property
    def marker(self) -> str:
        """What tells a call from other text, wherever it stands; empty where a call is bare JSON, as Llama's."""
        tag = re.match(r"\s*(<[^<>\s]+>|\[[^\[\]\s]+\])", self.opening)
        return tag[1] if tag else self.opening.partition("{")[0].strip()


GENERAL = CallFormat(
    opening='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    closing="}\n</tool_call>",
    following='}\n</tool_call>\n<tool_call>\n{"name": "',
    native=False,
)

_DESCRIPTION = """# Tools

You can call functions to help the user. These are their signatures, as JSON between <tools> and </tools>:
<tools>
%s
</tools>

To call a function, write a JSON object with its name and arguments between <tool_call> and </tool_call>; \
for several calls, one after another:
<tool_call>
{"name": <function-name>, "arguments": <arguments-as-json-object>}
</tool_call>
The results come between <tool_response> and </tool_response>. Without need of a function, just answer."""


def in_general_form(messages: Sequence[Json], tools: Sequence[Json] | None, *, system: bool) -> list[Json]:
    """A conversation with functions as one without: for templates that know none. The arguments are objects.

    system: whether the functions are described in a system message; else the first message has it.
    """
    plain: list[Json] = []
    for i, message in enumerate(messages):
        content = str(message["content"])
        if message["role"] == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if i and messages[i - 1]["role"] == "tool":
                plain[-1] = {**plain[-1], "content": f"{plain[-1]['content']}\n{content}"}
            else:
                plain.append({"role": "user", "content": content})
        elif message.get("tool_calls"):
            calls = _written(message["tool_calls"])
            plain.append({"role": message["role"], "content": f"{content}\n{calls}" if content else calls})
        else:
            plain.append({"role": message["role"], "content": content})
    if not tools:
        return plain
    described = _DESCRIPTION % "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    first = plain[0] if plain else {"role": "", "content": ""}
    if first["role"] == "system" or (not system and plain):
        return [{**first, "content": f"{first['content']}\n\n{described}".strip()}, *plain[1:]]
    return [{"role": "system", "content": described}, *plain]


def _written(calls: Sequence[Json]) -> str:
    functions = [call["function"] for call in calls]
    texts = [
        f"{f['name']}{GENERAL.middle}{json.dumps(f['arguments'], ensure_ascii=False)}"
        if not isinstance(f["arguments"], str)
        else f"{f['name']}{GENERAL.middle}{f['arguments']}"
        for f in functions
    ]
    return GENERAL.opening + str(GENERAL.following).join(texts) + GENERAL.closing


_FIRST, _SECOND, _SAID = "probe_function_1", "probe_function_2", "\ue0f3"
_ARGUMENTS = re.compile(r'\{\s*"probe_key"\s*:\s*"probe_value"\s*\}')
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "probe_description",
            "parameters": {
                "type": "object",
                "properties": {"probe_key": {"type": "string", "description": "A key."}},
                "required": ["probe_key"],
            },
        },
    }
    for name in (_FIRST, _SECOND)
]
_ASKED = {"role": "user", "content": "probe_question"}
_LONG_IDS, _SHORT_IDS = ("call_probe0000000000000001", "call_probe0000000000000002"), ("probe0001", "probe0002")


def find_format(
    render: Callable[[Sequence[Json], Sequence[Json] | None], str], special_tokens: Sequence[str] = ()
) -> CallFormat | None:
    """How a template writes calls, or None if it is not one for functions. render: messages and tools to text; what it
    raises as InputError is a template's refusal. special_tokens: what is not to be cut."""
    pieces = re.compile("|".join([*map(re.escape, filter(None, special_tokens)), "."]), re.DOTALL)
    try:
        described = render([_ASKED], _TOOLS)
        if not all(text in described for text in (_FIRST, _SECOND, "probe_description")):
            return None
        said = render([_ASKED, {"role": "assistant", "content": _SAID}], _TOOLS)
    except InputError:
        return None
    for short_ids in (False, True):
        for text_arguments in (False, True):
            ids = _SHORT_IDS if short_ids else _LONG_IDS

            def written(*names: str, ids: Sequence[str] = ids, as_text: bool = text_arguments) -> str:
                calls = [_call(name, i, as_text) for name, i in zip(names, ids, strict=False)]
                try:
                    text = render([_ASKED, {"role": "assistant", "content": "", "tool_calls": calls}], _TOOLS)
                except InputError:
                    return ""
                return re.sub("|".join(ids), CALL_ID, _differing(pieces.findall(text), pieces.findall(said)))

            one = _ARGUMENTS.split(written(_FIRST))
            if len(one) != 2 or one[0].count(_FIRST) != 1:
                continue
            opening, middle = one[0].split(_FIRST)
            if text_arguments and middle.rstrip().endswith("{"):
                continue  # it takes the members of an object, without its braces
            two = re.split(f"{_ARGUMENTS.pattern}|{_FIRST}|{_SECOND}", written(_FIRST, _SECOND))
            repeated = len(two) == 5 and (two[0], two[1], two[3], two[4]) == (opening, middle, middle, one[1])
            return CallFormat(
                opening=opening,
                middle=middle,
                closing=one[1],
                following=two[2] if repeated else None,
                text_arguments=text_arguments,
                short_ids=short_ids,
            )
    return None


def _call(name: str, call_id: str, as_text: bool) -> Json:
    arguments: Any = {"probe_key": "probe_value"}
    arguments = json.dumps(arguments) if as_text else arguments
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _differing(text: list[str], other: list[str]) -> str:
    """The part of a text between what it begins and ends with like the other, both in pieces."""
    begin = _equal(text, other)
    end = _equal(text[begin:][::-1], other[begin:][::-1])
    return "".join(text[begin : len(text) - end])


def _equal(some: list[str], others: list[str]) -> int:
    """How many are the same before the first that differs."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False)))
