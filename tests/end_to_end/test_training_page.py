"""A real run watched in a real browser: its curves grow, its stages end, a kill is told."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.test_page import shot
from tests.jobs.tiny_recipe import chatwheel, finish, write_recipe
from tests.server.live import LiveServer, make_app, run_server
from tests.server.test_runs import write_rollouts, write_run

# Steps of a few milliseconds could not be watched.
SLOWLY = """
import time
from chatwheel.training.loop import Loop
step = Loop._step
def slow_step(*arguments):
    time.sleep(0.1)
    return step(*arguments)
Loop._step = slow_step
"""


@pytest.fixture
def training(live_server: LiveServer, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts the tiny recipe, slowed down, in the server's home."""
    recipe, home = write_recipe(tmp_path), live_server.models.root.parent
    begun: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        arguments = ("run", "--recipe", recipe, "pretrain.steps=60")
        begun.append(chatwheel(*arguments, home=home, before=SLOWLY))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        finish(process)


def curve(page: Page, title: str) -> Locator:
    return page.get_by_role("slider", name=title, exact=True)


def last_step(page: Page, title: str = "Loss") -> int:
    return int(curve(page, title).get_attribute("aria-valuemax") or -1)


def stage(page: Page, name: str, state: str) -> Locator:
    return page.get_by_role("button", name=re.compile(rf"^{name}\s*{state}"))


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_a_run_is_watched_from_begin_to_end(
    open_address: OpenAddress, live_server: LiveServer, training: Callable[[], subprocess.Popen[str]]
) -> None:
    page = open_address(live_server.url)
    page.get_by_role("link", name="Training").click()
    expect(page.get_by_text("No training run has begun here yet.")).to_be_visible()
    process = training()
    page.get_by_role("link", name=re.compile("^tiny")).click(timeout=60_000)
    expect(page).to_have_title("tiny · Training · Chatwheel")

    # while it pretrains
    expect(stage(page, "Pretraining", "Running")).to_be_visible(timeout=60_000)
    expect(curve(page, "Loss")).to_be_visible(timeout=30_000)
    first, drawn = last_step(page), len(points_of(page, "Loss"))
    expect(page.get_by_text("Time left")).to_be_visible()
    expect(page.get_by_text("Of the machine’s peak")).to_be_visible()
    expect(page.get_by_text(re.compile("^After step"))).to_be_visible(timeout=30_000)
    for _ in range(100):
        if last_step(page) >= first + 5:
            break
        page.wait_for_timeout(100)
    assert last_step(page) >= first + 5, "the curve does not grow"
    assert len(points_of(page, "Loss")) > drawn
    page.wait_for_timeout(1000)
    shot(page, "training-running")
    phone = open_address(f"{live_server.url}/#/runs/tiny", "zh-CN", phone=True)
    phone.get_by_role("button", name=re.compile(r"^预训练\s*(进行中|已完成)")).tap()  # it may have ended meanwhile
    expect(phone.get_by_role("slider", name="损失", exact=True)).to_be_visible()
    assert fits(phone), "the page scrolls sideways"
    shot(phone, "training-phone-chinese")

    # until it is done
    expect(stage(page, "Pretraining", "Done")).to_be_visible(timeout=60_000)
    expect(stage(page, "PPO", "Done")).to_be_visible(timeout=120_000)
    expect(stage(page, "KTO", "Done")).to_be_visible(timeout=120_000)
    expect(page.locator("main").get_by_role("status")).to_have_text("Done", timeout=60_000)
    assert finish(process).returncode == 0
    for name, title in (("DPO", "Pairs in order"), ("KTO", "Loss")):
        stage(page, name, "Done").click()
        expect(curve(page, title)).to_be_visible()
    stage(page, "PPO", "Done").click()
    for title in ("Reward", "KL from the start", "Entropy", "Length of answers"):
        expect(curve(page, title)).to_be_visible()
    expect(page.get_by_text(re.compile("^reward ")).first).to_be_visible()
    shot(page, "training-done")
    stage(page, "Reward model", "Done").click()
    expect(curve(page, "Pairs in order")).to_be_visible()
    expect(page.get_by_text("Held-out pairs in order")).to_be_visible()
    with page.expect_popup() as opened:
        page.get_by_role("button", name="Open the report").click()
    opened.value.wait_for_load_state()
    expect(opened.value.locator("h1")).to_contain_text("tiny")
    # and back to the conversation
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#message")).to_be_focused()


def points_of(page: Page, title: str) -> list[str]:
    return (curve(page, title).locator("polyline.line").get_attribute("points") or "").split()


@pytest.mark.slow
def test_a_killed_run_says_how_to_go_on_and_goes_on(
    open_address: OpenAddress, live_server: LiveServer, training: Callable[[], subprocess.Popen[str]]
) -> None:
    process = training()
    metrics = live_server.models.root.parent / "runs/tiny/pretrain/metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 12:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    page = open_address(f"{live_server.url}/#/runs/tiny", dark=True)
    expect(curve(page, "Loss")).to_be_visible()
    process.kill()
    process.wait()
    expect(page.locator("main").get_by_role("status")).to_have_text("Interrupted")
    expect(page.get_by_text(re.compile(r"^chatwheel run --recipe \S+tiny.yaml pretrain.steps=60$"))).to_be_visible()
    shot(page, "training-interrupted-dark")
    training()
    expect(page.locator("main").get_by_role("status")).to_have_text("Running", timeout=30_000)
    expect(page.get_by_text(re.compile("^chatwheel run"))).to_have_count(0)


def test_values_are_read_off_a_curve_by_keyboard_and_pointer(
    open_address: OpenAddress, live_server: LiveServer
) -> None:
    write_finished_run(live_server.models.root.parent, steps=300)
    page = open_address(f"{live_server.url}/#/runs/old")
    loss = curve(page, "Loss")
    loss.focus()
    page.keyboard.press("Home")
    expect(loss).to_have_attribute("aria-valuetext", "Step 0: 5")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(loss).to_have_attribute("aria-valuetext", "Step 2: 4.98")
    expect(page.locator("figure").filter(has=loss).locator("figcaption")).to_contain_text("Step 2")
    page.keyboard.press("End")
    expect(loss).to_have_attribute("aria-valuenow", "299")
    page.keyboard.press("Escape")
    box = loss.bounding_box()
    assert box
    page.mouse.move(box["x"] + 48 + (box["width"] - 58) / 2, box["y"] + 60)
    expect(loss).to_have_attribute("aria-valuetext", re.compile(r"^Step 1(49|50): 3\.5"))
    shot(page, "training-hover")
    smooth = points_of(page, "Loss")
    page.get_by_role("button", name="Smooth").click()
    assert points_of(page, "Loss") != smooth
    page.get_by_role("button", name="Log").click()
    expect(page.get_by_role("button", name="Log")).to_have_attribute("aria-pressed", "true")
    shot(page, "training-log")
    page.get_by_text("More curves").click()
    expect(curve(page, "Share of the peak")).to_be_visible()


def write_finished_run(home: Path, steps: int) -> None:
    import json
    import random

    directory, dice = home / "runs/old", random.Random(0)
    for name in ("pretrain", "results"):
        (directory / name).mkdir(parents=True)
    (directory / "recipe.json").write_text(json.dumps({"name": "old", "pretrain": {}}))
    for name in ("data", "tokenizer", "pretrain"):
        (directory / f"results/stage.{name}.json").write_text('{"seconds": 90.0, "loss": 2.0, "parameters": 5700000}')
    rows = (
        {
            "step": step,
            "steps": steps,
            "loss": 5 - step / 100,
            "gradient_norm": 1 + dice.random() * (10 if step == 150 else 1),
            "learning_rate": 1e-3 * min(1, step / 30, (steps - step) / 100),
            "tokens_per_second": 3000 + 100 * dice.random(),
            "seconds": 0.3,
            "share_of_peak": 0.6,
        }
        for step in range(steps)
    )
    (directory / "pretrain/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_looks_wrong_is_told_with_the_answers_that_pleased(
    open_address: OpenAddress, live_server: LiveServer
) -> None:
    directory = write_run(live_server.models.root.parent, "long", pretrain=None, sft=None, ppo={"rollouts": 12})
    write_rollouts(directory)
    page = open_address(f"{live_server.url}/#/runs/long")
    expect(page.get_by_text("length exploitation.")).to_be_visible()
    expect(page.get_by_text("Read the best answers.")).to_be_visible()
    expect(page.get_by_text("Because 11.")).to_be_visible()
    expect(page.get_by_text("reward 1.1").first).to_be_visible()
    steps = page.get_by_role("slider", name="Rollout")
    steps.focus()
    page.keyboard.press("Home")
    expect(page.get_by_text("Because 0.")).to_be_visible()
    expect(steps).to_have_attribute("aria-valuetext", "Step 0")
    page.keyboard.press("End")
    shot(page, "training-findings")
    phone = open_address(f"{live_server.url}/#/runs/long", "zh-CN", phone=True)
    expect(phone.get_by_text("这是在钻长度的空子。")).to_be_visible()
    expect(phone.get_by_text("评判者最喜欢的")).to_be_visible()
    assert fits(phone), "the page scrolls sideways"
    shot(phone, "training-findings-phone-chinese")
    # It goes on, and what is found follows.
    write_rollouts(directory, count=3)
    expect(page.get_by_text("It looks healthy.")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("length exploitation.")).to_have_count(0)


def test_a_server_with_a_key_shows_runs_once_it_is_known(browser: Browser, tmp_path: Path) -> None:
    app, _, _ = make_app(tmp_path, api_key="open-sesame")
    write_finished_run(tmp_path, steps=30)
    with run_server(app) as url:
        page = browser.new_page()
        page.goto(f"{url}/#/runs/old")
        page.get_by_label("API key").fill("open-sesame")
        page.get_by_role("button", name="Enter").click()
        expect(curve(page, "Loss")).to_be_visible()
        page.goto(f"{url}/#/runs/other")
        expect(page.get_by_text("There is no such run here.")).to_be_visible()
        page.context.close()
