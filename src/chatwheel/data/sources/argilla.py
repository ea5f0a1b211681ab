"""Argilla's records -> rankings and demonstrations: what people answered to a RankingQuestion or a TextQuestion.

In the server's and the first SDK's shape `responses` is a list of {"user_id", "status", "values": {question:
{"value"}}}, in the second SDK's it is {question: [{"user_id", "value"}]}. A ranking's value is [{"value": field,
"rank": 1}, ...], where equal ranks tie, or the fields' names, the best first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from chatwheel.data.records import Conversation, Json, Message, Ranking
from chatwheel.data.sources.fields import Skip, WrongFieldError, extras
from chatwheel.data.sources.turns import conversation, turns_of

Said = tuple[str, str, Any]  # question, labeller, value
_ANSWER = re.compile(r"(response|answer|completion|reply|output)[-_ ]?\d+", re.IGNORECASE)
_WRITTEN = ("reply", "response", "answer", "completion", "output", "text", "correction")


def is_argilla(value: Json) -> bool:
    """Whether an object looks like a record of Argilla's."""
    return isinstance(value.get("fields"), dict) and isinstance(value.get("responses"), (list, dict))


def from_argilla(value: Json) -> Iterator[Ranking]:
    """A ranking for each person who has ranked."""
    found = [(labeller, said) for _, labeller, said in _responses(value) if _is_ranking(value, said)]
    if not found:
        raise Skip("nobody has ranked it")
    for labeller, said in found:
        names, ranks = _places(said)
        answers = [_field(value, name) for name in names]
        messages = conversation(_prompt(value, set(names))).messages
        if len(answers) < 2:
            raise Skip("fewer than two answers")
        values = {**_extras(value), "messages": messages, "answers": answers, "ranks": ranks}
        models = _models(value, names)
        more = {"models": models} if models else {}
        yield Ranking.model_validate(values | more | ({"labeller": labeller} if labeller else {}))


def dialogues_of_argilla(value: Json) -> Iterator[Conversation]:
    """The prompt with what each person has written, or alone where nobody has."""
    prompt = _prompt(value, {name for name in value["fields"] if _ANSWER.fullmatch(name)})
    written = [(who, said) for name, who, said in _responses(value) if name in _WRITTEN and isinstance(said, str)]
    for labeller, text in written:
        more = _extras(value) | ({"labeller": labeller} if labeller else {})
        yield conversation([*prompt, Message(role="assistant", content=text)], more)
    if not written:
        yield conversation(prompt, _extras(value))


def _responses(value: Json) -> Iterator[Said]:
    responses = value.get("responses")
    if isinstance(responses, dict):
        for name, some in responses.items():
            for one in some if isinstance(some, list) else [some]:
                if not isinstance(one, dict) or "value" not in one:
                    raise WrongFieldError(f"field 'responses.{name}' should be a list of objects with a value")
                if one.get("status", "submitted") == "submitted":
                    yield name, str(one.get("user_id") or ""), one["value"]
        return
    for place, one in enumerate(responses or []):
        values = one.get("values") if isinstance(one, dict) else None
        if values is None and isinstance(one, dict) and one.get("status") != "submitted":
            continue  # discarded, or a draft
        if not isinstance(values, dict) or not all(isinstance(v, dict) and "value" in v for v in values.values()):
            raise WrongFieldError(f"field 'responses[{place}].values' should be an object of questions with a value")
        if one.get("status", "submitted") == "submitted":
            for name, said in values.items():
                yield name, str(one.get("user_id") or ""), said["value"]


def _is_ranking(value: Json, said: Any) -> bool:
    """A list of fields; what else is a list (a MultiLabelQuestion's labels) names no fields."""
    if not isinstance(said, list) or not said:
        return False
    if all(isinstance(one, dict) and "value" in one for one in said):
        return True
    return all(isinstance(one, str) and one in value["fields"] for one in said)


def _places(said: list[Any]) -> tuple[list[str], list[int]]:
    if isinstance(said[0], str):
        return list(said), list(range(1, len(said) + 1))
    ranks = [one.get("rank") if one.get("rank") is not None else place for place, one in enumerate(said, start=1)]
    if not all(type(rank) is int for rank in ranks):
        raise WrongFieldError("the ranks of a ranking should be whole numbers")
    return [str(one["value"]) for one in said], ranks


def _field(value: Json, name: str) -> str:
    found = value["fields"].get(name)
    if not isinstance(found, str):
        names = ", ".join(map(repr, value["fields"]))
        raise WrongFieldError(f"a ranking names the field {name!r}, which should be a text (the fields: {names})")
    return found


def _prompt(value: Json, answers: set[str]) -> list[Message]:
    """A field of messages (a ChatField), or the texts that are no answers, below each other."""
    others = {name: found for name, found in value["fields"].items() if name not in answers and found}
    chats = [found for found in others.values() if isinstance(found, list)]
    if chats:
        return turns_of(chats[0], "user")
    texts = [found for found in others.values() if isinstance(found, str)]
    if not texts:
        raise Skip("no prompt")
    return [Message(role="user", content="\n\n".join(texts))]


def _models(value: Json, names: list[str]) -> list[str | None]:
    metadata = value.get("metadata") if isinstance(value.get("metadata"), dict) else {}
    found = [(metadata or {}).get(f"{name}-model") for name in names]
    return [model if isinstance(model, str) else None for model in found] if any(found) else []


def _extras(value: Json) -> Json:
    metadata = value.get("metadata") if isinstance(value.get("metadata"), dict) else {}
    kept = extras(metadata or {})
    kept = {name: found for name, found in kept.items() if not name.endswith("-model")}
    return kept | ({"id": str(value["external_id"])} if value.get("external_id") else {})
