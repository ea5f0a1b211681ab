"""Code in colours and formulas in answers: fetched when needed, set without styles, harmless, steady while written."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chatwheel.server.routes.page import STATIC
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.test_chat_page import XSS, assert_harmless, fill
from tests.end_to_end.test_page import ask, last_answer, shot, wait_until_done
from tests.server.live import LiveServer

Open = Callable[..., Page]
MOST_BEFORE_FIRST_PAINT = 250_000

ANSWER = r"""The roots of $ax^2 + bx + c = 0$ are

$$
x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}
$$

and in Chinese 设\(x_1\)为根. It costs $5 and $6, or US$7/$8, in $HOME/$USER.

\[
\begin{aligned} a &= b + c \\ d &= \sum_{i=1}^n i \end{aligned}
\]

```python
def roots(a: float, b: float) -> list[float]:
    # a comment
    return [a / 2, f"{b}"]
```

```nonsense
if x: pass
```

Not TeX: $\nosuchcommand{x}$, and `$y$` is code."""

HOSTILE = (
    *XSS,
    r"$\href{javascript:document.title='xss'}{x}$",
    r"$\url{javascript:document.title='xss'}$",
    r"$\includegraphics{https://example.com/x.png}$",
    r"$\htmlStyle{background:url(https://example.com/x.png)}{x}$",
    r"$\htmlData{x=1}{y}\htmlId{message}{z}$",
    r"$\text{<img src=x onerror=document.title='xss'>}$",
    r"$$\text{</annotation></semantics></math><img src=x onerror=document.title='xss'>}$$",
    r"$x$<math><annotation-xml encoding='text/html'><img src=x onerror=document.title='xss'></annotation-xml></math>",
    "```html\n<img src=x onerror=document.title='xss'><script>document.title='xss'</script>\n```",
    '```"onmouseover=document.title="xss\n<svg/onload=document.title="xss">\n```',
    "```js\n`${'</code></pre><img src=x onerror=document.title=`xss`>'}`\n```",
    r"\def\a{\a\a}$\a$ $\rule{1e9em}{1e9em}$",
    "$" * 300,
    r"\(" * 300,
    "$$\n" * 100,
)


@pytest.fixture
def open_page(open_address: OpenAddress, live_server: LiveServer) -> Open:
    """Opens the page; `asked` has the addresses it fetched."""

    def open_it(locale: str = "en-US", *, path: str = "", dark: bool = False, phone: bool = False) -> Page:
        page = open_address(live_server.url + path, locale, dark=dark, phone=phone)
        expect(page.locator("#message")).to_be_visible()
        return page

    return open_it


def test_little_is_fetched_before_the_first_paint() -> None:
    names = re.findall(r'(?:src|href)="\./([^"]+)"', (STATIC / "index.html").read_text())
    assert any(name.endswith(".js") for name in names)
    assert sum(len(gzip.compress((STATIC / name).read_bytes())) for name in names) < MOST_BEFORE_FIRST_PAINT
    assert not [name for name in names if "typeset" in name or "highlight" in name]


def test_code_and_formulas_are_set_and_money_is_not(open_page: Open, live_server: LiveServer) -> None:
    plain, _ = fill(live_server, "question", "An answer that costs $5 and $6, and `code`.\n\n```\nplain\n```")
    fill(live_server, "roots?", ANSWER)
    page = open_page(path=f"/#/c/{plain}")
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    expect(last_answer(page)).to_contain_text("costs $5 and $6")
    page.get_by_role("link", name="roots?").click()
    answer = last_answer(page)
    expect(answer.locator("math")).to_have_count(4)
    assert sum("typeset" in url for url in fetched) == 1
    assert sum("highlight" in url for url in fetched) == 1
    assert not [url for url in fetched if not url.startswith(live_server.url)]
    expect(answer.locator(".formula math[display=block]")).to_have_count(2)
    expect(answer.locator(".formula mfrac")).to_have_count(1)
    expect(answer).to_contain_text("It costs $5 and $6, or US$7/$8, in $HOME/$USER.")
    expect(answer.locator("code.tex")).to_have_text(r"$\nosuchcommand{x}$")
    expect(answer.locator(".hljs-keyword").first).to_have_text("def")
    expect(answer.locator(".hljs-comment")).to_have_text("# a comment")
    assert answer.locator(".code").nth(1).locator("[class^=hljs]").count() == 0
    assert answer.locator("[style], annotation, semantics").count() == 0
    box = answer.locator(".formula math").first.bounding_box()
    assert box is not None
    assert box["height"] > 30, "a fraction is two lines high"
    shot(page, "rich")
    page.get_by_role("button", name="Dark").click()
    shot(page, "rich-dark")


def test_on_a_phone_in_chinese(open_page: Open, live_server: LiveServer) -> None:
    long = "$$" + "+".join(f"x_{{{n}}}" for n in range(60)) + "$$"
    chat, _ = fill(live_server, "公式？", f"{ANSWER}\n\n{long}")
    page = open_page("zh-CN", path=f"/#/c/{chat}", phone=True)
    expect(last_answer(page).locator("math")).to_have_count(5)
    expect(last_answer(page).locator(".copy-code").first).to_have_text("复制")
    shot(page, "rich-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


def test_hostile_code_and_formulas_stay_harmless(open_page: Open, live_server: LiveServer, tmp_path: Path) -> None:
    turns = [said for text in HOSTILE for said in (f"question {text[:900]}", f"needle\n\n{text}\n\n- {text}")]
    chat, _ = fill(live_server, *turns)
    page = open_page(path=f"/#/c/{chat}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.locator("article[aria-busy]")).to_have_count(len(HOSTILE))
    expect(page.locator("math").first).to_be_attached()
    expect(page.locator(".hljs-string, .hljs-tag").first).to_be_attached()
    bad = ":is([href*='javascript:'], [src], [style], [id], annotation-xml)"
    assert_harmless(page)
    assert page.locator(f".prose {bad}").count() == 0
    # The same in a file: titles, names of models, languages of code.
    saved: dict[str, Any] = page.evaluate(f"fetch('api/conversations/{chat}/export').then((one) => one.json())")
    every = [
        saved | {"title": f"imported {text}"[:200], "model": text[:900], "messages": [
            one | {"content": f"needle {text}", "model": text[:900]} for one in saved["messages"][:2]
        ]}
        for text in HOSTILE
    ]  # fmt: skip
    file = tmp_path / f"{XSS[1][:20].replace('/', '_')}.json"
    file.write_text(json.dumps(every))
    page.get_by_role("button", name="Import chats").click()
    dialog = page.get_by_role("dialog", name="Import chats")
    dialog.locator("input").set_input_files(file)
    expect(dialog.get_by_role("status")).to_have_text(f"{len(HOSTILE)} imported.")
    dialog.get_by_role("button", name="Close").click()
    for place in range(0, len(HOSTILE), 5):
        page.locator("aside li a").filter(has_text="imported").nth(place).click()
        expect(page.locator("article[aria-busy]")).to_have_count(1)
        expect(last_answer(page)).to_contain_text("needle")
        assert_harmless(page)
    page.keyboard.press("Control+K")
    page.get_by_role("combobox").fill("needle")
    expect(page.get_by_role("option").first).to_be_visible()
    assert_harmless(page)
    assert not [url for url in asked if "example.com" in url]


WATCH = """
() => {
  const seen = (window.seen = {lost: [], most: {}, frames: 0, half: false})
  const look = () => {
    const prose = document.querySelector('.prose')
    if (prose) {
      seen.frames += 1
      seen.half ||= prose.querySelector('.formula code.tex') !== null
      if (prose.children.length > 1) seen.first ??= prose.firstElementChild
      if (seen.first && !seen.first.isConnected) seen.lost.push('the first paragraph was made again')
      for (const what of ['math', '.formula', '.code', '.hljs-keyword']) {
        const count = prose.querySelectorAll(what).length
        if (count < (seen.most[what] ?? 0)) seen.lost.push(`${what}: ${count} after ${seen.most[what]}`)
        seen.most[what] = Math.max(count, seen.most[what] ?? 0)
      }
    }
    requestAnimationFrame(look)
  }
  look()
}
"""


def test_what_is_half_written_does_not_flicker(open_page: Open, live_server: LiveServer) -> None:
    """Of an answer that comes word by word no block is made twice, and nothing that was set is ever taken back."""
    # Fetched before, so that no block changes for that.
    warm, _ = fill(live_server, "warm", "$x$\n\n```python\ndef f(): pass\n```")
    page = open_page(path=f"/#/c/{warm}")
    expect(last_answer(page).locator("math")).to_have_count(1)
    page.get_by_role("button", name="New chat").first.click()
    page.evaluate(WATCH)
    ask(page, f"words first.\n\n{ANSWER}")
    wait_until_done(page)
    expect(last_answer(page).locator("math")).to_have_count(4)
    seen = page.evaluate("({lost: seen.lost, most: seen.most, frames: seen.frames, half: seen.half})")
    assert seen["lost"] == []
    assert seen["most"] == {"math": 4, ".formula": 2, ".code": 2, ".hljs-keyword": 2}
    assert seen["frames"] > 20
    assert seen["half"], "a formula whose end is missing is shown as its source, in its place"
