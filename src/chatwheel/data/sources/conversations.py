"""Published shapes of demonstrations -> conversations. Each function takes one object of the file."""

from __future__ import annotations

from collections.abc import Iterator

from chatwheel.data.records import Conversation, Json, Message
from chatwheel.data.sources.fields import Skip, WrongFieldError, extras, objects, optional_text, text
from chatwheel.data.sources.turns import (
    content_of,
    conversation,
    exchange,
    hh_messages,
    role_of,
    task,
    without_calculator,
)


def from_messages(value: Json) -> Iterator[Conversation]:
    """OpenAI's {"messages": [{"role", "content", "weight"?, "tool_calls"?, "tool_call_id"?}], "tools"?}."""
    tools = {"tools": objects(value, "tools")} if value.get("tools") else {}
    yield conversation(map(_turn, objects(value, "messages")), extras(value, "messages") | tools)


def _turn(message: Json) -> Message:
    calls, call_id = message.get("tool_calls") or None, message.get("tool_call_id")
    is_result = message.get("role") == "tool" and isinstance(call_id, str)
    content = message.get("content")
    return Message.model_validate(
        {
            "role": "tool" if is_result else role_of(message.get("role")),
            "content": "" if calls and content is None else content_of(content),
            "weight": message["weight"] if message.get("weight") in (0, 1) else None,
            "tool_calls": calls,
            "tool_call_id": call_id if is_result else None,
        }
    )


def from_sharegpt(value: Json) -> Iterator[Conversation]:
    """ShareGPT's {"conversations": [{"from": "human", "value": ...}]}; the system text may stand beside it."""
    turns = [
        Message(role=role_of(m.get("from")), content=content_of(m.get("value")))
        for m in objects(value, "conversations")
    ]
    system = optional_text(value, "system")
    yield conversation(_with_system(system, turns), extras(value, "conversations", "system"))


def from_alpaca(value: Json) -> Iterator[Conversation]:
    """{"instruction", "input"?, "output", "history"?: [[question, answer], ...], "system"?}."""
    turns = [*alpaca_prompt(value), Message(role="assistant", content=text(value, "output"))]
    yield conversation(turns, extras(value, "instruction", "input", "output", "system"))


def alpaca_prompt(value: Json) -> list[Message]:
    """What was said before the answer: system, earlier turns (LLaMA-Factory's `history`), instruction and input."""
    turns: list[Message] = []
    for pair in value.get("history") or []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(said, str) for said in pair)):
            raise WrongFieldError("field 'history' should be a list of [question, answer]")
        turns += [Message(role="user", content=pair[0]), Message(role="assistant", content=pair[1])]
    turns.append(Message(role="user", content=task(text(value, "instruction"), optional_text(value, "input"))))
    return _with_system(optional_text(value, "system"), turns)


def from_prompt_completion(value: Json) -> Iterator[Conversation]:
    """{"prompt", "completion"}."""
    more = extras(value, "prompt", "completion")
    yield exchange(text(value, "prompt").strip(), text(value, "completion").strip(), more)


def from_question_answer(value: Json) -> Iterator[Conversation]:
    """{"question", "answer"}; GSM8K's marks are turned into prose."""
    more = extras(value, "question", "answer")
    yield exchange(text(value, "question"), without_calculator(text(value, "answer")), more)


def from_self_instruct(value: Json) -> Iterator[Conversation]:
    """{"instruction", "instances": [{"input", "output"}]}: a conversation an instance."""
    instruction = text(value, "instruction")
    for instance in objects(value, "instances"):
        asked = task(instruction, optional_text(instance, "input"))
        yield exchange(asked, text(instance, "output"), extras(value, "instruction", "instances"))


def from_prompt(value: Json) -> Iterator[Conversation]:
    """{"prompt"}: a question without an answer."""
    yield conversation([Message(role="user", content=text(value, "prompt"))], extras(value, "prompt"))


def from_text(value: Json) -> Iterator[Conversation]:
    """A text that is a prompt."""
    yield conversation([Message(role="user", content=text(value, "text").strip())], extras(value, "text"))


def from_lines(value: Json) -> Iterator[Conversation]:
    """A prompt a line."""
    for line in text(value, "text").splitlines():
        if line.strip():
            yield conversation([Message(role="user", content=line.strip())], extras(value, "text"))


def from_chosen(value: Json) -> Iterator[Conversation]:
    """hh-rlhf's chosen dialogue as a demonstration."""
    yield conversation(hh_messages(text(value, "chosen")), extras(value, "chosen", "rejected"))


def from_tree(value: Json) -> Iterator[Conversation]:
    """An Open-Assistant tree: at each question the best answer, and a path for each question asked after it.

    An answer shared by several paths counts once: in the later paths its weight is 0.
    """
    root = tree_root(value)
    seen: set[int] = set()
    paths = list(_best_paths(root))
    if not paths:
        raise Skip("no answer")
    for path in paths:
        turns = []
        for node in path:
            role = role_of(node.get("role"))
            repeated = role == "assistant" and id(node) in seen
            turns.append(Message(role=role, content=text(node, "text"), weight=0 if repeated else None))
            seen.add(id(node))
        yield conversation(turns, tree_extras(value, root))


def tree_root(value: Json) -> Json:
    """The first question of a tree, unless the tree was withdrawn."""
    root = value.get("prompt")
    if not isinstance(root, dict):
        raise WrongFieldError("field 'prompt' should be the first message with its replies")
    if root.get("deleted") or root.get("review_result") is False:
        raise Skip("withdrawn by its reviewers")
    return root


def tree_extras(value: Json, root: Json) -> Json:
    """Identity and language of a tree ("pt-BR" -> "pt")."""
    language = optional_text(root, "lang").split("-")[0]
    more = {"id": optional_text(value, "message_tree_id"), "language": language}
    return {name: found for name, found in more.items() if found}


def replies_of(node: Json) -> list[Json]:
    """The replies that stand: neither deleted nor rejected by reviewers nor written by a model."""
    replies = objects(node, "replies") if node.get("replies") else []
    return [
        r for r in replies if not r.get("deleted") and r.get("review_result") is not False and not r.get("synthetic")
    ]


def _best_paths(question: Json) -> Iterator[list[Json]]:
    answers = replies_of(question)
    if not answers:
        return
    best = min(answers, key=lambda a: a["rank"] if isinstance(a.get("rank"), int) else len(answers))
    longer = [[question, best, *path] for follow_up in replies_of(best) for path in _best_paths(follow_up)]
    yield from longer or [[question, best]]


def _with_system(system: str, turns: list[Message]) -> list[Message]:
    return [Message(role="system", content=system), *turns] if system.strip() else turns
