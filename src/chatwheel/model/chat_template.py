"""Conversations as text: the chat template in Jinja, and which of its characters the assistant says.

Templates mark the assistant's words with transformers' `{% generation %}` tag; the supervised mask comes from there.
Most templates on the Hub have no such tag: then the mask comes from where the assistant's own contents are found.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from types import BuiltinMethodType
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from chatwheel.errors import InputError
from chatwheel.model.call_format import GENERAL, ID_LENGTH, CallFormat, find_format, in_general_form

END_OF_TEXT, SYSTEM, USER, ASSISTANT, END = SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{%- else -%}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)

# A base model's: the messages as lines of a document that it goes on with.
PLAIN_TEMPLATE = "{{- '<|endoftext|>' -}}{%- for message in messages -%}{{ message['content'] + '\n' }}{%- endfor -%}"

# For a model that brings no template, whose tokenizer has no special tokens for turns either. An answer begins on a
# line of its own: a space before it would be one token with its first word, and that word never learnt.
TURNS_TEMPLATE = (
    "{{- bos_token -}}{%- for message in messages -%}{{ message['role'] | capitalize + ':\n' }}"
    "{%- if message['role'] == 'assistant' -%}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{%- else -%}{{ message['content'] }}{%- endif -%}{{ '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:\n' }}{%- endif -%}"
)

# Private-use characters that mark where the assistant's words begin and end while a template renders.
_BEGIN, _FINISH = "\ue0f0", "\ue0f1"
_MARKS = re.compile(f"([{_BEGIN}{_FINISH}])")


class _Generation(Extension):
    """Jinja's `{% generation %}...{% endgeneration %}`: renders its body between two marks."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{_BEGIN}{caller()}{_FINISH}"


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with what templates do most done first: reading a message's field, a string's method, whether
    this is the loop's last turn. What it returns is the same."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _DICT_NAMES:
            return obj[attribute]
        if attribute in _SAFE_NAMES.get(type(obj), ()):
            return getattr(obj, attribute)
        if type(obj) is _PlainNamespace and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                pass
        return super().getattr(obj, attribute)

    def call(self, context: Context, obj: Any, /, *arguments: Any, **named: Any) -> Any:
        if type(obj) is BuiltinMethodType and type(obj.__self__) is str and obj.__name__ in _SAFE_NAMES[str]:
            return obj(*arguments, **{k: v for k, v in named.items() if k not in ("_loop_vars", "_block_vars")})
        return super().call(context, obj, *arguments, **named)


_DICT_NAMES = frozenset(dir(dict))
# The sandbox watches formats: through them attributes can be reached.
_SAFE_NAMES: dict[type, frozenset[str]] = {
    kind: frozenset(name for name in dir(kind) if not name.startswith(("_", "format"))) for kind in (str, LoopContext)
}


class _PlainNamespace(Namespace):
    """Jinja's namespace, without the names through which Python's insides can be reached."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"the name {name!r} is not allowed in a namespace")
        super().__setitem__(name, value)


@dataclass(frozen=True)
class Rendered:
    """A conversation as text; `spans` are the (begin, end) character ranges that the assistant says."""

    text: str
    spans: tuple[tuple[int, int], ...]


class ChatTemplate:
    """A compiled template. Renders in a sandbox: a template from the Hub is data, not code.

    special_tokens: those that no message may hold. variables: what the template may refer to by name, as `bos_token`.
    today: what `strftime_now` says; the clock does, unless given.
    """

    def __init__(
        self,
        source: str = CHAT_TEMPLATE,
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        variables: Mapping[str, str] | None = None,
        today: date | None = None,
    ) -> None:
        # As transformers sets Jinja up, so that its templates render alike.
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals = {  # no more than templates use
            "raise_exception": _refuse,
            "strftime_now": (today.strftime if today is not None else time.strftime),
            "namespace": _PlainNamespace,
            "range": safe_range,
            "dict": dict,
        }
        self.source = source
        self._special_tokens = tuple(special_tokens)
        self._removed = tuple(dict.fromkeys((*filter(None, self._special_tokens), _BEGIN, _FINISH)))
        self._first_characters = tuple({token[0] for token in self._removed})
        self._last_characters = frozenset(token[-1] for token in self._removed)
        self._longest = max(map(len, self._removed))
        self._any_removed = re.compile("|".join(map(re.escape, self._removed)))
        self._variables = {**environment.globals, **(variables or {}), "tools": None}
        self._marks_answers = "endgeneration" in source
        try:
            self._template = environment.from_string(source)
        except (TemplateSyntaxError, SyntaxError) as error:
            message = error.message if isinstance(error, TemplateSyntaxError) else error.msg
            raise InputError(f"the chat template is damaged (line {error.lineno}: {message})") from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Rendered:
        """The text of `{"role", "content"}` messages. Special tokens inside a content are taken out of it, so that
        nobody can end a turn, or speak for the assistant, from within a message.

        tools: definitions of the functions that may be called, as OpenAI has them; messages then may have `tool_calls`,
        and the role `tool`. Raises InputError.
        """
        if tools or any(m["role"] == "tool" or m.get("tool_calls") for m in messages):
            try:
                clean, tools = self._with_calls(messages, tools or ())
            except RecursionError:
                raise InputError("a function, or a call's arguments, is nested too deeply; make it flatter") from None
        else:
            clean = [{"role": m["role"], "content": self.without_special_tokens(m["content"])} for m in messages]
        if self._marks_answers:
            return _parted(self._render(clean, add_generation_prompt, tools))
        text = self._render(clean, add_generation_prompt, tools)
        # A prompt is answered, not trained on: what cannot be marked can still be chatted with.
        return Rendered(text, () if add_generation_prompt else self._found_spans(clean, text, tools))

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        values = {**self._variables, "messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            # What `Template.render` does, without gathering the globals anew: that took a third of a short rendering.
            context = self._template.new_context(values | {"tools": tools} if tools else values, shared=True)
            return "".join(self._template.root_render_func(context))
        except InputError:
            raise
        except Exception as error:  # a template is foreign code: it may fail in any way, or try what it must not
            raise InputError(f"the chat template fails on this conversation: {error}") from None

    @cached_property
    def call_format(self) -> CallFormat:
        """How this template writes calls of functions; the general form if it knows none."""
        found = find_format(lambda messages, tools: self._unmarked(messages, tools), self._special_tokens)
        return found or GENERAL

    def _unmarked(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> str:
        return _MARKS.sub("", self._render(messages, False, tools))

    @cached_property
    def _takes_system(self) -> bool:
        try:
            asked = [{"role": "system", "content": "probe"}, {"role": "user", "content": "question"}]
            return "probe" in self._render(asked, True)
        except InputError:
            return False

    def _with_calls(
        self, conversation: Sequence[Mapping[str, Any]], definitions: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """The conversation as the template wants it, be it that it knows functions or not."""
        form, tools = self.call_format, [self._clean_value(tool) for tool in definitions] or None
        messages = [self._clean(m) for m in conversation]
        names = {call["id"]: call["function"]["name"] for m in messages for call in m.get("tool_calls", ())}
        for m in messages:
            if m.get("tool_call_id") in names:
                m.setdefault("name", names[m["tool_call_id"]])  # some templates tell it with the result
        if not form.native:
            return [dict(m) for m in in_general_form(messages, tools, system=self._takes_system)], None
        return [_fitted(m, form) for m in messages], tools

    def _clean(self, message: Mapping[str, Any]) -> dict[str, Any]:
        clean = {"role": message["role"], "content": self.without_special_tokens(message["content"] or "")}
        calls = message.get("tool_calls")
        if calls:
            clean["tool_calls"] = [self._clean_value(_with_object(call)) for call in calls]
        if message["role"] == "tool":
            given = {name: message[name] for name in ("tool_call_id", "name") if message.get(name) is not None}
            clean |= self._clean_value(given)
        return clean

    def _clean_value(self, value: Any) -> Any:
        """JSON whose strings hold no special tokens."""
        if isinstance(value, str):
            return self.without_special_tokens(value)
        if isinstance(value, Mapping):
            return {self._clean_value(key): self._clean_value(item) for key, item in value.items()}
        return [self._clean_value(item) for item in value] if isinstance(value, (list, tuple)) else value

    def _found_spans(
        self, messages: Sequence[Mapping[str, Any]], text: str, tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[tuple[int, int], ...]:
        """Where an unmarked template puts the assistant's words: from where its generation prompt ends, or where that
        is not what the conversation goes on with, from where the content begins; to the special token behind it.

        The contents are found by rendering once more with marks in them. Raises InputError if the template changes
        its output then, so that nobody trains on a guess.
        """
        if not any(m["role"] == "assistant" for m in messages):
            return ()
        for marked in (_marked, _marked_inside, _marked_behind_thoughts):
            try:
                rendered = _parted(self._render([marked(m) for m in messages], False, tools))
            except InputError:
                continue
            if rendered.text == text:
                break
        else:
            raise InputError(
                "the chat template has no {% generation %} tag and rewrites what the assistant says, so that its words "
                "can't be found; add the tag around them"
            )
        spans: list[tuple[int, int]] = []
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        if len(turns) != len(rendered.spans):
            raise InputError(
                "the chat template leaves an assistant's message out; this conversation can't be trained on"
            )
        for i, (begin, end) in zip(turns, rendered.spans, strict=True):
            if "tool_calls" in messages[i]:
                begin, end = self._around_calls(text, begin, end, bool(messages[i]["content"]))
            prompt = self._render(messages[:i], True, tools) if i else ""
            before = spans[-1][1] if spans else 0
            if i and before <= len(prompt) <= begin and text.startswith(prompt):
                begin = len(prompt)
            spans.append((begin, self._end_of_turn(text, end)))
        return tuple(spans)

    def _around_calls(self, text: str, begin: int, end: int, has_content: bool) -> tuple[int, int]:
        """From the marks of a turn with calls, the first at its content or else its first name, the second behind its
        last name, to where it begins and to where the token that ends it does."""
        opening = "" if has_content else self.call_format.opening
        last = self._turn_end and text.find(self._turn_end, end)
        if not isinstance(last, int) or last < 0 or not text.endswith(opening, 0, begin):
            raise InputError("the chat template ends calls with no special token; they can't be trained on")
        return begin - len(opening), last

    @cached_property
    def _turn_end(self) -> str:
        return self.end_of_turn()

    def _end_of_turn(self, text: str, end: int) -> int:
        """Behind the special token that follows the content, or the content's end if none does."""
        behind = text[end:]
        token = next((t for t in self._special_tokens if behind.lstrip().startswith(t)), "")
        return end + behind.index(token) + len(token) if token else end

    def end_of_turn(self) -> str:
        """The special token that ends the assistant's turns, or an empty string if none is found."""
        try:
            rendered = self.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        except InputError:  # a template that wants more than that, or that nobody can train with
            return ""
        said = rendered.text[slice(*rendered.spans[-1])] if rendered.spans else ""
        return max((t for t in self._special_tokens if said.endswith(t)), key=len, default="")

    def without_special_tokens(self, content: str) -> str:
        """Text that nothing but text can be read out of: what taking out a token puts together goes too."""
        # Most texts hold none, which is seen fast; some families have hundreds of special tokens.
        if not any(c in content for c in self._first_characters):
            return content
        first = self._any_removed.search(content)
        if first is None:
            return content
        # One pass, whatever is nested in what: what is kept holds no token, so the next one ends where we are.
        kept = list(content[: first.start()])
        for character in content[first.start() :]:
            kept.append(character)
            if character in self._last_characters:
                end = "".join(kept[-self._longest :])
                if end.endswith(self._removed):
                    del kept[-max(len(token) for token in self._removed if end.endswith(token)) :]
        return "".join(kept)


# Where the marks go. Templates that strip contents would keep the space inside the first kind; those that know of
# reasoning take what is before </think> out of older turns, and put it back otherwise than it was into the last.


def _marked(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message["role"] != "assistant":
        return message
    if "tool_calls" in message:
        return _marked_calls(message)
    return {**message, "content": f"{_BEGIN}{message['content']}{_FINISH}"}


def _marked_calls(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """With marks before the content, or else the first name, and behind the last name: an empty content must stay so,
    since templates ask whether there is one."""
    calls = [{**call, "function": dict(call["function"])} for call in message["tool_calls"]]
    if not message["content"]:
        calls[0]["function"]["name"] = _BEGIN + calls[0]["function"]["name"]
    calls[-1]["function"]["name"] += _FINISH
    return {**message, "content": message["content"] and _BEGIN + message["content"], "tool_calls": calls}


def _marked_inside(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return _marked({**message, "content": message["content"].strip()}) if message["role"] == "assistant" else message


def _marked_behind_thoughts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message["role"] != "assistant":
        return message
    thoughts, end, answer = message["content"].rpartition("</think>")
    if "tool_calls" in message:
        return _marked_calls(message)
    return {**message, "content": f"{thoughts}{end}{_BEGIN}{answer.strip()}{_FINISH}"}


def _parted(marked: str) -> Rendered:
    """A rendering without its marks, and what stood between them. Raises InputError if they are not in pairs."""
    text, spans, length = [], [], 0
    for number, piece in enumerate(_MARKS.split(marked)):
        if number % 2:  # a mark: they take turns
            if piece != (_FINISH if number % 4 == 3 else _BEGIN):
                raise InputError("the chat template takes the assistant's words apart; this conversation can't be used")
            continue
        text.append(piece)
        if number % 4 == 2:
            spans.append((length, length + len(piece)))
        length += len(piece)
    if marked.count(_BEGIN) != len(spans) or marked.count(_FINISH) != len(spans):
        raise InputError("the chat template takes the assistant's words apart; this conversation can't be used")
    return Rendered("".join(text), tuple(spans))


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call whose arguments are an object, as templates want them; OpenAI sends them as text."""
    function = call["function"]
    arguments = function["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise InputError(f"the arguments of a call of {function['name']} are not JSON") from None
    function = {"name": function["name"], "arguments": arguments}
    return {"id": call.get("id"), "type": "function", "function": function}


def _fitted(message: dict[str, Any], form: CallFormat) -> dict[str, Any]:
    """A message whose ids and arguments are as the template wants them."""
    fitted = dict(message)
    if form.short_ids and "tool_call_id" in message:
        fitted["tool_call_id"] = _short_id(message["tool_call_id"])
    if "tool_calls" not in message:
        return fitted
    calls = []
    for call in message["tool_calls"]:
        call_id = _short_id(call["id"]) if form.short_ids else call["id"]
        function = call["function"]
        if form.text_arguments:
            function = {**function, "arguments": _to_json(function["arguments"])}
        calls.append({**call, "id": call_id, "function": function})
    return fitted | {"tool_calls": calls}


def _short_id(call_id: str | None) -> str:
    """An id of nine letters and digits, the same for the same id."""
    if call_id is not None and re.fullmatch(f"[a-zA-Z0-9]{{{ID_LENGTH}}}", call_id):
        return call_id
    return hashlib.sha256(str(call_id).encode()).hexdigest()[:ID_LENGTH]


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options))


def _refuse(message: str) -> None:
    raise InputError(f"the chat template refuses this conversation: {message}")
