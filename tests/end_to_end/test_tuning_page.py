"""Fine-tuning in the console. Jobs are played, so that each state can be looked at; the last one is a real one."""

from __future__ import annotations

import json
import math
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
from playwright.sync_api import Page, Route, expect

from chatwheel.jobs.fine_tuning.worker import Worker
from chatwheel.settings import Settings
from chatwheel.store.database import Database
from tests.end_to_end.conftest import DESKTOP, OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import shot
from tests.end_to_end.test_training_page import fits
from tests.server.live import LiveServer
from tests.server.real import MODEL, run_real

Json = dict[str, Any]
JOB, TUNED = "ftjob-1a2b", "ft:quickstart/ppo:acme:pirate:1a2b"
GRADER = {
    "type": "string_check",
    "name": "right",
    "operation": "ilike",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
}
FORECAST = {
    "sentence": "twice the examples would lower the error from 8 % to about 6 % (5 to 7 %); "
    "95 % needs about 1,900 examples",
    "measured": [{"examples": n, "error": 0.3 * n**-0.3, "standard_error": 0.01} for n in (12, 25, 50, 100)],
    "examples": 100,
    "error": 0.08,
    "forecast": 0.0603,
    "forecast_interval": [0.05, 0.07],
    "target": 0.95,
    "needed": 1912,
    "needed_interval": [1210, None],
    "curve": [[n, 0.26 * n**-0.3, 0.3 * n**-0.3, 0.36 * n**-0.3] for n in range(12, 201, 8)],
}


@dataclass
class Played:
    """The routes of fine-tuning, as OpenAI has them: pages of events, the newest first."""

    status: str = "running"
    steps: int = 10
    total: int = 60
    created: list[Json] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    checked: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    graded: bool = False
    refusal: str = ""

    def models(self, route: Route) -> None:
        """The server's own and those that the job has made."""
        key = {name: value for name, value in route.request.headers.items() if name == "authorization"}
        listed = httpx.get(route.request.url, headers=key).json()
        made = [one["fine_tuned_model_checkpoint"] for one in self.checkpoints()]
        made += [TUNED] if self.status == "succeeded" else []
        more = [
            {"id": name, "label": name, "stage": "other", "group": "", "created": 1}
            for name in made
            if name not in self.deleted
        ]
        route.fulfill(json={**listed, "data": [*listed["data"], *more]})

    def delete(self, route: Route) -> None:
        assert route.request.method == "DELETE"
        name = unquote(urlsplit(route.request.url).path.split("/v1/models/", 1)[1])
        if self.refusal:
            route.fulfill(status=409, json={"error": {"message": self.refusal, "code": "model_in_use"}})
            return
        self.deleted.append(name)
        route.fulfill(json={"id": name, "object": "model", "deleted": True})

    def job(self) -> Json:
        ended = self.status in ("succeeded", "failed", "cancelled")
        return {
            "object": "fine_tuning.job",
            "id": JOB,
            "created_at": 1_764_200_000,
            "finished_at": 1_764_200_300 if ended else None,
            "estimated_finish": None if ended else 1_764_200_400,
            "model": "quickstart/ppo",
            "fine_tuned_model": TUNED if self.status == "succeeded" else None,
            "status": self.status,
            "training_file": "file-abc",
            "validation_file": None,
            "result_files": ["file-results"] if ended else [],
            "trained_tokens": 4210 if ended else None,
            "hyperparameters": {"n_epochs": "auto"},
            "method": {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": {}}}
            if self.graded
            else {"type": "supervised", "supervised": {"hyperparameters": {}}},
            "seed": 7,
            "metadata": {},
            "error": {"code": "boom", "message": "The disk is full.", "param": None}
            if self.status == "failed"
            else None,
            "forecast": FORECAST if self.status == "succeeded" else None,
        }

    def events(self) -> list[Json]:
        told: list[Json] = [{"type": "message", "message": f"Created fine-tuning job: {JOB}", "data": None}]
        for step in range(1, self.steps + 1):
            data: Json = {"step": step, "train_loss": 2 * math.exp(-step / 30), "train_mean_token_accuracy": step / 100}
            if self.graded:
                data = {"step": step, "train_loss": 0.01, "train_mean_reward": step / 200, "train_kl": step / 50}
                data["train_mean_answer_tokens"] = 12.0
            elif step % 10 == 0:
                data |= {"valid_loss": 2.1 * math.exp(-step / 40), "valid_mean_token_accuracy": step / 120}
            data |= {"total_steps": self.total}
            told.append({"type": "metrics", "message": f"Step {step}", "data": data})
        if self.status == "succeeded":
            told.append({"type": "message", "message": "The job has successfully completed", "data": None})
        common = {"object": "fine_tuning.job.event", "level": "info"}
        numbered = [
            {**common, "id": f"ftevent-{i}", "created_at": 1_764_200_000 + i, **one} for i, one in enumerate(told)
        ]
        return numbered[::-1]

    def checkpoints(self) -> list[Json]:
        metrics = {"step": 30, "train_loss": 0.8, "valid_loss": 0.9, "valid_mean_token_accuracy": 0.51}
        one = {"id": "ftckpt-1", "created_at": 1, "fine_tuned_model_checkpoint": f"{TUNED}:ckpt-step-30"}
        return [{**one, "step_number": 30, "metrics": metrics}] if self.steps >= 30 else []

    def answer(self, route: Route) -> None:
        request, address = route.request, urlsplit(route.request.url)
        rest = address.path.split("/v1/fine_tuning/jobs", 1)[1].strip("/").split("/")
        if request.method == "POST" and rest == [""]:
            self.created.append(request.post_data_json)
            route.fulfill(json=self.job())
        elif request.method == "POST":
            self.asked.append(rest[1])
            self.status = {"pause": "paused", "resume": "running", "cancel": "cancelled"}[rest[1]]
            route.fulfill(json=self.job())
        elif rest == [""]:
            route.fulfill(json=page_of([self.job()], False))
        elif rest[0] != JOB:
            route.fulfill(status=404, json={"error": {"message": "none", "code": "fine_tune_not_found"}})
        elif rest[1:] == ["events"]:
            found, query = self.events(), parse_qs(address.query)
            if after := query.get("after"):
                found = found[[one["id"] for one in found].index(after[0]) + 1 :]
            limit = int(query["limit"][0])
            route.fulfill(json=page_of(found[:limit], len(found) > limit))
        elif rest[1:] == ["checkpoints"]:
            route.fulfill(json=page_of(self.checkpoints(), False))
        else:
            route.fulfill(json=self.job())

    def check(self, route: Route) -> None:
        body = route.request.post_data_json
        self.checked.append(body)
        tokens = {"prompt": 1200, "trained": 3400, "longest": 210, "too_long": 2}
        route.fulfill(
            json={
                "ok": not self.errors,
                "kind": "supervised",
                "examples": 100,
                "num_bytes": 52_000,
                "errors": self.errors,
                "num_errors": 120 if self.errors else 0,
                "warnings": ["2 examples are longer than the model reads; their ends are cut off"],
                "tokens": None if self.errors else tokens,
            }
        )

    def on(self, page: Page) -> None:
        page.route("**/v1/fine_tuning/jobs**", self.answer)
        page.route("**/v1/fine_tuning/jobs/**", self.answer)
        page.route("**/v1/files/*/check", self.check)
        page.route("**/api/models", self.models)
        page.route("**/v1/models/**", self.delete)


def page_of(data: list[Json], more: bool) -> Json:
    return {"object": "list", "data": data, "has_more": more}


def opened(open_address: OpenAddress, server: LiveServer, played: Played, at: str, *how: str, **more: bool) -> Page:
    page = open_address("about:blank", *how, **more)
    played.on(page)
    page.goto(f"{server.url}/#/console/tuning{at}")
    return page


def curve(page: Page, name: str) -> Any:
    return page.get_by_role("slider", name=name, exact=True)


def test_a_file_is_checked_line_by_line_and_a_job_is_started(
    live_server: LiveServer, open_address: OpenAddress, tmp_path: Path
) -> None:
    played = Played(errors=[{"line": 3, "field": "messages[1].role", "message": "'wizard' is no role"}] * 20)
    page = opened(open_address, live_server, played, "")
    page.get_by_role("link", name="New job").click()
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    expect(page.get_by_text("Choose the examples to learn from.")).to_be_visible()
    file = tmp_path / "pirate.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "Ahoy"}]}) + "\n")
    page.get_by_label("Choose a file").set_input_files(file)
    expect(page.get_by_text("120 errors. Correct them")).to_be_visible()
    row = page.get_by_role("row").nth(1)
    expect(row.get_by_role("cell")).to_have_text(["3", "messages[1].role", "'wizard' is no role"])
    expect(page.get_by_text("The first 20:")).to_be_visible()
    expect(page.get_by_text("The examples must be right first.")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    assert unlabelled(page) == []
    page.mouse.wheel(0, 300)
    shot(page, "tuning-errors")

    # It is there, byte for byte, and can be chosen again.
    stored = httpx.get(f"{live_server.url}/v1/files").json()["data"]
    assert [(one["filename"], one["purpose"]) for one in stored] == [("pirate.jsonl", "fine-tune")]
    assert httpx.get(f"{live_server.url}/v1/files/{stored[0]['id']}/content").content == file.read_bytes()
    played.errors = []
    page.get_by_label("Preferences (DPO)").check()
    expect(page.get_by_text("All lines are good.")).to_be_visible()
    expect(page.get_by_text("2 examples are longer")).to_be_visible()
    page.get_by_label("Model to begin with").select_option("quickstart/sft")
    expect(page.get_by_text("All lines are good.")).to_be_visible()
    assert played.checked[-2:] == [
        {"method": "dpo", "model": "quickstart/ppo"},
        {"method": "dpo", "model": "quickstart/sft"},
    ]
    page.get_by_text("Options").click()
    page.get_by_label("Epochs").fill("3")
    page.get_by_label("Beta").fill("0.2")
    page.get_by_label("Name").fill("pirate")
    assert unlabelled(page) == []
    shot(page, "tuning-new")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name=JOB)).to_be_visible()
    assert played.created == [
        {
            "model": "quickstart/sft",
            "training_file": stored[0]["id"],
            "suffix": "pirate",
            "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3, "beta": 0.2}}},
        }
    ]


def test_without_any_choice_everything_is_auto(
    live_server: LiveServer, open_address: OpenAddress, tmp_path: Path
) -> None:
    played = Played()
    page = opened(open_address, live_server, played, "/new")
    file = tmp_path / "a.jsonl"
    file.write_text("{}\n")
    page.get_by_label("Choose a file").set_input_files(file)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name=JOB)).to_be_visible()
    [body] = played.created
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {}}}
    assert set(body) == {"model", "training_file", "method"}


def test_a_grader_is_written_checked_and_sent(live_server: LiveServer, browser: Any, tmp_path: Path) -> None:
    """The server's own validation answers; the file's check and the job are played."""
    played = Played()
    page = browser.new_page(locale="en-US", viewport=DESKTOP)
    errors: list[str] = []  # but for graders that are refused, which the browser counts as errors
    page.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    played.on(page)
    page.goto(f"{live_server.url}/#/console/tuning/new")
    page.get_by_label("Graded answers").check()
    good = page.get_by_text("The server takes this grader.")
    text = page.get_by_label("JSON")
    kinds = page.get_by_label("Kind of grader")
    expect(good).to_be_visible()
    assert json.loads(text.input_value()) == GRADER
    # Each template is one that the server takes.
    names = [one.get_attribute("value") or "" for one in kinds.locator("option").all()]
    assert names == ["string_check", "text_similarity", "python", "score_model", "label_model", "multi"]
    for name in names[1:]:
        with page.expect_response("**/graders/validate") as validated:
            kinds.select_option(name)
        assert validated.value.status == 200, validated.value.text()
        assert validated.value.json()["grader"]["type"] == name
        expect(good).to_be_visible()
    assert unlabelled(page) == []

    file = tmp_path / "prompts.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "2 + 2"}], "answer": "4"}\n')
    page.get_by_label("Choose a file").set_input_files(file)
    expect(page.get_by_text("All lines are good.")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_enabled()

    # What is wrong is told at the field, in the server's words, and no job can be started with it.
    for wrong, told, field_ in (
        ('{"type": "string_check"', "This is no JSON", text),
        (json.dumps(GRADER | {"operation": "is"}), "grader.operation: ", text),
        (json.dumps(GRADER | {"input": "{{ answer }}"}), "grader.input: ", text),
    ):
        text.fill(wrong)
        expect(page.locator("#grader-problem")).to_contain_text(told)
        expect(field_).to_have_attribute("aria-invalid", "true")
        expect(good).to_have_count(0)
        expect(page.get_by_role("button", name="Start")).to_be_disabled()
    shot(page, "tuning-grader-wrong")
    kinds.select_option("python")
    program = page.get_by_label("Program")
    expect(good).to_be_visible()
    program.fill("def grade(sample, item:\n    return 1")
    expect(page.locator("#grader-problem")).to_contain_text("grader.source: not Python")
    expect(program).to_have_attribute("aria-invalid", "true")
    expect(text).to_have_attribute("aria-invalid", "false")
    program.fill("def grade(sample, item):\n    return len(item['answer']) / 9")
    expect(good).to_be_visible()
    sent = {
        "type": "python",
        "name": "program",
        "source": "def grade(sample, item):\n    return len(item['answer']) / 9",
    }
    expect(page.get_by_text("All lines are good.")).to_be_visible()
    assert played.checked[-1]["method"] == {"type": "reinforcement", "reinforcement": {"grader": sent}}
    page.get_by_text("Options").click()
    page.get_by_label("Compute").fill("0.5")
    page.get_by_label("Epochs").fill("2")
    assert unlabelled(page) == []
    shot(page, "tuning-grader")
    played.graded, played.steps = True, 40
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name=JOB)).to_be_visible()
    [body] = played.created
    numbers = {"n_epochs": 2, "compute_multiplier": 0.5}
    assert body["method"] == {
        "type": "reinforcement",
        "reinforcement": {"grader": sent, "hyperparameters": numbers},
    }

    # Its curves.
    for name, last in (("Reward", "Step 40: 0.2"), ("KL from the base", "Step 40: 0.8"), ("Length of answers", None)):
        if last is None:
            expect(curve(page, name)).to_be_visible()
        else:
            expect(curve(page, name)).to_have_attribute("aria-valuetext", last)
    page.get_by_text("Grader: right").click()
    expect(page.get_by_text('"operation": "ilike"')).to_be_visible()
    shot(page, "tuning-graded-job")
    assert [error for error in errors if "400 (Bad Request)" not in error] == []
    page.close()


def test_models_are_deleted_after_a_question(live_server: LiveServer, open_address: OpenAddress) -> None:
    played = Played(status="succeeded", steps=60)
    page = opened(open_address, live_server, played, f"/{JOB}")
    checkpoint = f"{TUNED}:ckpt-step-30"
    page.get_by_role("button", name=f"Delete: {checkpoint}", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text(checkpoint)
    shot(page, "tuning-delete")
    page.keyboard.press("Escape")
    assert played.deleted == []
    page.get_by_role("button", name=f"Delete: {checkpoint}", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row = page.get_by_role("row").filter(has_text=checkpoint)
    expect(row).to_contain_text("deleted")
    expect(row.get_by_role("link")).to_have_count(0)
    assert played.deleted == [checkpoint]

    page.get_by_role("link", name="All jobs").click()
    page.get_by_role("button", name=f"Delete: {TUNED}", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("link", name=f"Try it: {TUNED}")).to_have_count(0)
    expect(page.get_by_role("listitem").filter(has_text=TUNED)).to_contain_text("deleted")
    assert played.deleted == [checkpoint, TUNED]
    assert unlabelled(page) == []


def test_a_model_that_a_job_learns_from_is_not_deleted(live_server: LiveServer, browser: Any) -> None:
    played = Played(status="succeeded", steps=60, refusal="The job ftjob-9 learns from it; wait for it, or cancel it.")
    page = browser.new_page(locale="en-US")
    played.on(page)
    page.goto(f"{live_server.url}/#/console/tuning")
    page.get_by_role("button", name=f"Delete: {TUNED}", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("The job ftjob-9 learns from it")
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name=f"Try it: {TUNED}")).to_be_visible()
    page.close()


def test_a_refused_upload_is_told(live_server: LiveServer, browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(f"{live_server.url}/#/console/tuning/new")
    refusal = {"error": {"message": "The disk is full.", "code": None}}
    page.route("**/v1/files", lambda route: route.fulfill(status=507, json=refusal))
    file = tmp_path / "a.jsonl"
    file.write_text("{}\n")
    page.get_by_label("Choose a file").set_input_files(file)
    expect(page.get_by_role("alert").filter(has_text="The disk is full.")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    page.close()


def test_a_job_is_watched_to_its_end(live_server: LiveServer, open_address: OpenAddress) -> None:
    played = Played(steps=150, total=300)
    page = opened(open_address, live_server, played, f"/{JOB}")
    status = page.get_by_role("status")
    expect(status.filter(has_text="Running")).to_be_visible()
    loss = curve(page, "Training loss")
    # two pages of events
    expect(loss).to_have_attribute("aria-valuemin", "1")
    expect(loss).to_have_attribute("aria-valuemax", "150")
    expect(curve(page, "Validation loss")).to_have_attribute("aria-valuemin", "10")
    expect(page.get_by_text("Step 150 of 300")).to_be_visible()
    played.steps = 160
    expect(loss).to_have_attribute("aria-valuemax", "160")
    expect(page.get_by_role("cell", name=f"{TUNED}:ckpt-step-30", exact=True)).to_be_visible()
    expect(page.get_by_text(f"Created fine-tuning job: {JOB}")).to_be_visible()
    shot(page, "tuning-job")
    page.get_by_role("button", name="Pause").click()
    expect(status.filter(has_text="Paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(status.filter(has_text="Running")).to_be_visible()
    assert played.asked == ["pause", "resume"]
    assert unlabelled(page) == []

    played.steps, played.status = 300, "succeeded"
    expect(status.filter(has_text="Succeeded")).to_be_visible()
    expect(loss).to_have_attribute("aria-valuemax", "300")
    expect(page.get_by_role("progressbar")).to_have_count(0)
    expect(page.get_by_text("wice the examples would lower the error")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Error by number of examples"))).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    page.route("**/v1/files/file-results/content", lambda route: route.fulfill(body="step,train_loss\n1,2\n"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Results (CSV)").click()
    assert download.value.path().read_text() == "step,train_loss\n1,2\n"
    assert unlabelled(page) == []
    shot(page, "tuning-done")
    page.get_by_role("link", name="Try it").first.click()
    expect(page.get_by_label("Model")).to_have_value(TUNED)
    page.go_back()
    phone = opened(open_address, live_server, played, f"/{JOB}", "zh-CN", phone=True)
    expect(phone.get_by_role("slider", name="训练损失", exact=True)).to_be_visible()
    assert fits(phone), "the page scrolls sideways"
    assert unlabelled(phone) == []
    expect(phone.get_by_role("link", name="微调", exact=True)).to_be_in_viewport(ratio=0.9)
    told = "例子翻倍后，错误率预计从 8 % 降到约 6 %（5 % 至 7 %）；正确率达到 95 % 约需 1,900 个例子（1,200 个以上）。"
    expect(phone.get_by_text(told)).to_be_visible()
    shot(phone, "tuning-phone-chinese")
    dark = opened(open_address, live_server, played, f"/{JOB}", dark=True)
    expect(curve(dark, "Training loss")).to_be_visible()
    shot(dark, "tuning-dark")
    dark.get_by_role("link", name="All jobs").click()
    expect(dark.get_by_role("link", name=TUNED, exact=True)).to_be_visible()
    expect(dark.get_by_role("link", name=f"Try it: {TUNED}")).to_be_visible()
    shot(dark, "tuning-list-dark")


def test_a_job_is_cancelled_after_a_question_and_a_failure_says_why(
    live_server: LiveServer, open_address: OpenAddress
) -> None:
    played = Played()
    page = opened(open_address, live_server, played, f"/{JOB}")
    page.get_by_role("button", name="Cancel the job").click()
    page.keyboard.press("Escape")
    assert played.asked == []
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_role("status").filter(has_text="Cancelled")).to_be_visible()
    assert played.asked == ["cancel"]
    played.status = "failed"
    page.get_by_role("link", name="All jobs").click()
    expect(page.get_by_text("The disk is full.")).to_be_visible()


def test_a_job_that_is_not_there(live_server: LiveServer, browser: Any) -> None:
    page = browser.new_page()
    Played().on(page)
    page.goto(f"{live_server.url}/#/console/tuning/ftjob-other")
    expect(page.get_by_text("There is no such job here.")).to_be_visible()
    page.close()


def test_a_model_of_ones_own_from_the_upload_to_its_answer(open_address: OpenAddress, tmp_path: Path) -> None:
    """Nothing is played: real routes, a real worker, a real model."""
    home = tmp_path / "real"
    with run_real(home) as real:
        settings = Settings(home=home, database_url=f"sqlite:///{home / 'chatwheel.db'}")
        database = Database.open(settings.database_url)
        page = open_address(f"{real.url}/#/console/tuning")
        expect(page.get_by_text("No model was fine-tuned here yet.")).to_be_visible()
        page.get_by_role("link", name="New job").click()
        page.get_by_label("Model to begin with").select_option(MODEL)

        page.get_by_label("Choose a file").set_input_files(examples(tmp_path / "held_out.jsonl", 8))
        expect(page.get_by_text("All lines are good.")).to_be_visible(timeout=60_000)
        bad = tmp_path / "bad.jsonl"
        bad.write_text('{"messages": [{"role": "wizard", "content": "Ahoy"}]}\n')
        page.get_by_label("Choose a file").set_input_files(bad)
        expect(page.get_by_text("1 error. Correct it")).to_be_visible()
        row = page.get_by_role("row").nth(1).get_by_role("cell")
        assert row.nth(0).inner_text() == "1"
        assert "messages[0].role" in row.nth(1).inner_text()
        assert page.get_by_role("button", name="Start").is_disabled()
        page.get_by_label("Choose a file").set_input_files(examples(tmp_path / "train.jsonl", 32))
        expect(page.get_by_text("All lines are good.")).to_be_visible()
        held_out = page.get_by_label("Validation examples").locator("option", has_text="held_out.jsonl")
        page.get_by_label("Validation examples").select_option(held_out.get_attribute("value"))
        page.get_by_label("Tell whether more examples would help").check()
        page.get_by_text("Options").click()
        page.get_by_label("Epochs").fill("2")
        page.get_by_label("Name").fill("parrot")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_text("Created fine-tuning job")).to_be_visible()

        worker = threading.Thread(target=lambda: Worker(settings, database).work_once())
        worker.start()
        # The page's own loop must go on while the worker works beside it.
        expect(page.get_by_role("status").filter(has_text="Succeeded")).to_be_visible(timeout=300_000)
        worker.join()
        database.close()
        for name in ("Training loss", "Validation loss"):
            expect(curve(page, name)).to_be_visible()
        assert int(curve(page, "Training loss").get_attribute("aria-valuemax") or 0) > 1
        expect(curve(page, "Validation loss, all examples")).to_have_count(0)  # the same numbers once more
        expect(page.get_by_role("img", name=re.compile("^Error by number of examples"))).to_be_visible()
        expect(page.get_by_role("row").filter(has_text=":ckpt-step-")).to_have_count(2)
        assert unlabelled(page) == []
        shot(page, "tuning-real")
        page.get_by_role("link", name="Try it", exact=True).first.click()
        chosen = page.get_by_label("Model").input_value()
        assert re.match(f"ft:{MODEL}:[^:]+:parrot:", chosen)
        page.get_by_label("Most tokens").fill("8")
        page.get_by_role("textbox", name=re.compile(": User$")).fill("Say one and 3")
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_text(re.compile("It was cut off|It ended by itself"))).to_be_visible(timeout=60_000)
        assert chosen in [one.id for one in real.client.models.list()]


def examples(path: Path, count: int) -> Path:
    words = ["one", "two", "three", "four", "five", "six"]
    lines = (
        {
            "messages": [
                {"role": "user", "content": f"Say {words[i % 6]} and {i}"},
                {"role": "assistant", "content": f"{words[i % 6]} {words[(i + 1) % 6]}"},
            ]
        }
        for i in range(count)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
