"""A browser and a server for it. `live_server` may later serve a trained model: the tests only use what it offers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from chatwheel.server.routes.page import STATIC
from tests.server.live import LiveServer, make_app, run_server

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
OpenAddress = Callable[..., Page]
PATIENCE = 30_000  # milliseconds: another test may be training a model on these cores
expect.set_options(timeout=PATIENCE)


# Not for the whole session: while Playwright runs, its event loop does, and other tests could not use theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium: $CHROMIUM, or the one on PATH."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no Chromium here: `apt install chromium`, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def live_server(tmp_path: Path) -> Iterator[LiveServer]:
    """A server with base, SFT and PPO models that answer slowly enough to be stopped."""
    assert (STATIC / "index.html").is_file(), (
        "the page is not built: run `make setup`, or `npm ci && npm run build` in web/"
    )
    app, database, models = make_app(tmp_path, delay=0.02)
    with run_server(app) as url:
        yield LiveServer(url, database, models)


@pytest.fixture
def open_address(browser: Browser, live_server: LiveServer) -> Iterator[OpenAddress]:  # noqa: ARG001  (it ends later)
    """Opens an address; at the end there must have been no error in any console (a blocked script is one)."""
    errors: list[str] = []
    contexts = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    def open_it(url: str, locale: str = "en-US", *, dark: bool = False, phone: bool = False) -> Page:
        context = browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            locale=locale,
            color_scheme="dark" if dark else "light",
            has_touch=phone,
            is_mobile=phone,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []
