"""What looks for names finds what has none."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.end_to_end.labels import unlabelled


@pytest.mark.parametrize(
    ("html", "wrong"),
    [
        ("<button></button>", 1),
        ("<button>Go</button><button aria-label='Stop'><svg></svg></button>", 0),
        ("<input>", 1),
        ("<label>Name <input></label><label for='a'>Age</label><input id='a'>", 0),
        ("<textarea>text is no name</textarea>", 1),
        ("<select><option>nor is a choice</option></select>", 1),
        ("<p id='a'></p><p id='a'></p>", 1),
        ("<div role='slider' aria-labelledby='gone'></div>", 2),
    ],
)
def test_what_has_no_name_is_found(html: str, wrong: int, browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(html)
    assert len(unlabelled(page)) == wrong
    page.close()
