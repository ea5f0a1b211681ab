"""What came in, whether it is enough, and what twice as much would bring, where that is known."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sqlalchemy.orm import Session

from chatwheel.data.records import Message, Ranking
from chatwheel.errors import InputError
from chatwheel.feedback import consent, corrections
from chatwheel.feedback.ratings import rate
from chatwheel.feedback.room import assigning, judging, queues
from chatwheel.feedback.room.exporting import export_queue
from chatwheel.feedback.room.judging import Said
from chatwheel.feedback.room.queues import NewAnswer, NewTask
from chatwheel.feedback.room.sources import chat_prompts
from chatwheel.jobs.wheel import doubling
from chatwheel.jobs.wheel.doubling import Pairs, fit, forecast_rankings
from chatwheel.jobs.wheel.gathering import arrived, gather, stamp
from chatwheel.jobs.wheel.readiness import covered, kept_forecast, look, make_forecast
from chatwheel.model.checkpoint import save_model
from chatwheel.server.wheel import Looking
from chatwheel.settings import Settings
from chatwheel.store import accounts
from chatwheel.store import conversations as chats
from chatwheel.store.database import Database
from chatwheel.store.registry import Registry
from tests.tiny import causal, tokenizer


def answered(session: Session, user: str, question: str, answer: str = "an answer") -> str:
    """A new conversation's answer."""
    conversation = chats.create_conversation(session, user, "m")
    asked = chats.add_user_message(session, conversation, question, None)
    found = chats.add_answer(session, asked, "m")
    chats.save_answer(session, found.id, answer, "complete")
    return found.id


def test_what_came_in_of_those_who_agreed(database_url: str, tmp_path: Path) -> None:
    database = Database.open(database_url)
    settings = Settings(home=tmp_path, database_url=database_url)
    with database.write() as session:
        ada, bob = (accounts.create_user(session, name).id for name in ("Ada", "Bob"))
        project = accounts.create_project(session, "P", ada).id
        accounts.set_member(session, project, bob)
        answered(session, bob, "before anybody agreed")
        consent.set_consent(session, ada, True)
        one, two = answered(session, ada, "what is the capital of France?"), answered(session, ada, "and of Italy?")
        rate(session, ada, one, 1)
        rate(session, bob, answered(session, bob, "Bob has not agreed"), -1)
        corrections.correct(session, ada, two, "Rome")
        middle = time.time()
        session.flush()
    with database.write() as session:
        rate(session, ada, answered(session, ada, "a third one"), -1)
        queue = queues.create_queue(session, project, "Q", "rank", labellers=2, by=ada)
        answers = [NewAnswer("good"), NewAnswer("bad")]
        queues.add_tasks(session, queue, [NewTask([Message(role="user", content="rank me")], answers)])
        for who in (ada, bob):
            given = assigning.next_assignment(session, queue.id, who)
            assert given is not None
            judging.submit(session, who, given.id, Said(ranks=[1, 2]))
    with database.read() as session:
        found = gather(session)
        assert [r.rating for r in found.ratings] == [1, -1]
        assert [c.messages[-1].content for c in found.corrections] == ["Rome"]
        assert next((r.answers, r.ranks) for r in found.rankings) == (["Rome", "an answer"], [1, 2])
        assert found.labelled == len(found.rankings) - 1
        counts = arrived(session).counts(middle)
        assert counts == {
            "ratings": {"total": 2, "new": 1},
            "corrections": {"total": 1, "new": 0},
            "reports": {"total": 0, "new": 0},
            "comparisons": {"total": 0, "new": 0},
            "rankings": {"total": 2, "new": 2},
            "people": {"total": 2, "new": 2},
        }
        days = arrived(session).days()
        assert (len(days), days[-1]["ratings"], days[-1]["rankings"]) == (30, 2, 2)
        seen = look(settings, session)
        items = {item.name: item for item in seen.items}
        assert (items["rankings"].ok, items["demonstrations"].ok, items["forecast"].ok) == (False, True, None)
        assert not seen.ready
        assert "rankings to learn from" in seen.words
    looking, seen_by = Looking(), []
    for act in (None, lambda s: rate(s, ada, one, -1), lambda s: corrections.take_back(s, ada, two), None):
        with database.write() as session:
            seen_by.append(stamp(session))
            if act is not None:
                act(session)
        with database.read() as session:
            found_then = looking.look(settings, session)[0]
            assert looking.look(settings, session)[0] is found_then  # nothing has changed
    assert len(set(seen_by)) == 3
    with database.write() as session:
        consent.set_consent(session, ada, False)
    with database.read() as session:
        assert gather(session).ratings == []
        assert arrived(session).counts(None)["ratings"]["total"] == 0
    database.close()


def test_questions_from_chats_leave_with_their_owner_s_consent(database_url: str) -> None:
    """Rankings of answers to them: out of what is learnt from and out of exports, when it is taken back."""
    database = Database.open(database_url)
    with database.write() as session:
        ada, bob = (accounts.create_user(session, name).id for name in ("Ada", "Bob"))
        project = accounts.create_project(session, "P", bob).id
        consent.set_consent(session, ada, True)
        answered(session, ada, "a secret of Ada's")
        queue = queues.create_queue(session, project, "Q", "rank", labellers=1, by=bob)
        answers = [NewAnswer("good"), NewAnswer("bad")]
        (asked,) = chat_prompts(session, 10)
        others = NewTask([Message(role="user", content="nobody's")], answers)
        queues.add_tasks(session, queue, [replace(asked, answers=answers), others])
        for _ in range(2):
            given = assigning.next_assignment(session, queue.id, bob)
            assert given is not None
            judging.submit(session, bob, given.id, Said(ranks=[1, 2]))

    def learnt() -> set[str]:
        with database.read() as session:
            found = {ranking.messages[0].content for ranking in gather(session).rankings}
            row = queues.get_queue(session, queue.id)
            lines = [repr(record) for record in export_queue(session, row, "judgements", "salt").records]
            assert {text for text in ("a secret of Ada's", "nobody's") if text in "".join(lines)} == found
            return found

    assert learnt() == {"a secret of Ada's", "nobody's"}
    with database.write() as session:
        consent.set_consent(session, ada, False)
    assert learnt() == {"nobody's"}
    database.close()


def test_questions_that_are_alike_are_covered() -> None:
    ranked = ["What is the capital of France?", "Translate apple into Chinese", "法国的首都是哪里？"]
    assert covered(["What's the capital of Italy?", "法国的首都在哪里呀？"], ranked) == 1.0
    assert covered(["How do I bake bread at home", "如何学习弹钢琴"], ranked) == 0.0
    assert covered(["What is the capital of Spain?", "Why is the sky blue at noon"], ranked) == 0.5


def test_the_head_is_where_an_optimizer_of_others_finds_it() -> None:
    rng = np.random.default_rng(2)
    apart, weight = rng.normal(size=(120, 7)), rng.uniform(0.2, 1.0, 120)

    def loss(w: Any) -> float:
        return float((weight * np.logaddexp(0, -apart @ w)).sum() + 3.0 * w @ w / 2)

    ours = fit(Pairs(apart, np.arange(120), weight), 3.0)
    theirs = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(ours, theirs.x, atol=1e-5)
    # What is told apart for certain has a finite answer too.
    certain = fit(Pairs(np.ones((50, 1)), np.arange(50), np.ones(50)), 0.01)
    assert np.isfinite(certain).all()


def simulated(count: int, dimensions: int, seed: int) -> Pairs:
    """Two answers to each prompt, ranked by a worth that is linear in what is seen, by somebody who slips."""
    rng = np.random.default_rng(seed)
    apart = rng.normal(size=(count, dimensions))
    worth = apart @ rng.normal(size=dimensions) * (2.0 / np.sqrt(dimensions))
    upright = np.where(rng.random(count) < 1 / (1 + np.exp(-worth)), 1.0, -1.0)
    return Pairs(apart * upright[:, None], np.arange(count), np.ones(count))


def test_a_forecast_made_from_half_holds_what_the_whole_brings() -> None:
    """Of ten tasks: the error with all rankings, measured on many pairs, lies in the interval that half of them gave,
    in eight at least."""
    held = 0
    for seed in range(10):
        pairs, far = simulated(1200 + 4000, 40, seed), np.arange(1200, 5200)
        forecast = doubling._measured(pairs, np.arange(400), np.arange(800, 1200))
        whole = doubling._error(pairs.of(far), fit(pairs.of(np.arange(800)), 10.0))
        low, high = forecast.forecast_interval
        held += low <= whole <= high
    assert held >= 8


def test_features_are_computed_once_and_anew_for_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, database_url="")
    save_model(settings.models / "tiny" / "sft", causal(), tokenizer(), {"stage": "sft"})
    entry = Registry(settings.models).entry("tiny/sft")
    rankings = [
        Ranking(
            messages=[Message(role="user", content=f"question {n}")],
            answers=[f"a good answer {n}", f"bad {n}"],
            ranks=[1, 2],
        )
        for n in range(80)
    ]
    computed: list[int] = []
    hidden = doubling._hidden
    monkeypatch.setattr(doubling, "_hidden", lambda entry, texts: computed.append(len(texts)) or hidden(entry, texts))
    kept = make_forecast(settings, entry, rankings[:70])
    again = make_forecast(settings, entry, rankings)
    assert computed == [140, 20]
    assert kept_forecast(settings) == json.loads(json.dumps(again))
    assert kept["digest"] != again["digest"]
    assert again["forecast"]["examples"] < 80  # the rest is asked about
    save_model(settings.models / "tiny" / "sft", causal(seed=1), tokenizer(), {"stage": "sft"})
    make_forecast(settings, Registry(settings.models).entry("tiny/sft"), rankings)
    assert computed == [140, 20, 160]
    with pytest.raises(InputError, match="too few for a forecast"):
        forecast_rankings(entry, rankings[:12])
