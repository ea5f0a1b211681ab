"""What is used, what it costs, and what limits leave, on both databases."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback.comparisons import choose, compare
from chatwheel.store import accounts, conversations, limits, metering, prices, usage
from chatwheel.store.accounts import Allowance, Principal
from chatwheel.store.database import Database
from chatwheel.store.limits import LimitError
from chatwheel.store.prices import DOLLAR, Tokens
from chatwheel.store.tables import BucketRow, UsageRow
from tests.databases import new_database

NOW = 1_800_000_000.0  # 2027-01-15, 08:00 UTC


def somebody(**limits: int) -> Principal:
    return Principal("user-1", "proj-1", "key-1", allowances=(Allowance("key-1", **limits), Allowance("proj-1")))


def begin(session: Session, who: Principal, now: float = NOW, model: str = "m") -> int:
    number, _ = metering.begin(session, who, request_id="req", endpoint="chat", model=model, instance="inst", now=now)
    return number


def test_a_request_is_there_before_the_work_and_costs_at_its_end(session: Session) -> None:
    prices.set_price(session, "m", input=1_000, cached_input=100, output=5_000)
    number = begin(session, somebody())
    row = session.get_one(UsageRow, number)
    assert (row.status, row.input_tokens, row.cost) == ("running", 0, 0)
    metering.count(session, number, Tokens(10, 4, 3))
    session.refresh(row)
    assert (row.status, row.output_tokens) == ("running", 3)
    cost = metering.finish(session, number, "completed", Tokens(10, 4, 7), now=NOW + 2)
    assert cost == 6 * 1_000 + 4 * 100 + 7 * 5_000
    session.refresh(row)
    assert (row.status, row.output_tokens, row.seconds, row.cost) == ("completed", 7, 2.0, cost)
    assert limits.spent(session, "proj-1", "2027-01") == limits.spent(session, "key-1", "2027-01") == cost


def test_what_has_ended_stays_as_it_is(session: Session) -> None:
    prices.set_price(session, "m", input=1, output=1)
    number = begin(session, somebody())
    metering.finish(session, number, "cancelled", Tokens(5, 0, 5), now=NOW)
    assert metering.finish(session, number, "completed", Tokens(9, 0, 9), now=NOW) == 10
    metering.count(session, number, Tokens(8, 0, 8))
    row = session.get_one(UsageRow, number)
    session.refresh(row)
    assert (row.status, row.input_tokens) == ("cancelled", 5)
    assert limits.spent(session, "proj-1", "2027-01") == 10


def test_the_price_is_the_nearest_ones(session: Session) -> None:
    for model, price in (("*", 1), ("quickstart/*", 2), ("quickstart/ppo", 3)):
        prices.set_price(session, model, input=price, output=price)

    def price(*models: str) -> int | None:
        found = prices.price_of(session, *models)
        return found.input if found else None

    assert price("quickstart/ppo") == 3
    assert price("quickstart/sft") == 2
    assert price("other") == 1
    prices.list_prices(session)
    session.delete(prices.list_prices(session)[0])
    session.flush()
    assert price("ft:quickstart/ppo:org::1") is None
    assert price("ft:quickstart/ppo:org::1", "quickstart/ppo") == 3


def test_what_a_server_that_is_gone_was_writing_can_be_compared(session: Session) -> None:
    """It was killed: nobody says that its answers are not written any more, but those who settle what it left."""
    user = accounts.local_principal(session).user_id
    for instance, seen in (("inst-gone", NOW - 100), ("inst-here", NOW)):
        metering.seen(session, instance, "server", "here:1", seen)
    question = conversations.add_user_message(
        session, conversations.create_conversation(session, user, "m"), "hello", None
    )
    writers = {"gone": "inst-gone", "unknown": "inst-unknown", "here": "inst-here", "done": None}
    answers = {name: conversations.add_answer(session, question, "m", None, of) for name, of in writers.items()}
    for row in answers.values():
        conversations.save_answer(session, row.id, "some text", "partial", ended=False)
    row = compare(session, user, answers["gone"].id, answers["done"].id)
    session.expire_all()
    with pytest.raises(InputError, match="not there yet"):
        choose(session, user, row.id, "tie")
    metering.settle(session, NOW)
    session.expire_all()
    assert {name: answer.writer for name, answer in answers.items()} == {
        **dict.fromkeys(writers, None),
        "here": "inst-here",
    }
    assert {(answer.status, answer.content) for answer in answers.values()} == {("partial", "some text")}
    assert choose(session, user, row.id, "tie").choice == "tie"
    answers["done"].writer = "inst-unknown"
    metering.settle(session, NOW)  # nobody has gone since: messages are not looked at
    session.expire_all()
    assert answers["done"].writer == "inst-unknown"
    assert conversations.forget_writers(session, NOW - 30) == 1


def test_requests_a_minute(session: Session) -> None:
    who = somebody(requests_per_minute=3)
    for _ in range(3):
        begin(session, who)
    with pytest.raises(LimitError, match="3 requests per minute") as caught:
        begin(session, who)
    assert caught.value.retry_after == pytest.approx(20.0)
    assert caught.value.left is not None
    assert caught.value.left.requests is not None
    assert caught.value.left.requests.remaining == 0
    with pytest.raises(LimitError):
        begin(session, who, NOW + 19)
    begin(session, who, NOW + 20.001)
    for _ in range(3):  # it is never more than a minute's worth
        begin(session, who, NOW + 10_000)
    with pytest.raises(LimitError):
        begin(session, who, NOW + 10_000)


def test_tokens_a_minute_are_paid_at_the_end(session: Session) -> None:
    who = somebody(tokens_per_minute=600)
    number = begin(session, who)
    metering.finish(session, number, "completed", Tokens(300, 0, 600), allowances=who.allowances, now=NOW)
    with pytest.raises(LimitError, match="600 tokens per minute") as caught:
        begin(session, who)
    assert caught.value.retry_after == pytest.approx(30.1)
    begin(session, who, NOW + 30.2)


def test_the_project_is_limited_beside_its_keys(session: Session) -> None:
    project = Allowance("proj-1", requests_per_minute=2)
    one, other = (Principal("u", "proj-1", key, allowances=(Allowance(key), project)) for key in ("key-1", "key-2"))
    begin(session, one)
    begin(session, other)
    with pytest.raises(LimitError):
        begin(session, one)


def test_a_budget_that_is_spent(session: Session) -> None:
    prices.set_price(session, "m", input=DOLLAR // 100, output=0)
    who = somebody(budget=DOLLAR // 10)
    for _ in range(10):
        metering.finish(session, begin(session, who), "completed", Tokens(1), now=NOW)
    with pytest.raises(LimitError, match=r"budget of this key for 2027-01 \(0.10 dollars\)") as caught:
        begin(session, who)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.retry_after is None
    begin(session, who, NOW + 31 * 86400)  # next month


def test_what_a_server_left_running_is_ended_at_what_was_counted(session: Session) -> None:
    prices.set_price(session, "m", input=1, output=2)
    metering.seen(session, "inst", "server", "here", now=NOW)
    number = begin(session, somebody())
    metering.count(session, number, Tokens(10, 0, 4))
    assert metering.settle(session, now=NOW + 10) == 0
    assert metering.settle(session, now=NOW + 31) == 1
    row = session.get_one(UsageRow, number)
    session.refresh(row)
    assert (row.status, row.input_tokens, row.output_tokens, row.cost) == ("failed", 10, 4, 18)
    assert limits.spent(session, "proj-1", "2027-01") == 18


def test_what_a_server_left_running_goes_off_the_limits(session: Session) -> None:
    """A server that dies gives nobody tokens for nothing: neither the key nor its project."""
    local = accounts.local_principal(session)
    accounts.change_project(session, local.project_id, limits={"tokens_per_minute": 6000})
    made = accounts.create_key(
        session,
        project_id=local.project_id,
        user_id=local.user_id,
        name="k",
        limits={"tokens_per_minute": 600, "requests_per_minute": 10},
    )
    who = accounts.authenticate(session, made.secret, now=NOW)
    assert who is not None
    metering.seen(session, "inst", "server", "here", now=NOW)
    number = begin(session, who)
    metering.count(session, number, Tokens(400, 0, 500))
    assert metering.settle(session, now=NOW + 60) == 1
    with pytest.raises(LimitError, match="600 tokens per minute") as caught:
        begin(session, who, NOW + 60)
    assert caught.value.retry_after == pytest.approx((900 - 600 + 1) / 10)
    levels = {(row.subject, row.kind): row.level for row in session.scalars(select(BucketRow))}
    assert levels == {
        (made.row.id, "requests"): 10,
        (made.row.id, "tokens"): 600 - 900,
        (local.project_id, "tokens"): 6000 - 900,
    }
    assert metering.settle(session, now=NOW + 60) == 0  # once


def test_many_at_once_take_no_more_than_there_is(database: Database) -> None:
    who = somebody(requests_per_minute=25)
    taken: list[int] = []

    def ask() -> None:
        for _ in range(10):
            try:
                with database.write() as session:
                    taken.append(begin(session, who))
            except LimitError:
                pass

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 25
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(UsageRow)) == 25


def test_sums_by_time_and_group(session: Session) -> None:
    prices.set_price(session, "*", input=1, output=1)
    local = accounts.local_principal(session)
    for moment, model, tokens in ((0, "a", 5), (100, "a", 7), (100, "b", 1), (4000, "b", 2), (90_000, "a", 9)):
        number = begin(session, local, NOW + moment, model)
        metering.finish(session, number, "completed", Tokens(tokens, 0, 1), now=NOW + moment)
    days = usage.usage_by(session, start=NOW, end=NOW + 100_000)
    assert [(row["num_requests"], row["input_tokens"], row["output_tokens"], row["cost"]) for row in days] == [
        (4, 15, 4, 19),
        (1, 9, 1, 10),
    ]
    assert days[0]["start"] == NOW - NOW % 86400
    hours = usage.usage_by(session, start=NOW, end=NOW + 5000, width="1h", group_by=["model"])
    assert [(row["start"] - NOW, row["model"], row["input_tokens"]) for row in hours] == [
        (0, "a", 12),
        (0, "b", 1),
        (3600, "b", 2),
    ]
    only = usage.usage_by(session, start=NOW, end=NOW + 10**6, only={"model": ["b"], "project_id": ["other"]})
    assert only == []
    assert [row.model for row in usage.usage_rows(session, limit=2)] == ["a", "a"]


def test_two_servers_that_settle_at_once_settle_once(postgresql_server: str) -> None:
    """The second one has seen the request running before the first one ended it. (SQLite has one writer at a time.)"""
    database = Database.open(new_database(postgresql_server))
    with database.write() as session:
        prices.set_price(session, "m", input=7, output=7)
        who = accounts.local_principal(session)
        usage_id, _ = metering.begin(session, who, request_id="r", endpoint="chat", model="m", instance="gone")
        metering.count(session, usage_id, Tokens(10, 0, 10))
    with database.write() as late:
        assert late.get_one(UsageRow, usage_id).status == "running"
        with database.write() as early:
            assert metering.settle(early) == 1
        metering.finish(late, usage_id, "failed", Tokens(10, 0, 10))
        assert metering.settle(late) == 0
    with database.read() as session:
        assert limits.spent(session, who.project_id, limits.month_of(time.time())) == 140
    database.close()
