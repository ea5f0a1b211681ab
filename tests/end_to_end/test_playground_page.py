"""The playground with a real model: its log-probs, its costs, and code that sends what the page sends."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import shot
from tests.end_to_end.test_training_page import fits
from tests.server.live import LiveServer
from tests.server.real import MODEL, Real, run_real

Json = dict[str, Any]
TRICKY = "it's \"so\", \\n and $HOME `ls` %s {x}\nnew line\t东京 🙂 </script> '''"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with run_real(tmp_path_factory.mktemp("home")) as server:
        yield server


def tokens(page: Page) -> Locator:
    return page.get_by_role("group", name=re.compile("^Tokens of the answer|^回答的词元")).get_by_role("button")


def write(page: Page, text: str, role: str = "User") -> None:
    page.get_by_role("textbox", name=re.compile(f": {role}$")).last.fill(text)


def run(page: Page) -> Json:
    """Runs the request to its end; what was sent."""
    with page.expect_request(re.compile("/v1/(chat/)?completions$")) as sent:
        page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("button", name="Run")).to_be_visible(timeout=60_000)
    return dict(sent.value.post_data_json)


def test_each_token_tells_its_probability_and_what_else_might_have_come(real: Real, open_address: OpenAddress) -> None:
    page = open_address(real.url)
    page.get_by_role("link", name="Playground").click()
    expect(page).to_have_title("Playground · Chatwheel")
    assert unlabelled(page) == []
    shot(page, "playground-empty")
    page.get_by_label("Model").select_option(MODEL)
    write(page, "What is the capital of France?")
    page.get_by_label("Most tokens").fill("12")
    page.get_by_label("Seed").fill("3")
    body = run(page)
    assert (body["max_completion_tokens"], body["seed"], body["logprobs"]) == (12, 3, True)
    assert not {"temperature", "top_p", "stop", "presence_penalty"} & set(body), "a default is sent"

    # the same as the official client is told
    whole = real.client.chat.completions.create(
        model=MODEL, messages=body["messages"], max_completion_tokens=12, seed=3, logprobs=True, top_logprobs=5
    )
    content = whole.choices[0].logprobs.content  # type: ignore[union-attr]
    assert content
    assert page.locator(".text .visually-hidden").text_content() == whole.choices[0].message.content
    first = tokens(page).first
    first.hover()
    shares = page.get_by_role("tooltip").locator("li .percent").all_inner_texts()
    expected = [100 * math.exp(one.logprob) for one in content[0].top_logprobs]
    for shown, share in zip(shares, expected, strict=False):
        assert float(shown.removesuffix(" %")) == pytest.approx(share, abs=0.1)
    shot(page, "playground-hover")

    # by the keyboard
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(tokens(page).nth(1)).to_be_focused()
    expect(page.get_by_role("tooltip")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_have_count(0)
    assert tokens(page).nth(1).get_attribute("tabindex") == "0"
    assert first.get_attribute("tabindex") == "-1"
    assert unlabelled(page) == []
    expect(page.locator("dl")).to_contain_text(re.compile(r"Prompt\s*\d+ tokens"))
    expect(page.locator("dl")).to_contain_text("tokens/s")
    expect(page.locator("dl")).not_to_contain_text("Cost")
    expect(page.get_by_text("It was cut off")).to_be_visible()


def test_a_text_goes_on_and_its_pieces_are_the_text(real: Real, open_address: OpenAddress) -> None:
    page = open_address(f"{real.url}/#/playground")
    page.get_by_role("button", name="Text", exact=True).click()
    page.get_by_label("Model").select_option(MODEL)
    page.get_by_label("Text to go on with").fill("法国的首都 is 🙂")
    page.get_by_label("Most tokens").fill("40")
    page.get_by_label("Seed").fill("1")
    body = run(page)
    assert body["prompt"] == "法国的首都 is 🙂"
    assert body["logprobs"] == 5
    whole = real.client.completions.create(model=MODEL, prompt=body["prompt"], max_tokens=40, seed=1, logprobs=5)
    spoken = page.evaluate("[...document.querySelectorAll('.tokens .token:not(.ends)')].map((one) => one.textContent)")
    # what cannot be seen has a picture
    pictures = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    assert "".join(spoken) == whole.choices[0].text.translate(pictures)
    assert len(spoken) > 10
    page.get_by_role("button", name="Keep the answer").click()
    expect(page.get_by_label("Text to go on with")).to_have_value(body["prompt"] + whole.choices[0].text)


def test_characters_of_several_tokens_are_one_and_their_tokens_are_told(
    live_server: LiveServer, open_address: OpenAddress
) -> None:
    """Also: a mark that is no text, a text that stops the answer, what costs, and an error in mid-stream."""

    def token(text: bytes | str, share: float) -> Json:
        told = text if isinstance(text, str) else text.decode(errors="replace")
        one = {"token": told, "logprob": math.log(share), "bytes": None if isinstance(text, str) else list(text)}
        return one | {"top_logprobs": [one]}

    hanzi = "京".encode()
    pieces = [
        ("A ", [token(b"A ", 0.99)]),
        ("京", [token(hanzi[:2], 0.5), token(hanzi[2:], 0.5)]),
        ("!", [token(b"! and", 0.05)]),
        ("", [token("<|end|>", 0.8)]),
    ]

    def answer(route: Route) -> None:
        chunks = [
            {"choices": [{"delta": {"content": text}, "finish_reason": None, "logprobs": {"content": content}}]}
            for text, content in pieces
        ]
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        lines += [": keep-alive\n\n", f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n", "data: [DONE]\n\n"]
        if "broken" in (route.request.post_data or ""):
            lines = [lines[0], 'data: {"error": {"message": "The engine has stopped."}}\n\n']
        route.fulfill(body="".join(lines), content_type="text/event-stream")

    page = open_address(f"{live_server.url}/#/playground")
    page.route("**/v1/chat/completions", answer)
    price = {
        "object": "price",
        "model": "quickstart/*",
        "input": 2.0,
        "cached_input": 1.0,
        "output": 10.0,
        "training": 0,
    }
    page.route("**/v1/organization/prices", lambda route: route.fulfill(json={"object": "list", "data": [price]}))
    page.reload()
    write(page, "x")
    run(page)
    assert tokens(page).all_inner_texts() == ["A ", "京", "!", "<|end|>"]
    expect(tokens(page).nth(1)).to_have_attribute("aria-label", "京, 25 %")
    tokens(page).nth(1).hover()
    expect(page.get_by_role("tooltip").locator("ul")).to_have_count(2)
    expect(page.get_by_role("tooltip")).to_contain_text("\\xe4\\xba")
    tints = [one.get_attribute("class") or "" for one in tokens(page).all()]
    assert [re.search(r"tint-(\d)", tint).group(1) for tint in tints] == ["0", "3", "4", "1"]  # type: ignore[union-attr]
    expect(page.locator("dl")).to_contain_text("400 from the cache")
    # 600 fresh tokens at 2 dollars a million, 400 at 1, 100 at 10
    expect(page.locator("dl")).to_contain_text(re.compile(r"Cost\s*\$0\.0026$"))
    write(page, "broken")
    run(page)
    expect(page.get_by_role("alert").filter(has_text="The engine has stopped.")).to_be_visible()
    expect(page.locator(".text")).to_contain_text("A")


def test_an_answer_is_stopped_and_refusals_are_told(real: Real, open_address: OpenAddress) -> None:
    page = open_address(f"{real.url}/#/playground?model={MODEL.replace('/', '%2F')}")
    expect(page.get_by_label("Model")).to_have_value(MODEL)
    page.get_by_role("button", name="Text", exact=True).click()
    page.get_by_label("Text to go on with").fill("on and on")
    page.get_by_label("Most tokens").fill("900")

    def without_end(route: Route) -> None:  # the model may end by itself sooner than anybody can press a key
        body = {**json.loads(route.request.post_data or "{}"), "ignore_eos": True}
        route.continue_(post_data=json.dumps(body))

    page.route("**/v1/completions", without_end)
    slow = {"offline": False, "latency": 0, "downloadThroughput": 20_000, "uploadThroughput": -1}  # bytes a second
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.keyboard.press("Control+Enter")
    expect(tokens(page).nth(3)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("You stopped it.")).to_be_visible()
    kept = page.locator(".text").text_content()
    page.wait_for_timeout(300)
    assert page.locator(".text").text_content() == kept
    assert tokens(page).count() < 900


@dataclass
class Heard:
    """A server that takes down what it is asked."""

    url: str
    asked: list[tuple[str, str, Json]] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Heard]:
    heard = Heard("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.asked.append((self.path, self.headers["authorization"], body))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield heard
    server.shutdown()
    thread.join()
    server.server_close()


def code(page: Page, language: str, at: str) -> str:
    page.get_by_role("button", name=language, exact=True).click()
    text = page.locator("pre code").inner_text()
    origin = re.match(r"(http://[^/]+)/", page.url).group(1)  # type: ignore[union-attr]
    assert origin in text
    return text.replace(origin, at)


# The client for Node is not here; what is passed to it is.
JAVASCRIPT = """
async ([code, key]) => {
  const sent = []
  class OpenAI {
    constructor(options) { this.options = options }
    at(path) {
      return { create: async (body) => (sent.push([`${this.options.baseURL}/${path}`, this.options.apiKey, body]), []) }
    }
    get chat() { return { completions: this.at('chat/completions') } }
    get completions() { return this.at('completions') }
  }
  const AsyncFunction = (async () => {}).constructor
  const [first, ...rest] = code.split('\\n')
  if (first !== "import OpenAI from 'openai'") throw new Error(first)
  await new AsyncFunction('OpenAI', 'process', rest.join('\\n'))(OpenAI, { env: { CHATWHEEL_API_KEY: key } })
  return JSON.stringify(sent)
}
"""


@pytest.mark.parametrize("kind", ["Chat", "Text"])
def test_code_sends_exactly_what_the_page_sends(
    kind: str, live_server: LiveServer, open_address: OpenAddress, tmp_path: Path
) -> None:
    page = open_address(f"{live_server.url}/#/playground")
    sent: list[Request] = []

    def take(route: Route) -> None:
        sent.append(route.request)
        route.fulfill(body="data: [DONE]\n\n", content_type="text/event-stream")

    page.route("**/v1/chat/completions", take)
    page.route("**/v1/completions", take)
    page.evaluate("sessionStorage.setItem('chatwheel.key', 'cw-very-secret')")
    page.get_by_role("button", name=kind, exact=True).click()
    if kind == "Chat":
        write(page, f"Be brief. {TRICKY}", "System")
        write(page, TRICKY)
        page.get_by_label("Answer as").select_option("schema")
        schema = {"type": "object", "properties": {"__proto__": {"const": None}, "a-b": {"enum": [True, 1.5, "'"]}}}
        page.get_by_label("JSON schema").fill("[1]")
        expect(page.get_by_role("alert").filter(has_text="not a JSON object")).to_be_visible()
        expect(page.get_by_role("button", name="Run")).to_be_disabled()
        page.get_by_label("JSON schema").fill(json.dumps(schema))
    else:
        page.get_by_label("Text to go on with").fill(TRICKY)
    page.get_by_label("Temperature").first.fill("0.35")
    page.get_by_label("Temperature").first.press("Tab")
    page.get_by_label("Seed").fill("-7")
    page.get_by_label("Stop before").fill("END\n\\n\\n\n'")
    page.get_by_label("Presence penalty").first.fill("-0.5")
    page.get_by_label("Presence penalty").first.press("Tab")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("button", name="Run")).to_be_visible()
    assert len(sent) == 1
    body = sent[0].post_data_json
    assert body["stop"] == ["END", "\n\n", "'"]
    assert (body["temperature"], body["presence_penalty"], body["seed"]) == (0.35, -0.5, -7)
    path = "/v1/chat/completions" if kind == "Chat" else "/v1/completions"
    if kind == "Chat":
        assert body["response_format"]["json_schema"]["schema"] == schema
        assert body["messages"][1] == {"role": "user", "content": TRICKY}
        shot(page, "playground-code")

    with listening() as heard:
        environment = os.environ | {"CHATWHEEL_API_KEY": "cw-test"}
        python = code(page, "Python", heard.url)
        subprocess.run([sys.executable, "-c", python], env=environment, check=True, cwd=tmp_path, timeout=60)
        curl = code(page, "curl", heard.url)
        subprocess.run(["bash", "-c", curl], env=environment, check=True, cwd=tmp_path, timeout=60, capture_output=True)
        javascript = code(page, "JavaScript", heard.url)
        blank = page.context.browser.new_page()  # type: ignore[union-attr]
        asked = blank.evaluate(JAVASCRIPT, [javascript, "cw-test"])
        blank.close()
    expected = (path, "Bearer cw-test", body)
    assert heard.asked == [expected, expected]
    assert json.loads(asked) == [[f"{heard.url}{path}", "cw-test", body]]
    for text in (python, curl, javascript):
        assert "cw-very-secret" not in text


def test_on_a_phone_in_chinese_and_in_the_dark(real: Real, open_address: OpenAddress) -> None:
    page = open_address(f"{real.url}/#/playground", "zh-CN", phone=True)
    expect(page.get_by_role("heading", name="试验场")).to_be_visible()
    page.get_by_label("模型").select_option(MODEL)
    write(page, "法国的首都是哪里？", "用户")
    page.get_by_text("参数").click()
    page.get_by_label("最多词元数").fill("40")
    page.get_by_text("参数").click()
    page.get_by_role("button", name="运行").tap()
    expect(page.get_by_role("button", name="运行")).to_be_visible(timeout=60_000)
    tokens(page).nth(2).tap()
    expect(page.get_by_role("tooltip")).to_be_visible()
    assert fits(page), "the page scrolls sideways"
    assert unlabelled(page) == []
    tokens(page).nth(2).scroll_into_view_if_needed()
    shot(page, "playground-phone-chinese")
    dark = open_address(f"{real.url}/#/playground", dark=True)
    dark.get_by_label("Model").select_option(MODEL)
    write(dark, "Hello there")
    dark.get_by_label("Most tokens").fill("60")
    run(dark)
    tokens(dark).nth(8).focus()
    shot(dark, "playground-dark")
