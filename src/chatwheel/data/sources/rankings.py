"""Published shapes of comparisons -> rankings: one prompt, K answers, their places (1 is best)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any

from chatwheel.data.records import Conversation, Json, Message, Ranking
from chatwheel.data.sources.conversations import alpaca_prompt, replies_of, tree_extras, tree_root
from chatwheel.data.sources.fields import Skip, WrongFieldError, extras, objects, text, texts
from chatwheel.data.sources.turns import conversation, exchange, hh_messages, role_of, turns_of

_NUM_PREDICTIONS = 4


def from_hh(value: Json) -> Iterator[Ranking]:
    """hh-rlhf's {"chosen", "rejected"}: two dialogues that differ in the last answer only; as in TRL there may be a
    grade, see `_graded`."""
    chosen = conversation(hh_messages(text(value, "chosen"))).messages
    rejected = conversation(hh_messages(text(value, "rejected"))).messages
    yield _pair(chosen, rejected, extras(value, "chosen", "rejected") | _graded(value))


def from_preference(value: Json) -> Iterator[Ranking]:
    """{"prompt"?, "chosen", "rejected"}, each a string or a list of messages (TRL's preference formats); there may be a
    grade, see `_graded`."""
    before = turns_of(value["prompt"], "user") if value.get("prompt") else []
    both = [conversation([*before, *turns_of(value.get(n), "assistant")]).messages for n in ("chosen", "rejected")]
    yield _pair(both[0], both[1], extras(value, "prompt", "chosen", "rejected") | _graded(value))


def from_openai(value: Json) -> Iterator[Ranking]:
    """OpenAI's {"input": {"messages"}, "preferred_output": [message], "non_preferred_output": [message]}."""
    given = value.get("input")
    if not isinstance(given, dict):
        raise WrongFieldError("field 'input' should be an object with messages")
    before = objects(given, "messages")
    outputs = [objects(value, name) for name in ("preferred_output", "non_preferred_output")]
    if any(message.get("tool_calls") for message in chain(before, *outputs)):
        raise Skip("it calls tools")
    both = [conversation(turns_of([*before, *output], "assistant")).messages for output in outputs]
    yield _pair(both[0], both[1], extras(value, "input", "preferred_output", "non_preferred_output"))


def from_ranked_list(value: Json) -> Iterator[Ranking]:
    """{"instruction", "input"?, "history"?, "output": [best, ..., worst]}."""
    answers = texts(value, "output")
    more = extras(value, "instruction", "input", "output", "system")
    yield _ranking(conversation(alpaca_prompt(value)).messages, answers, list(range(1, len(answers) + 1)), more)


def best_of_ranked_list(value: Json) -> Iterator[Conversation]:
    """The best answer of a ranked list as a demonstration."""
    answers = texts(value, "output")
    if not answers:
        raise Skip("no answer")
    best = Message(role="assistant", content=answers[0])
    yield conversation([*alpaca_prompt(value), best], extras(value, "instruction", "input", "output", "system"))


def from_tree(value: Json) -> Iterator[Ranking]:
    """A ranking for each question of an Open-Assistant tree that has two or more ranked answers."""
    root = tree_root(value)
    found = list(_ranked_nodes([root]))
    if not found:
        raise Skip("no two ranked answers")
    for path, answers in found:
        prompt = [Message(role=role_of(node.get("role")), content=text(node, "text")) for node in path]
        ranks = [answer["rank"] + 1 for answer in answers]
        yield _ranking(prompt, [text(a, "text") for a in answers], ranks, tree_extras(value, root))


def from_native(value: Json) -> Iterator[Ranking]:
    """Chatwheel's own {"messages", "answers", "ranks", "scores"?, "weight"?}."""
    messages = conversation(turns_of(value.get("messages"), "user")).messages
    ranks = value.get("ranks")
    if not isinstance(ranks, list) or not all(isinstance(rank, int) for rank in ranks):
        raise WrongFieldError("field 'ranks' should be a list of whole numbers")
    more = extras(value, "messages", "answers", "ranks", "scores")
    if value.get("scores") is not None:
        more["scores"] = value["scores"]
    yield _ranking(messages, texts(value, "answers"), ranks, more)


def from_fine_grained(value: Json) -> Iterator[Ranking]:
    """FineGrainedRLHF's QA feedback: four predictions and six labels for the pairs 12, 13, 14, 23, 24, 34.

    A label is 1 where the first of the pair is preferred, 2 the second, 0 neither (the data set's README). The
    places follow the score wins - losses: for the 478 of 500 records in the published development set whose labels are
    consistent that is exactly the order which they give; elsewhere it is the one with the Copeland score.
    """
    answers = [text(value, f"prediction {k}") for k in range(1, _NUM_PREDICTIONS + 1)]
    more = extras(value, "question", "gold", *(f"prediction {k}" for k in range(1, _NUM_PREDICTIONS + 1)))
    prompt = [Message(role="user", content=passages_and_question(value))]
    yield _ranking(prompt, answers, ranks_of_labels(value.get("preference")), more)


def gold_of_fine_grained(value: Json) -> Iterator[Conversation]:
    """The answer that a person wrote for the same passages and question."""
    more = extras(value, "question", "gold", *(f"prediction {k}" for k in range(1, _NUM_PREDICTIONS + 1)))
    yield exchange(passages_and_question(value), text(value, "gold").strip(), more)


def ranks_of_labels(labels: Any) -> list[int]:
    """Six labels -> four places: [1, 1, 1, 1, 1, 1] is [1, 2, 3, 4]; equal scores share a place."""
    pairs = list(combinations(range(_NUM_PREDICTIONS), 2))
    if not isinstance(labels, list) or len(labels) != len(pairs) or any(label not in (0, 1, 2) for label in labels):
        raise WrongFieldError("field 'preference' should be six labels 0, 1 or 2 for the pairs 12, 13, 14, 23, 24, 34")
    scores = [0] * _NUM_PREDICTIONS
    for (first, second), label in zip(pairs, labels, strict=True):
        better = {0: 0, 1: 1, 2: -1}[label]
        scores[first] += better
        scores[second] -= better
    places = sorted(set(scores), reverse=True)
    return [places.index(score) + 1 for score in scores]


def passages_and_question(value: Json) -> str:
    """The passages, numbered with their titles, then the question."""
    passages = value.get("passages") or []
    if not isinstance(passages, list) or not all(isinstance(p, list) and p for p in passages):
        raise WrongFieldError("field 'passages' should be a list of [title, sentence, ...]")
    shown = [f"[{i}] {p[0]}: {' '.join(_sentences(p))}" for i, p in enumerate(passages, start=1)]
    question = text(value, "question").strip()
    return "\n".join([*shown, "", f"Question: {question}"]) if shown else question


def shortened(value: Json, num_bytes: int) -> Json:
    """The same record with its passages cut, each after the last whole sentence in its equal share of `num_bytes`."""
    passages = value.get("passages")
    if not isinstance(passages, list) or not all(isinstance(p, list) and p for p in passages):
        return value
    cut = []
    for passage in passages:
        room, kept = num_bytes // len(passages), []
        for sentence in _sentences(passage):
            room -= len(sentence.encode()) + 1
            if room < 0:
                break
            kept.append(sentence)
        if kept:
            cut.append([passage[0], *kept])
    return {**value, "passages": cut}


def _sentences(passage: list[Any]) -> list[str]:
    """A passage's sentences on one line each, without the title that the data set repeats before the first."""
    return [" ".join(str(sentence).removeprefix(f"{passage[0]}\n\n").split()) for sentence in passage[1:]]


def _ranked_nodes(path: list[Json]) -> Iterator[tuple[list[Json], list[Json]]]:
    for reply in replies_of(path[-1]):
        yield from _ranked_nodes([*path, reply])
    ranked = [r for r in replies_of(path[-1]) if r.get("role") == "assistant" and isinstance(r.get("rank"), int)]
    if len(ranked) > 1:
        yield path, ranked


def _graded(value: Json) -> Json:
    """How much better the chosen answer is: TRL's `margin`, or UltraFeedback's `score_chosen` and `score_rejected`.
    What says that it is worse is no grade of this choice, and is left out."""
    scores: list[Any] = [value.get("margin"), 0.0]
    if not _is_number(scores[0]):
        scores = [value.get("score_chosen"), value.get("score_rejected")]
    return {"scores": scores} if all(map(_is_number, scores)) and scores[0] >= scores[1] else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pair(chosen: Sequence[Message], rejected: Sequence[Message], more: Json) -> Ranking:
    """Two dialogues with one beginning -> prompt and two answers."""
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        raise Skip("a dialogue ends without an answer")
    if list(chosen[:-1]) != list(rejected[:-1]):
        raise Skip("the dialogues differ before the last answer")
    return _ranking(chosen[:-1], [chosen[-1].content, rejected[-1].content], [1, 2], more)


def _ranking(prompt: Sequence[Message], answers: list[str], ranks: list[int], more: Json) -> Ranking:
    if len(answers) < 2:
        raise Skip("fewer than two answers")
    if not prompt or prompt[-1].role != "user":
        raise Skip("the prompt does not end with the user")
    if any(not answer.strip() for answer in answers):
        raise Skip("an empty answer")
    if len(ranks) == len(answers) and len(set(ranks)) == 1:
        raise Skip("all answers tie")
    if len(set(answers)) == 1:
        raise Skip("the answers are equal")
    return Ranking.model_validate({**more, "messages": list(prompt), "answers": answers, "ranks": ranks})
