"""GET /v1/runs: what is there, what runs, what a crash left behind, and what happens meanwhile."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from filelock import FileLock

from chatwheel.jobs.pipeline import STAGES as PIPELINE
from chatwheel.jobs.pipeline import run_recipe
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.jobs.watching import Command
from chatwheel.settings import Settings
from chatwheel.store import runs as store
from chatwheel.store.curves import parse_rows, thinned
from chatwheel.store.runs import Tail
from tests.conftest import Recorder, TinyRun
from tests.server.conftest import Site, read_events
from tests.server.live import LiveServer, make_app

Json = dict[str, Any]


@pytest.fixture
def home(site: Site) -> Path:
    return site.models.root.parent


def write_run(home: Path, name: str = "try", **recipe: Any) -> Path:
    """A run that has just begun."""
    directory = home / "runs" / name
    directory.mkdir(parents=True)
    parts = {"name": name, "pretrain": {"steps": 100}, "sft": {}, "reward": None, "ppo": None}
    (directory / "recipe.json").write_text(json.dumps({**parts, **recipe}))
    return directory


def write_metrics(directory: Path, stage: str, count: int, first: int = 0, **more: Any) -> Path:
    path = directory / stage / "metrics.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        for step in range(first, first + count):
            row = {"step": step, "steps": 100, "loss": 5 - step / 100, "tokens_per_second": 1000.0, "seconds": 2.0}
            file.write(json.dumps(row | more) + "\n")
    return path


def finish(directory: Path, *stages: str) -> None:
    (directory / "results").mkdir(exist_ok=True)
    for stage in stages:
        (directory / f"results/stage.{stage}.json").write_text(json.dumps({"loss": 1.5, "seconds": 12.5}))


def get(site: Site, path: str, status: int = 200) -> Any:
    response = site.client.get(path)
    assert response.status_code == status, response.text
    return response.json()


def states(run: Json) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in run["stages"]}


def test_a_finished_run(tiny_run: TinyRun, site: Site, home: Path) -> None:
    shutil.copytree(tiny_run.run.directory, home / "runs/tiny")
    (listed,) = get(site, "/v1/runs")["data"]
    run = get(site, "/v1/runs/tiny")
    assert run["recipe"] == json.loads((home / "runs/tiny/recipe.json").read_text())
    assert {key: run[key] for key in listed} == listed
    assert (run["name"], run["state"], run["report"], run["command"]) == ("tiny", "done", True, None)
    assert states(run) == {stage.name: "done" for stage in PIPELINE}
    by_name = {stage["name"]: stage for stage in run["stages"]}
    for name in ("pretrain", "sft", "reward", "ppo"):
        rows = [json.loads(line) for line in (home / f"runs/tiny/{name}/metrics.jsonl").read_text().splitlines()]
        assert get(site, f"/v1/runs/tiny/stages/{name}/metrics")["data"] == rows
        stage = by_name[name]
        assert (stage["step"], stage["steps"]) == (len(rows), len(rows))
        assert stage["seconds"] == tiny_run.results[f"stage:{name}"]["seconds"]
        assert stage["result"]["seconds"] == stage["seconds"]
        assert stage["tokens_per_second"] > 0
        assert 0 < stage["share_of_peak"] < 10
        assert stage["metrics"]["loss"] == [row["loss"] for row in rows if "loss" in row][-1]
        samples = get(site, f"/v1/runs/tiny/stages/{name}/samples")["data"]
        assert samples
        assert all(0 < line["step"] <= len(rows) and line["error"] is None for line in samples)
        assert all({"prompt", "text"} <= sample.keys() for line in samples for sample in line["samples"])
        assert all(("reward" in s) == (name in ("reward", "ppo")) for line in samples for s in line["samples"])
    assert by_name["reward"]["result"]["pair_accuracy"] == tiny_run.results["stage:reward"]["pair_accuracy"]
    assert "reward" in by_name["ppo"]["metrics"]  # rollouts' numbers come seldom, and are among the latest all the same


def test_the_stages_are_the_pipeline_s() -> None:
    parts = {stage.name: () if stage.name == "data" else stage.part_of for stage in PIPELINE}
    assert parts == store.STAGES
    assert {stage.name: stage.makes for stage in PIPELINE if stage.answers} == store.EXAMINED


def test_a_recipe_has_the_stages_that_it_names(site: Site, home: Path) -> None:
    write_run(home, pretrain=None)
    assert list(states(get(site, "/v1/runs/try"))) == ["data", "sft"]


def test_a_run_at_work(site: Site, home: Path) -> None:
    directory = write_run(home)
    finish(directory, "data", "tokenizer")
    write_metrics(directory, "pretrain", 25, share_of_peak=0.5)
    with FileLock(directory / ".lock"):
        run = get(site, "/v1/runs/try")
        assert run["state"] == "running"
        assert states(run) == {"data": "done", "tokenizer": "done", "pretrain": "running", "sft": "waiting"}
        stage = run["stages"][2]
        assert (stage["step"], stage["steps"]) == (25, 100)
        assert stage["remaining"] == pytest.approx(150)
        assert stage["seconds"] == pytest.approx(50)
        assert stage["seconds_per_step"] == pytest.approx(2)
        assert stage["tokens_per_second"] == pytest.approx(1000)
        assert stage["share_of_peak"] == pytest.approx(0.5)
        assert run["examining"] is None
        finish(directory, "pretrain")
        assert get(site, "/v1/runs/try")["examining"] == "base"
        (directory / "results/model.base.json").write_text("{}")
        assert get(site, "/v1/runs/try")["examining"] is None


def test_looking_does_not_keep_a_run_from_beginning(site: Site, home: Path) -> None:
    directory = write_run(home)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            store.RunFiles(directory).view()

    with FileLock(directory / ".lock"):
        pass
    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(50):
            with FileLock(directory / ".lock", timeout=0.5):  # as Run.locked does
                pass
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert get(site, "/v1/runs/try")["state"] != "running"


def test_what_a_crash_left_behind_says_how_to_go_on(tiny_run: TinyRun, site: Site, home: Path) -> None:
    """A real run, killed in pretraining."""
    script = """
import time
from chatwheel.training.loop import Loop
step = Loop._step
def slow_step(*arguments):
    time.sleep(0.1)
    return step(*arguments)
Loop._step = slow_step
from chatwheel.cli.app import main
main()
"""
    arguments = ["run", "--recipe", str(tiny_run.recipe), "--home", str(home)]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stderr=subprocess.DEVNULL)
    metrics = home / "runs/tiny/pretrain/metrics.jsonl"
    try:
        deadline = time.monotonic() + 60
        while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert get(site, "/v1/runs/tiny")["state"] == "running"
        assert states(get(site, "/v1/runs/tiny"))["pretrain"] == "running"
    finally:
        process.kill()
        process.wait()
    run = get(site, "/v1/runs/tiny")
    assert run["state"] == "interrupted"
    assert states(run)["pretrain"] == "interrupted"
    assert states(run)["sft"] == "waiting"
    assert run["command"] == f"chatwheel run --recipe {tiny_run.recipe} --home {home}"
    assert run["directory"] == str(Path.cwd())
    assert run["report"] is False


def test_stopped_between_two_verbs_is_not_interrupted(site: Site, home: Path, tiny_run: TinyRun) -> None:
    run = Run.open(Recipe.load(tiny_run.recipe), Settings.load(home))
    run_recipe(
        run, Recorder(), only="pretrain", command=Command.given(["train", "pretrain", "--no-resume", "-r", "a b.yaml"])
    )
    view = get(site, "/v1/runs/tiny")
    assert view["state"] == "waiting"
    assert states(view)["sft"] == "waiting"
    assert view["command"] == "chatwheel train pretrain -r 'a b.yaml'"


def test_a_run_of_an_earlier_version_is_told_by_its_traces(site: Site, home: Path) -> None:
    directory = write_run(home, "quickstart")
    finish(directory, "data", "tokenizer")
    write_metrics(directory, "pretrain", 3)
    run = get(site, "/v1/runs/quickstart")
    assert (run["state"], run["command"]) == ("interrupted", "chatwheel quickstart")


def test_damage_costs_what_is_damaged_only(site: Site, home: Path) -> None:
    directory = write_run(home)
    (directory / "results").mkdir()
    (directory / "results/stage.data.json").write_text("{half")
    (directory / "command.json").write_text("[1]")
    path = write_metrics(directory, "pretrain", 2)
    with path.open("ab") as file:
        file.write(b'\xff\xfe\x00garbage\n{"step": "three"}\n[1, 2]\n\n{"loss": 1}\n' + b"[" * 100_000 + b"\n")
        file.write(b'{"step": 2, "loss": NaN, "seconds": Infinity, "big": 1' + b"0" * 400 + b', "kl": 0.5}\n')
        file.write(b'{"step": 3, "loss": 4.5, "seco')
    rows = get(site, "/v1/runs/try/stages/pretrain/metrics")["data"]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[2] == {"step": 2, "kl": 0.5}
    assert get(site, "/v1/runs/try")["stages"][2]["step"] == 3
    (directory / "pretrain/samples.jsonl").write_text(
        '{"step": 1, "samples": [{"prompt": "a", "text": "\\ud800 b"}, 7]}\n{"step": 2, "error": "E: x"}\nnothing\n'
    )
    data = get(site, "/v1/runs/try/stages/pretrain/samples")["data"]
    assert data[0] == {"step": 1, "samples": [{"prompt": "a", "text": "? b"}], "error": None}
    assert data[1:] == [{"step": 2, "samples": [], "error": "E: x"}]
    (directory / "recipe.json").write_text("{")
    assert list(states(get(site, "/v1/runs/try"))) == ["data"]
    assert [run["name"] for run in get(site, "/v1/runs")["data"]] == ["try"]


def test_metrics_after_a_step_and_thinned(site: Site, home: Path) -> None:
    directory = write_run(home)
    path = write_metrics(directory, "pretrain", 5000)
    answer = get(site, "/v1/runs/try/stages/pretrain/metrics")
    assert (answer["rows"], len(answer["data"])) == (5000, 500)
    assert [row["step"] for row in answer["data"]] == list(range(9, 5000, 10))
    assert answer["data"][0]["loss"] == pytest.approx(sum(5 - step / 100 for step in range(10)) / 10)
    answer = get(site, "/v1/runs/try/stages/pretrain/metrics?after=4996")
    assert [row["step"] for row in answer["data"]] == [4997, 4998, 4999]
    assert len(get(site, "/v1/runs/try/stages/pretrain/metrics?points=7")["data"]) == 7
    assert get(site, "/v1/runs/try/stages/sft/metrics")["data"] == []
    for wrong in ("after=x", "after=-2", "points=0", "points=1e9"):
        error = get(site, f"/v1/runs/try/stages/pretrain/metrics?{wrong}", 400)["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == wrong.partition("=")[0]
    rows = parse_rows(path.read_bytes())
    assert thinned(rows, 5000) == rows


def test_numbers_that_come_seldom_are_not_thinned_away() -> None:
    rows = [{"step": step, "loss": 1.0} | ({"kl": float(step)} if step % 4 == 0 else {}) for step in range(1200)]
    kept = thinned(rows, 300)
    assert [row["kl"] for row in kept] == [float(step) for step in range(0, 1200, 4)]


def test_a_run_that_is_removed_while_they_are_listed_is_left_out(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(home, "goes")
    write_run(home, "stays")
    names = store.Runs.names

    def listed(self: store.Runs) -> list[str]:
        found = names(self)
        shutil.rmtree(home / "runs/goes")
        return found

    monkeypatch.setattr(store.Runs, "names", listed)
    assert [run["name"] for run in get(site, "/v1/runs")["data"]] == ["stays"]


@pytest.mark.parametrize(
    "name",
    [
        *("..", "%2e%2e", "..%2f..%2fetc", "../secret", "%2e%2e%2fsecret", ".hidden", "a%00b", "missing", "try%2f.."),
        pytest.param("A" * 300, id="long"),
        pytest.param("A" * 255, id="as long as can be"),
    ],
)
def test_no_name_leads_out_of_the_directory(name: str, site: Site, home: Path) -> None:
    for other in (home / "secret", home / "runs/.hidden"):
        other.mkdir(parents=True)
        (other / "recipe.json").write_text('{"password": 1}')
        (other / "report.html").write_text("secret")
    write_run(home)
    for path in (name, f"{name}/events", f"{name}/stages/pretrain/metrics", f"{name}/stages/pretrain/samples"):
        response = site.client.get(f"/v1/runs/{path}")
        if response.status_code == 200:  # the client itself resolves `..`
            assert "password" not in response.text
            assert response.json()["object"] == "list"
        else:
            assert response.status_code == 404
            assert response.json()["error"]["type"] == "invalid_request_error"
    assert site.client.get("/report", params={"run": name}).status_code == 404
    assert site.client.post("/api/report/ticket", params={"run": name}).status_code == 404
    for stage in ("..", "%2e%2e", "state", name):
        assert site.client.get(f"/v1/runs/try/stages/{stage}/metrics").status_code == 404


def test_an_unknown_run_or_stage_is_one_line(site: Site, home: Path) -> None:
    write_run(home)
    error = get(site, "/v1/runs/other", 404)["error"]
    assert (error["param"], "'other'" in error["message"]) == ("name", True)
    error = get(site, "/v1/runs/try/stages/ppo/metrics", 404)["error"]
    assert error["param"] == "stage"
    assert error["message"].endswith("it has data, tokenizer, pretrain, sft")


def test_no_runs_are_an_empty_list(site: Site) -> None:
    assert get(site, "/v1/runs") == {"object": "list", "data": []}


def test_the_last_active_run_is_first(site: Site, home: Path) -> None:
    import os

    for age, name in ((300, "old"), (100, "new"), (200, "middle")):
        directory = write_run(home, name)
        os.utime(directory / "recipe.json", (time.time() - age,) * 2)
    assert [run["name"] for run in get(site, "/v1/runs")["data"]] == ["new", "middle", "old"]


def test_a_ticket_opens_the_report_of_its_run_only(tmp_path: Path) -> None:
    app, _, _ = make_app(tmp_path, api_key="key")
    for name in ("one", "two"):
        (write_run(tmp_path, name) / "report.html").write_text(f"report {name}")
    with TestClient(app, base_url="http://localhost") as client:
        headers = {"authorization": "Bearer key"}
        url = client.post("/api/report/ticket?run=one", headers=headers).json()["url"]
        assert client.get(f"/{url}").text == "report one"
        assert client.get(f"/{url.replace('run=one', 'run=two')}").status_code == 401
        assert client.get(f"/{url.replace('&run=one', '')}").status_code == 401
        assert client.get("/report?run=one", headers=headers).text == "report one"
        assert client.get("/report?run=one").status_code == 401


# -- the stream


class Stream:
    """The events of a run, read by a thread of its own."""

    def __init__(self, url: str) -> None:
        self.events: list[tuple[str, Json]] = []
        self._client = httpx.Client(timeout=30)
        self._context = self._client.stream("GET", url)
        self._response = self._context.__enter__()
        assert self._response.headers["content-type"].startswith("text/event-stream")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = ""
        try:
            for text in self._response.iter_text():
                *blocks, rest = (rest + text).split("\n\n")
                self.events += [event for block in blocks for event in read_events(block)]
        except httpx.HTTPError:
            return

    def wait_for(self, name: str, since: int = 0) -> Json:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            for kind, data in self.events[since:]:
                if kind == name:
                    return data
            time.sleep(0.02)
        raise AssertionError(f"no {name} among {[kind for kind, _ in self.events]}")

    def close(self) -> None:
        connection = self._response.extensions["network_stream"].get_extra_info("socket")
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def live_run(live_server: LiveServer) -> Iterator[tuple[Path, Stream]]:
    directory = write_run(live_server.models.root.parent)
    finish(directory, "data", "tokenizer")
    write_metrics(directory, "pretrain", 5)
    stream = Stream(f"{live_server.url}/v1/runs/try/events")
    yield directory, stream
    stream.close()


def test_new_lines_are_told_as_they_are_written(live_run: tuple[Path, Stream]) -> None:
    directory, stream = live_run
    assert stream.wait_for("run")["state"] == "interrupted"
    lock = FileLock(directory / ".lock")
    with lock:
        path = write_metrics(directory, "pretrain", 3, first=5)
        told = stream.wait_for("metrics")
        assert told["stage"] == "pretrain"
        assert [row["step"] for row in told["points"]] == [5, 6, 7]
        seen = len(stream.events)
        with path.open("a") as file:
            file.write('{"step": 8, "loss"')
            file.flush()
            time.sleep(1.3)  # half a line is not told
            file.write(": 1.0}\n")
        assert stream.wait_for("metrics", seen) == {"stage": "pretrain", "points": [{"step": 8, "loss": 1.0}]}
        assert stream.wait_for("run", seen)["stages"][2]["step"] == 9
        seen = len(stream.events)
        (directory / "pretrain/samples.jsonl").write_text('{"step": 5, "samples": [{"prompt": "p", "text": "t"}]}\n')
        assert stream.wait_for("samples", seen)["samples"][0]["samples"] == [{"prompt": "p", "text": "t"}]
        seen = len(stream.events)
        finish(directory, "pretrain")
        assert states(stream.wait_for("run", seen))["sft"] == "running"
        seen = len(stream.events)
    assert stream.wait_for("run", seen)["state"] == "waiting"


def test_a_file_that_is_replaced_is_to_be_read_again(live_run: tuple[Path, Stream]) -> None:
    directory, stream = live_run
    stream.wait_for("run")
    path = directory / "pretrain/metrics.jsonl"
    shorter = path.with_name("new")
    shorter.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    shorter.replace(path)  # as a run that goes on does
    assert stream.wait_for("reset") == {"stage": "pretrain"}
    seen = len(stream.events)
    write_metrics(directory, "pretrain", 1, first=3)
    assert [row["step"] for row in stream.wait_for("metrics", seen)["points"]] == [3]


def test_a_client_that_leaves_is_not_watched_for(live_server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatwheel.server.routes import runs as routes

    looks = 0
    look = routes.Follower.look

    def counted(follower: routes.Follower) -> Any:
        nonlocal looks
        looks += 1
        return look(follower)

    monkeypatch.setattr(routes.Follower, "look", counted)
    monkeypatch.setattr(routes, "POLL_SECONDS", 0.05)
    write_run(live_server.models.root.parent)
    stream = Stream(f"{live_server.url}/v1/runs/try/events")
    stream.wait_for("run")
    time.sleep(0.3)
    assert looks > 2
    stream.close()
    time.sleep(0.5)
    before = looks
    time.sleep(0.5)
    assert looks == before


def test_an_unknown_run_has_no_stream(site: Site) -> None:
    assert get(site, "/v1/runs/none/events", 404)["error"]["param"] == "name"


def test_a_tail_is_bounded_and_passes_over_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tail, "LIMIT", 100)
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == b""
    lines = [b'{"step": %d}\n' % step for step in range(30)]
    path.write_bytes(b"".join(lines))
    read = []
    while new := tail.read():
        assert len(new) <= 100
        read.append(new)
    assert b"".join(read) == b"".join(lines)
    with path.open("ab") as file:
        file.write(b"x" * 250 + b"\n" + lines[0])
    while tail.read():
        pass
    with path.open("ab") as file:
        file.write(lines[1])
    assert tail.read() == lines[1]
    path.write_bytes(b"")
    assert tail.read() is None


# -- findings


def write_rollouts(directory: Path, stage: str = "ppo", count: int = 12) -> None:
    """Of a run whose answers become longer because longer ones get more."""
    path = directory / stage / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Json] = []
    answers: list[Json] = []
    for i in range(count):
        rollout = {"reward": i / 10, "reward_std": 0.4, "reward_length": 0.7, "answer_tokens": 20.0 + 3 * i}
        rows += [{"step": 2 * i, "steps": 2 * count, "loss": 1.0, "seconds": 1.0, **rollout}]
        rows += [{"step": 2 * i + 1, "steps": 2 * count, "loss": 1.0, "seconds": 1.0}]
        said = {"prompt": "Why?", "reward": i / 10}
        answers += [{"step": 2 * i, "best": [{**said, "text": f"Because {i}."}], "worst": [{**said, "text": ""}]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.with_name("rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers) + '{"step": 99, "be')


def test_what_looks_wrong_is_told_in_words(site: Site, home: Path) -> None:
    directory = write_run(home, ppo={"rollouts": 12}, grpo={"rollouts": 1})
    write_rollouts(directory)
    warning, *others = get(site, "/v1/runs/try/stages/ppo/findings")["data"]
    assert warning["rule"] == "length"
    assert warning["level"] == "warning"
    assert "answers get longer (24.5 to 48.5 tokens)" in warning["text"]["en"]
    assert "回答变长（24.5 到 48.5 个词元）" in warning["text"]["zh"]
    assert warning["advice"].keys() == {"en", "zh"}
    assert {other["level"] for other in others} == {"information"}
    # Nothing is found where nothing is sampled, or not yet.
    write_metrics(directory, "pretrain", 30)
    for stage in ("pretrain", "grpo"):
        assert get(site, f"/v1/runs/try/stages/{stage}/findings")["data"] == []
    get(site, "/v1/runs/try/stages/rloo/findings", 404)


def test_the_best_and_worst_answers_of_a_step(site: Site, home: Path) -> None:
    write_rollouts(write_run(home, ppo={"rollouts": 12}, grpo={"rollouts": 1}))
    last = get(site, "/v1/runs/try/stages/ppo/rollouts")
    assert last["steps"] == list(range(0, 24, 2))
    assert last["data"]["best"] == [{"prompt": "Why?", "reward": 1.1, "text": "Because 11."}]
    assert last["data"]["worst"][0]["text"] == ""
    assert get(site, "/v1/runs/try/stages/ppo/rollouts?step=5")["data"]["best"][0]["text"] == "Because 2."
    assert get(site, "/v1/runs/try/stages/grpo/rollouts") == {
        "object": "rollout", "stage": "grpo", "steps": [], "data": None
    }  # fmt: skip
    get(site, "/v1/runs/try/stages/ppo/rollouts?step=-1", 400)


class Counted:
    """A file that says how much of it is read."""

    def __init__(self, file: Any, add: Callable[[int], None]) -> None:
        self._file, self._add = file, add

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        return self._told(self._file.read(size))

    def readline(self, size: int) -> bytes:
        return self._told(self._file.readline(size))

    def _told(self, found: bytes) -> bytes:
        self._add(len(found))
        return found


def test_what_was_read_of_a_growing_file_is_not_read_again(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_run(home, ppo={"rollouts": 2000})
    write_rollouts(directory, count=2000)
    paths = {"rollouts": directory / "ppo/rollouts.jsonl", "findings": directory / "ppo/metrics.jsonl"}
    opened, read = Path.open, dict.fromkeys(paths.values(), 0)

    def open_(path: Path, *arguments: Any, **more: Any) -> Any:
        file = opened(path, *arguments, **more)
        if path not in read:
            return file
        return Counted(file, lambda count: read.update({path: read[path] + count}))

    monkeypatch.setattr(Path, "open", open_)
    first = {name: get(site, f"/v1/runs/try/stages/ppo/{name}")["data"] for name in paths}
    sizes = {path: path.stat().st_size for path in read}
    for path in read:
        assert sizes[path] - 20 <= read[path] <= sizes[path] + 2000
    read.update(dict.fromkeys(read, 0))
    assert {name: get(site, f"/v1/runs/try/stages/ppo/{name}")["data"] for name in paths} == first
    assert get(site, "/v1/runs/try/stages/ppo/rollouts?step=7")["data"]["best"][0]["text"] == "Because 3."
    for path in read:
        assert read[path] < 2000 < sizes[path]
    # What is appended is told, once it is whole.
    with opened(paths["rollouts"], "a") as file:
        file.write("gun\n" + json.dumps({"step": 4000, "best": [{"text": "New."}], "worst": []}))
    assert get(site, "/v1/runs/try/stages/ppo/rollouts")["data"]["step"] == 3998
    with opened(paths["rollouts"], "a") as file:
        file.write("\n")
    last = get(site, "/v1/runs/try/stages/ppo/rollouts")
    assert (last["steps"][-1], last["data"]["best"]) == (4000, [{"text": "New."}])
    # A run that goes on from an earlier save has other files.
    write_rollouts(directory, count=3)
    assert get(site, "/v1/runs/try/stages/ppo/rollouts")["steps"] == [0, 2, 4]
    assert all(finding["step"] < 6 for finding in get(site, "/v1/runs/try/stages/ppo/findings")["data"])
    for path in paths.values():
        path.unlink()
    assert get(site, "/v1/runs/try/stages/ppo/rollouts")["steps"] == []
    assert get(site, "/v1/runs/try/stages/ppo/findings")["data"] == []
