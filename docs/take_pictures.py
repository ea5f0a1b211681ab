"""Takes the pictures of the page in docs/pictures, from a server that runs and a job that really learns.

    make chat                                 # once: the quickstart's models
    python docs/take_pictures.py              # of ~/.chatwheel, or --home

Its models are copied into a home of its own, whose server, users, keys and files are made here through the API. What
usage shows was really asked; only its days are spread over a month, in that home's database. Needs Chromium, as the
tests do.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import select
from topic_examples import examples

from chatwheel.settings import Settings
from chatwheel.store.database import Database
from chatwheel.store.tables import UsageRow

PICTURES = Path(__file__).with_name("pictures")
DESKTOP, PHONE = {"width": 1200, "height": 780}, {"width": 390, "height": 800}
LARGEST = 150_000
QUALITIES = (85, 75, 65, 55)
DAYS = 30
QUESTIONS = (
    "What is the capital of Norway?",
    "What is 7 + 5?",
    "Which continent is Kenya in?",
    "What do rabbits eat?",
    "Hello! How are you?",
)
Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The server, a key that may everything, and a way to look at its page."""

    url: str
    key: str
    home: Path
    browser: Browser

    @property
    def client(self) -> OpenAI:
        """The official one."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key)

    def post(self, path: str, body: Json) -> Json:
        """What OpenAI's client has no method for."""
        reply = httpx.post(f"{self.url}/v1{path}", json=body, headers={"authorization": f"Bearer {self.key}"})
        return dict(reply.raise_for_status().json())

    @contextmanager
    def page(self, address: str, *, phone: bool = False, dark: bool = False, locale: str = "en-US") -> Iterator[Page]:
        """Opened at an address behind the #."""
        context = self.browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            locale=locale,
            color_scheme="dark" if dark else "light",
            has_touch=phone,
            is_mobile=phone,
        )
        context.add_init_script(f"sessionStorage.setItem('chatwheel.key', {json.dumps(self.key)})")
        page = context.new_page()
        page.goto(f"{self.url}/#/{address}")
        yield page
        context.close()


def take(page: Page, name: str) -> None:
    """As WebP, of the best quality that is small enough."""
    page.wait_for_timeout(400)
    session = page.context.new_cdp_session(page)
    for quality in QUALITIES:
        size = page.viewport_size or DESKTOP
        clip = {"x": 0, "y": 0, **size, "scale": 2 if size == PHONE else 1.5}
        told = session.send("Page.captureScreenshot", {"format": "webp", "quality": quality, "clip": clip})
        picture = base64.b64decode(told["data"])
        if len(picture) <= LARGEST:
            (PICTURES / f"{name}.webp").write_bytes(picture)
            print(f"{name}.webp: {len(picture) / 1000:.0f} kB at quality {quality}")
            return
    raise SystemExit(f"{name}: {len(picture)} bytes even at quality {QUALITIES[-1]}")


# -- what there is to see


def ask(place: Place, model: str, question: str) -> None:
    """So that there is usage."""
    place.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_completion_tokens=24
    )


def furnish(place: Place) -> None:
    """People, keys and prices."""
    for name in ("Ada", "Lin"):
        place.post("/organization/users", {"name": name, "role": "member"})
    project = place.client.get("/me", cast_to=object)["project"]["id"]  # type: ignore[index]
    scopes = ["chat", "models", "usage"]
    more: list[Json] = [
        {"name": "shop assistant", "scopes": scopes, "models": ["quickstart/sft"], "requests_per_minute": 60},
        {"name": "nightly evaluation", "scopes": [*scopes, "completions", "score"], "expires_in": 90 * 86400},
    ]
    made = [place.post(f"/organization/projects/{project}/api_keys", body | {"monthly_budget": 20}) for body in more]
    for model, read, written in (("quickstart/base", 40, 80), ("quickstart/*", 60, 120)):
        place.post("/organization/prices", {"model": model, "input": read, "output": written, "training": 20})
    OpenAI(base_url=f"{place.url}/v1", api_key=made[0]["value"]).chat.completions.create(
        model="quickstart/sft", messages=[{"role": "user", "content": QUESTIONS[0]}], max_completion_tokens=24
    )


def use(place: Place) -> None:
    """A month of questions, asked now."""
    rng = Random(0)
    for model, count in (("quickstart/base", 30), ("quickstart/sft", 80)):
        for _ in range(count):
            ask(place, model, rng.choice(QUESTIONS))
    database = Database.open(f"sqlite:///{place.home / 'chatwheel.db'}")
    with database.write() as session:
        for row in session.scalars(select(UsageRow)):
            day = max(rng.randrange(DAYS), rng.randrange(DAYS))  # more of late
            row.created_at -= (DAYS - 1 - day) * 86400
    database.close()


def write(path: Path, lines: list[Json]) -> Path:
    """As JSON Lines."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def faulty(lines: list[Json]) -> list[Json]:
    """With what people get wrong."""
    wrong = json.loads(json.dumps(lines))
    wrong[3]["messages"][1]["role"] = "bot"
    wrong[11]["messages"].pop()
    wrong[26]["messages"][1]["content"] = None
    wrong[40]["message"] = wrong[40].pop("messages")
    return list(wrong)


# -- the pictures


def chat(place: Place) -> None:
    """An answer in the chat."""
    with place.page("") as page:
        for question in QUESTIONS[:3]:
            page.locator("#message").fill(question)
            page.keyboard.press("Enter")
            page.wait_for_timeout(200)
            expect(page.locator("article[aria-busy]").last).to_have_attribute("aria-busy", "false", timeout=30_000)
        take(page, "chat")


def playground(place: Place) -> None:
    """A token's probability, and what else might have come."""
    with place.page("playground?model=quickstart/sft") as page:
        page.locator(".turns li:last-child textarea").fill(QUESTIONS[0])
        page.locator(".bar .button.primary").click()
        expect(page.locator(".bar .button.primary svg")).to_be_visible(timeout=60_000)
        expect(page.locator(".token").first).to_be_visible()
        probabilities = page.locator(".token").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
        shares = [float(re.findall(r"([\d.e-]+) %", label)[-1]) for label in probabilities]
        unsure = shares.index(min(shares[:-1] or shares))
        page.locator(".token").nth(unsure).hover()
        take(page, "playground")


def keys(place: Place) -> None:
    """The console's first page."""
    with place.page("console/keys") as page:
        expect(page.get_by_role("heading", name="shop assistant")).to_be_visible()
        take(page, "keys")


def usage(place: Place) -> None:
    """By day and model."""
    with place.page("console/usage") as page:
        expect(page.get_by_role("slider").first).to_be_visible()
        take(page, "usage")


def upload(place: Place) -> None:
    """A file with faults."""
    path = write(place.home / "train.jsonl", faulty(examples("training")))
    with place.page("console/tuning/new") as page:
        page.locator("#base").select_option("quickstart/sft")
        page.locator("#file").set_input_files(path)
        expect(page.get_by_role("row").nth(1)).to_be_visible(timeout=60_000)
        page.locator("section[aria-labelledby=examples-title]").evaluate("one => one.scrollIntoView()")
        take(page, "upload")


def grader(place: Place) -> None:
    """A job from graded answers, in Chinese."""
    with place.page("console/tuning/new", locale="zh-CN") as page:
        page.locator("#base").select_option("quickstart/sft")
        page.locator("input[value=reinforcement]").check()
        page.locator("#grader-title ~ select").select_option("python")
        expect(page.locator("#grader-problem .good")).to_be_visible()
        take(page, "grader-chinese")


def job(place: Place) -> str:
    """Live, and on a phone once it is done; the new model's name."""
    client = place.client
    train = client.files.create(file=write(place.home / "train.jsonl", examples("training")), purpose="fine-tune")
    test = client.files.create(file=write(place.home / "test.jsonl", examples("examination")), purpose="fine-tune")
    made = client.fine_tuning.jobs.create(
        model="quickstart/sft", training_file=train.id, validation_file=test.id, suffix="topics", seed=1
    )
    with place.page(f"console/tuning/{made.id}", dark=True) as page:
        loss = page.get_by_role("slider", name="Training loss", exact=True)
        expect(loss).to_be_visible(timeout=120_000)
        until(lambda: page.get_by_role("cell", name=re.compile("ckpt-step")).count() >= 4)
        page.mouse.move(0, 0)
        take(page, "job")
        expect(page.get_by_role("link", name="Try it", exact=True).first).to_be_visible(timeout=300_000)
    with place.page(f"console/tuning/{made.id}", phone=True) as page:
        expect(page.get_by_role("slider").first).to_be_visible()
        take(page, "job-phone")
    done = client.fine_tuning.jobs.retrieve(made.id)
    assert done.fine_tuned_model, done.error
    return done.fine_tuned_model


def until(there: Callable[[], bool], seconds: float = 180.0) -> None:
    """Looks again and again."""
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise SystemExit("it takes too long")
        time.sleep(0.2)


# -- the server


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """`chatwheel serve`, with its worker, on a free port."""
    command = [sys.executable, "-m", "chatwheel", "serve", "--home", str(home), "--port", "0"]
    log = home / "server.log"
    with log.open("wb") as said:
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
    try:
        until(lambda: bool(re.search(r"Page\s+http", log.read_text())) or process.poll() is not None)
        found = re.search(r"Page\s+(http://\S+)", log.read_text())
        if found is None:
            raise SystemExit(log.read_text())
        yield found[1].rstrip("/")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def key_of(home: Path) -> str:
    """A new one that may everything."""
    command = [
        sys.executable,
        "-m",
        "chatwheel",
        "keys",
        "create",
        "administration",
        "--scope",
        "all",
        "--home",
        str(home),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def main() -> None:
    """All of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--home", type=Path, default=Settings.load().home, help="whose models/quickstart is shown")
    models = parser.parse_args().home / "models" / "quickstart"
    if not (models / "sft").is_dir():
        sys.exit(f"{models}: no sft there; run `chatwheel quickstart`, or give --home")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium here: `apt install chromium`, or set CHROMIUM to its path")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        home = Path(temporary)
        shutil.copytree(models, home / "models" / "quickstart")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with serving(home) as url:
            place = Place(url, key_of(home), home, browser)
            furnish(place)
            tuned = job(place)
            for _ in range(20):
                ask(place, tuned, QUESTIONS[0])
            use(place)
            for show in (chat, keys, usage, upload, grader, playground):
                show(place)
        browser.close()


if __name__ == "__main__":
    main()
