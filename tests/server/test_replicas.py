"""Several servers on one database: what one knows, all know, and limits hold over all of them together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text, update

from chatwheel.store import accounts, limits, metering, prices, usage
from chatwheel.store.tables import FineTuningJobRow, InstanceRow, TunedModelRow, UsageRow
from tests.databases import new_database, stopped
from tests.server.replicas import MODEL, Replica, Site, site, wait_for

AT_ONCE = 1.0
"""Seconds within which every server knows."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Of each kind of database. Tests work in projects of their own."""
    home = tmp_path_factory.mktemp("site")
    url = f"sqlite:///{home / 'chatwheel.db'}"
    if request.param == "postgresql":
        url = new_database(request.getfixturevalue("postgresql_server"))
    with site(home, url) as shop:
        yield shop


def together(shop: Site, ask: Callable[[Replica, int], httpx.Response], count: int) -> list[httpx.Response]:
    """So many requests at once, to all servers in turn."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda i: ask(shop.replicas[i % len(shop.replicas)], i), range(count)))


def statuses(replies: list[httpx.Response]) -> Counter[int]:
    return Counter(reply.status_code for reply in replies)


def used(shop: Site) -> list[UsageRow]:
    with shop.database.read() as session:
        return list(usage.usage_rows(session))


def test_a_limit_on_requests_holds_over_all_servers(two: Site) -> None:
    project = two.new_project(requests_per_minute=30)
    keys = [two.new_key(project).secret, two.new_key(project, requests_per_minute=8).secret]
    replies = together(two, lambda replica, i: replica.chat(keys[i % 4 // 2]), 60)
    ok = statuses(replies)[200]
    assert statuses(replies).keys() == {200, 429}
    waited = max(1.0, sum(reply.elapsed.total_seconds() for reply in replies))  # buckets fill up meanwhile
    assert 30 - 1 <= ok <= 30 + waited / 2
    assert sum(reply.status_code == 200 for i, reply in enumerate(replies) if i % 4 // 2) <= 8 + waited / 60 * 8
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert float(refused.headers["retry-after"]) >= 1
    for replica in two.replicas:
        assert int(replica.chat(keys[0]).headers["x-ratelimit-remaining-requests"]) <= 3
    rows = [row for row in used(two) if row.project_id == project]
    assert {row.status for row in rows} == {"completed"}
    assert len(rows) - ok in (0, 1, 2)  # and those that were asked last, as far as they were let in
    assert len({row.instance for row in rows}) == 2


def test_each_request_takes_one_off_whoever_answers(two: Site) -> None:
    key = two.new_key(requests_per_minute=6, tokens_per_minute=100_000).secret
    began = time.monotonic()
    for i in range(4):
        headers = two.replicas[i % 2].chat(key).headers
        filled = (time.monotonic() - began) * 6 / 60
        assert headers["x-ratelimit-limit-requests"] == "6"
        assert 5 - i <= int(headers["x-ratelimit-remaining-requests"]) <= 5 - i + filled
        assert int(headers["x-ratelimit-remaining-tokens"]) <= 100_000


def test_a_limit_on_tokens_and_a_budget_hold_over_all_servers(two: Site) -> None:
    with two.database.write() as session:
        prices.set_price(session, "quickstart/*", input=1000, output=1000)
    project = two.new_project(budget=60_000)
    by_tokens, by_budget = two.new_key(tokens_per_minute=20).secret, two.new_key(project).secret
    for key, code in ((by_tokens, "rate_limit_exceeded"), (by_budget, "insufficient_quota")):
        served = 0
        for i in range(30):
            reply = two.replicas[i % 2].chat(key)
            if reply.status_code == 429:
                break
            served += 1
        assert 2 <= served < 30
        for replica in two.replicas:  # what one has found out, the other one knows
            assert replica.chat(key).json()["error"]["code"] == code
    with two.database.read() as session:
        spent = limits.spent(session, project, limits.month_of(time.time()))
    costs = [row.cost for row in used(two) if row.project_id == project]
    assert spent == sum(costs) >= 60_000
    assert spent - costs[-1] < 60_000


def test_what_changes_is_known_by_all_at_once(two: Site) -> None:
    first, other = two.replicas
    project = two.new_project()
    path = f"/v1/organization/projects/{project}/api_keys"

    made = first.ask(two.admin, "POST", path, json={"name": "new"}).json()
    key = made["value"]
    assert wait_for(lambda: other.chat(key).status_code == 200) < AT_ONCE

    first.ask(two.admin, "POST", f"/v1/organization/projects/{project}", json={"requests_per_minute": 77})
    assert wait_for(lambda: other.chat(key).headers.get("x-ratelimit-limit-requests") == "77") < AT_ONCE

    for price in (5, 0):
        with two.database.write() as session:
            prices.set_price(session, "quickstart/*", input=price, output=price)
        assert first.chat(key).status_code == other.chat(key).status_code == 200
        assert all((row.cost > 0) == (price > 0) for row in used(two)[-2:])

    assert first.ask(two.admin, "DELETE", f"{path}/{made['id']}").status_code == 200
    assert wait_for(lambda: other.chat(key).status_code == 401) < AT_ONCE
    assert first.chat(key).status_code == 401


def test_a_tuned_model_answers_everywhere_at_once(two: Site) -> None:
    name = "ft:quickstart/sft:default:mine:1"
    assert two.replicas[1].chat(two.admin, model=name).status_code == 404
    directory = two.settings.tuned / "job" / "step-1"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with two.database.write() as session:
        who = accounts.local_principal(session)
        job = FineTuningJobRow(
            project_id=who.project_id,
            user_id=who.user_id,
            model="quickstart/sft",
            training_file="f",
            method={},
            seed=1,
            details={},
        )
        session.add(job)
        session.flush()
        session.add(
            TunedModelRow(
                name=name, project_id=who.project_id, job_id=job.id, base="quickstart/sft", directory="job/step-1"
            )
        )
    for replica in two.replicas:
        assert wait_for(lambda replica=replica: replica.chat(two.admin, model=name).status_code == 200) < AT_ONCE


def test_what_a_killed_server_left_running_is_ended_once(two: Site) -> None:
    """And another one takes its place."""
    with two.database.write() as session:
        prices.set_price(session, "quickstart/*", input=10, output=100)
    key = two.new_key(two.new_project())
    body = {"model": MODEL, "messages": [{"role": "user", "content": "count to 5000"}], "stream": True}
    seen = 0
    headers = {"authorization": f"Bearer {key.secret}"}
    with two.replicas[0].client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as stream:
        for line in stream.iter_lines():
            seen += '"content":"' in line and '"content":""' not in line
            if seen == 5:
                two.replicas[0].kill()
                break
    (row,) = (row for row in used(two) if row.key_id == key.row.id)
    assert row.status == "running"
    assert row.output_tokens >= 5
    with two.database.write() as session:  # as if half a minute had passed
        session.execute(
            update(InstanceRow)
            .where(InstanceRow.id == row.instance)
            .values(seen_at=time.time() - 2 * metering.ALIVE_SECONDS)
        )
    two.replicas.pop(0).client.close()
    two.start()  # it looks too
    two.wait_until_ready()
    wait_for(lambda: all(row.status != "running" for row in used(two)))
    with two.database.write() as session:
        assert metering.settle(session) == 0
    (ended,) = (found for found in used(two) if found.key_id == key.row.id)
    assert (ended.status, ended.output_tokens) == ("failed", row.output_tokens)
    assert ended.cost == 10 * row.input_tokens + 100 * row.output_tokens
    with two.database.read() as session:
        assert limits.spent(session, key.row.id, limits.month_of(time.time())) == ended.cost


def test_eight_threads_on_each_of_two_servers(two: Site) -> None:
    """Two keys with limits in one project: their rows are everybody's."""
    with two.database.write() as session:
        prices.set_price(session, "quickstart/*", input=1, output=1)
    project = two.new_project(requests_per_minute=10**6, tokens_per_minute=10**8, budget=10**15)
    keys = [two.new_key(project, requests_per_minute=10**6, tokens_per_minute=10**8).secret for _ in range(3)]

    def hammer(thread: int) -> list[httpx.Response]:
        replica, replies = two.replicas[thread % 2], []
        for i in range(12):
            replies.append(replica.chat(keys[(thread + i) % 3], f"hello {i}"))
            if i % 6 == 0:
                path = "/v1/files"
                files = {"file": ("a.txt", b"the same bytes"), "purpose": (None, "user_data")}
                made = replica.ask(keys[0], "POST", path, files=files)
                replies.append(made)
                if made.status_code == 200:
                    replies.append(replica.ask(keys[0], "DELETE", f"{path}/{made.json()['id']}"))
        return replies

    with ThreadPoolExecutor(16) as threads:
        replies = [reply for some in threads.map(hammer, range(16)) for reply in some]
    bad = [(reply.status_code, reply.text) for reply in replies if reply.status_code != 200]
    # Bytes that the last one deleted while another one uploaded the same: said, and never half there.
    assert not [one for one in bad if "deleted at this very moment" not in one[1]], bad[:3]
    rows = [row for row in used(two) if row.project_id == project]
    assert len(rows) == 16 * 12
    assert {row.status for row in rows} == {"completed"}
    with two.database.read() as session:
        assert limits.spent(session, project, limits.month_of(time.time())) == sum(row.cost for row in rows)
        # A deadlock would be broken up after a second and done again; there is none.
        if session.get_bind().dialect.name == "postgresql":
            count = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            assert session.scalar(count) == 0


def test_a_database_that_is_away_for_a_while(tmp_path: Path, postgresql_server: str) -> None:
    """Requests are told so meanwhile; afterwards all goes on, and nothing is missing of what was used."""
    with site(tmp_path, new_database(postgresql_server), 1) as shop:
        (replica,) = shop.replicas
        key = shop.new_key(requests_per_minute=10**6)
        assert replica.chat(key.secret).status_code == 200
        body = {"model": MODEL, "messages": [{"role": "user", "content": "count to 100000"}], "stream": True}
        headers = {"authorization": f"Bearer {key.secret}"}
        with replica.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as stream:
            lines = stream.iter_lines()
            while '"content":"3 "' not in next(lines):
                pass
            with stopped(postgresql_server):
                assert replica.client.get("/health").status_code == 200
                assert replica.client.get("/ready").status_code == 503
                refused = replica.chat(key.secret)
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "database_unavailable"
                assert "postgresql" not in refused.text
                assert "database_unavailable" in "".join(lines)  # its last event
        wait_for(lambda: replica.client.get("/ready").status_code == 200)
        assert replica.chat(key.secret).status_code == 200
        wait_for(lambda: all(row.status != "running" for row in used(shop)))  # with the next beat
        assert [row.status for row in used(shop)] == ["completed", "failed", "completed"]
        assert used(shop)[1].output_tokens >= 3
