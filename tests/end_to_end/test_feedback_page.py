"""What people say about answers, said on the page: reasons, two answers compared, better words, reports, consent."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, Response, expect
from sqlalchemy import select

from chatwheel.feedback.export import Export
from chatwheel.store.tables import ComparisonRow, CorrectionRow, RatingRow, ReportRow
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import ask, last_answer, saved, shot, wait_until_done
from tests.end_to_end.test_training_page import fits
from tests.server.live import LiveServer

Open = Callable[..., Page]
PANEL = "section:has(article)"
NOTE = "no model learns from it"


@pytest.fixture
def open_chat(open_address: OpenAddress, live_server: LiveServer) -> Open:
    """Opens the page, asks, and waits for the answer."""

    def open_it(question: str = "hello", locale: str = "en-US", **how: bool) -> Page:
        page = open_address(live_server.url, locale, **how)
        ask(page, question)
        expect(last_answer(page)).to_have_attribute("aria-busy", "false")
        expect(page.locator("article .actions").last).to_be_visible()
        return page

    return open_it


def more(page: Page, what: str) -> None:
    """Something from the menu of the last answer."""
    page.get_by_role("button", name=re.compile("More for this answer|这个回答的更多操作")).last.click()
    page.get_by_role("button", name=what).click()


def with_words(words: str) -> Callable[[Response], bool]:
    """The answer to a rating with these words in it: the thumb itself is sent too, before them."""

    def matches(response: Response) -> bool:
        return response.url.endswith("/rating") and words in (response.request.post_data or "")

    return matches


def choose_model(page: Page, stage: str) -> None:
    page.locator("header").get_by_role("button", name=re.compile("Chatwheel")).click()
    page.get_by_role("option", name=re.compile(f"^{stage}")).click()


def comparison(server: LiveServer) -> ComparisonRow:
    """The only one."""
    with server.database.read() as session:
        return session.scalars(select(ComparisonRow)).one()


def wait_for_both(page: Page) -> None:
    expect(page.locator(f"{PANEL} article[aria-busy=false]")).to_have_count(2)


def box(article: Locator) -> FloatRect:
    """Where it is."""
    found = article.bounding_box()
    assert found
    return found


def test_a_thumb_is_given_reasons_and_changed(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat(dark=True)
    page.get_by_role("button", name="Bad answer").click()
    expect(page.get_by_text(NOTE)).to_be_visible()
    page.get_by_role("button", name="Made up").click()
    page.get_by_role("button", name="Too long").click()
    page.get_by_role("button", name="Too short").press("Enter")
    page.get_by_role("button", name="Too long").click()  # after all not
    expect(page.get_by_role("button", name="Too short")).to_have_attribute("aria-pressed", "true")
    page.get_by_placeholder("What was wrong with it?").fill("nonsense")
    shot(page, "feedback-reasons-dark")
    assert unlabelled(page) == []
    with page.expect_response(with_words("nonsense")):
        page.keyboard.press("Enter")
    expect(page.locator("article form")).to_have_count(0)
    with live_server.database.read() as session:
        row = session.scalars(select(RatingRow)).one()
        assert (row.value, row.reasons, row.comment) == (-1, ["made_up", "too_short"], "nonsense")

    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Well written")).to_be_visible()
    expect(page.get_by_role("button", name="Made up")).to_have_count(0)
    expect(page.get_by_text(NOTE)).to_have_count(0)  # said once
    page.get_by_role("button", name="Clear", exact=True).click()
    with page.expect_response(with_words("clear")):
        page.locator("article form").get_by_role("button", name="Send").click()
    with live_server.database.read() as session:
        row = session.scalars(select(RatingRow)).one()
        assert (row.value, row.reasons, row.comment) == (1, ["clear"], None)


def test_who_has_agreed_is_not_told_of_consent(open_chat: Open) -> None:
    page = open_chat()
    page.get_by_role("switch", name="Improve the models").click()
    expect(page.get_by_role("switch", name="Improve the models")).to_be_checked()
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Well written")).to_be_visible()
    expect(page.get_by_text(NOTE)).to_have_count(0)


def test_two_answers_are_compared_blind_and_by_keys(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat()
    choose_model(page, "SFT")
    more(page, "Compare with another answer")
    expect(page.get_by_role("heading", name="Which answer is better?")).to_be_visible()
    wait_for_both(page)
    articles = page.locator(f"{PANEL} article")
    row = comparison(live_server)
    texts = {message.id: message.content for message in saved(live_server)}
    assert texts.keys() >= {row.first_id, row.second_id}
    expect(articles.nth(0)).to_contain_text(texts[row.first_id])
    expect(articles.nth(1)).to_contain_text(texts[row.second_id])
    one, other = box(articles.nth(0)), box(articles.nth(1))
    assert one["y"] == other["y"]
    assert one["x"] + one["width"] < other["x"]
    expect(page.locator(".frame")).not_to_contain_text("PPO")
    expect(page.locator(".frame")).not_to_contain_text("SFT")
    assert unlabelled(page) == []
    shot(page, "feedback-compare")

    new = saved(live_server)[-1]
    assert new.model == "quickstart/sft"
    expect(page.locator(PANEL)).to_be_focused()
    page.keyboard.press("1" if row.first_id == new.id else "2")
    expect(last_answer(page)).to_contain_text("sft heard: hello")
    names = ["SFT", "PPO"] if row.first_id == new.id else ["PPO", "SFT"]
    expect(page.get_by_text(f"Answer 1 was by {names[0]}, answer 2 by {names[1]}.")).to_be_visible()
    shot(page, "feedback-told")
    assert comparison(live_server).choice == ("first" if row.first_id == new.id else "second")
    page.reload()
    expect(last_answer(page)).to_contain_text("sft heard: hello")


def test_the_older_answer_stays_if_it_is_better(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat()
    choose_model(page, "SFT")
    more(page, "Compare with another answer")
    wait_for_both(page)
    old = saved(live_server)[1]
    place = 1 if comparison(live_server).first_id == old.id else 2
    page.get_by_role("button", name=f"{place} is better").click()
    expect(page.get_by_text("You found answer")).to_be_visible()
    for come_back in (False, True):
        if come_back:
            page.reload()
        expect(last_answer(page)).to_contain_text("ppo heard: hello")
        expect(page.get_by_text("1 / 2")).to_be_visible()
    ask(page, "and then?")  # goes on from the chosen one
    expect(last_answer(page)).to_contain_text("heard: and then?")
    wait_until_done(page)
    assert saved(live_server)[-2].parent_id == old.id


@pytest.mark.parametrize(("key", "choice"), [("0", "tie"), ("=", "tie"), ("x", "both_bad")])
def test_neither_may_be_better(open_chat: Open, live_server: LiveServer, key: str, choice: str) -> None:
    page = open_chat()
    choose_model(page, "SFT")
    more(page, "Compare with another answer")
    wait_for_both(page)
    page.locator(PANEL).press(key)
    expect(page.get_by_text(re.compile("^You found (them about the same|both bad)"))).to_be_visible()
    expect(last_answer(page)).to_contain_text("ppo heard: hello")
    assert comparison(live_server).choice == choice


def test_keys_choose_nothing_before_both_answers_are_there(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat("count to 40")
    more(page, "Compare with another answer")
    expect(page.locator(f"{PANEL} article[aria-busy=true]")).to_contain_text("1 2")
    page.locator(PANEL).press("1")
    expect(page.get_by_role("button", name="1 is better")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    wait_for_both(page)
    expect(page.locator(PANEL)).to_contain_text("It stopped early.")
    assert comparison(live_server).choice is None
    page.get_by_role("button", name="2 is better").click()
    expect(page.get_by_text("Both were by PPO.")).to_be_visible()


def test_an_open_comparison_waits_on_a_phone_in_chinese(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat("把“苹果”翻译成英文", "zh-CN", phone=True)
    more(page, "与另一个回答比较")
    wait_for_both(page)
    articles = page.locator(f"{PANEL} article")
    one, other = box(articles.nth(0)), box(articles.nth(1))
    assert one["x"] == other["x"]
    assert one["y"] + one["height"] < other["y"]
    assert fits(page)
    shot(page, "feedback-compare-phone-chinese")
    order = [article.inner_text() for article in articles.all()]
    page.reload()
    expect(page.get_by_role("heading", name="哪个回答更好？")).to_be_visible()
    assert [article.inner_text() for article in articles.all()] == order

    page.get_by_role("button", name="以后再说").tap()
    expect(page.locator(PANEL)).to_have_count(0)
    expect(page.locator(".by")).to_have_count(0)  # still blind
    more(page, "与另一个回答比较")  # the same one goes on
    page.get_by_role("button", name="差不多").tap()
    expect(page.get_by_text("你认为两者差不多。")).to_be_visible()
    assert comparison(live_server).choice == "tie"
    assert len(saved(live_server)) == 3
    page.reload()
    expect(page.locator(".actions").last).to_be_visible()
    expect(page.locator(PANEL)).to_have_count(0)


def test_a_second_answer_that_fails_leaves_the_first(browser: Browser, live_server: LiveServer) -> None:
    page = browser.new_page(locale="en-US")
    page.goto(live_server.url)
    ask(page, "hello")
    wait_until_done(page)
    page.route(re.compile("/alternative$"), lambda route: route.abort())
    more(page, "Compare with another answer")
    expect(page.get_by_text("The server cannot be reached")).to_be_visible()
    expect(last_answer(page)).to_contain_text("ppo heard: hello")
    expect(page.locator(PANEL)).to_have_count(0)
    page.context.close()


def test_an_answer_is_improved_and_taken_back(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat("What is the capital of France?")
    said = saved(live_server)[-1].content
    more(page, "Improve this answer")
    area = page.get_by_label("What should it have said?")
    expect(area).to_be_focused()
    expect(area).to_have_value(said)
    height = area.evaluate("area => area.clientHeight")
    assert area.evaluate("area => area.scrollHeight - area.clientHeight") <= 2
    expect(page.get_by_role("button", name="Save")).to_be_disabled()  # nothing was changed
    area.fill("It is **Paris**, on the Seine.\n" * 8)
    assert area.evaluate("area => area.clientHeight") > height
    shot(page, "feedback-improve")
    area.fill("It is *Paris*, <b>on the Seine</b>.")
    assert unlabelled(page) == []
    page.get_by_role("button", name="Save").click()
    expect(last_answer(page).locator("em")).to_have_text("Paris")
    expect(last_answer(page).locator("b")).to_have_count(0)
    expect(page.get_by_text("Your version", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="More for this answer")).to_be_focused()
    shot(page, "feedback-own-version")
    page.get_by_role("button", name="Show the model’s own").click()
    expect(last_answer(page)).to_contain_text("the country's largest city")
    page.get_by_role("button", name="Show yours").click()
    expect(last_answer(page)).not_to_contain_text("largest city")
    page.reload()
    expect(last_answer(page).locator("em")).to_have_text("Paris")
    with live_server.database.read() as session:
        assert session.scalars(select(CorrectionRow)).one().content == "It is *Paris*, <b>on the Seine</b>."
    assert saved(live_server)[-1].content == said

    more(page, "Improve this answer")
    expect(area).to_have_value("It is *Paris*, <b>on the Seine</b>.")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Take back").click()
    expect(page.get_by_text("Your version")).to_have_count(0)
    expect(last_answer(page)).to_contain_text("largest city")
    with live_server.database.read() as session:
        assert session.scalars(select(CorrectionRow)).all() == []


def test_a_report_reaches_an_admin_as_text(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat("<img src=x onerror=alert(1)>")
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    more(page, "Report")
    send = page.get_by_role("dialog").get_by_role("button", name="Report")
    expect(send).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    more(page, "Report")
    page.get_by_label("Harmful").check()
    page.get_by_label("More about it").fill("<script>alert(2)</script> it frightens people")
    assert unlabelled(page) == []
    shot(page, "feedback-report")
    send.click()
    expect(page.get_by_text("Whoever runs this server will look at it.")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.get_by_role("link", name="Console").click()
    page.get_by_role("link", name="Reports").click()
    card = page.get_by_role("listitem").filter(has_text="Harmful")
    expect(card).to_contain_text("<img src=x onerror=alert(1)>")
    expect(card).to_contain_text("<script>alert(2)</script> it frightens people")
    expect(card).to_contain_text("quickstart/ppo")
    assert card.locator("img, script").count() == 0
    assert unlabelled(page) == []
    shot(page, "feedback-reports")
    card.get_by_role("button", name="Mark as handled").click()
    expect(page.get_by_text("No answer waits to be looked at.")).to_be_visible()
    page.get_by_role("button", name="Handled", exact=True).click()
    expect(card).to_contain_text("it frightens people")
    expect(card.get_by_role("button")).to_have_count(0)
    with live_server.database.read() as session:
        assert session.scalars(select(ReportRow)).one().handled_at is not None
    assert dialogs == []


def test_who_may_not_administer_sees_no_reports(open_address: OpenAddress, live_server: LiveServer) -> None:
    from tests.end_to_end.test_console_page import make_key

    key = make_key(live_server, ("conversations", "models", "usage"))
    page = open_address("about:blank")
    page.add_init_script(f"sessionStorage.setItem('chatwheel.key', {key!r})")
    page.goto(f"{live_server.url}/#/console/reports")
    expect(page.get_by_role("link", name="Usage")).to_be_visible()
    expect(page.get_by_role("link", name="Reports")).to_have_count(0)


def test_consent_is_given_and_withdrawn(open_chat: Open, live_server: LiveServer) -> None:
    page = open_chat(phone=True)
    page.get_by_role("button", name="Good answer").tap()
    expect(page.get_by_text(NOTE)).to_be_visible()
    shot(page, "feedback-consent-note-phone")
    page.get_by_role("button", name="Switch it on").tap()
    expect(page.get_by_text(NOTE)).to_have_count(0)
    page.get_by_role("button", name="Helpful").tap()
    with page.expect_response(with_words("helpful")):
        page.locator("article form").get_by_role("button", name="Send").tap()

    def exported() -> int:
        with live_server.database.read() as session:
            return len(list(Export(session, "salt").ratings()))

    assert exported() == 0  # the chat began before they agreed
    page.get_by_role("button", name="Open sidebar").tap()
    page.locator("aside").get_by_role("button", name="New chat").tap()
    ask(page, "hello again")
    expect(last_answer(page)).to_have_attribute("aria-busy", "false")
    with page.expect_response(re.compile("/rating$")):  # the thumb is saved at once; without a reason, Send only closes
        page.get_by_role("button", name="Good answer").tap()
    page.locator("article form").get_by_role("button", name="Send").tap()
    expect(page.locator("article form")).to_have_count(0)
    assert exported() == 1
    page.reload()
    page.get_by_role("button", name="Open sidebar").tap()
    switch = page.get_by_role("switch", name="Improve the models with my chats")
    expect(switch).to_be_checked()
    expect(switch).to_have_accessible_description(re.compile("out of every later export"))
    page.wait_for_timeout(300)
    shot(page, "feedback-consent-phone")
    with page.expect_response(re.compile("/consent$")):
        switch.press("Space")
    expect(switch).not_to_be_checked()
    assert exported() == 0
