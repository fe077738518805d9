"""The page at / in a real browser, by clicks, against a real server: it shows what the API says, and does what it offers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, browser_page, chromium  # noqa: F401
from page_server import HOSTILE, IMAGE, ask, hostile_bundle, page_server
from tiny_bundle import build_bundle, item_text, timeline_of

LIST = "#panel-list tbody tr"
# What makes a page of 360 pixels scroll sideways; tables may, in a box of their own.
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
  .filter(each => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".scroll"))
  .map(each => each.outerHTML.slice(0, 80))"""
READY = "#grid[aria-busy=false]"


@pytest.fixture(scope="module")
def url(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two versions: the previous one has no ranker, so that it orders by the retriever's scores."""
    folder = tmp_path_factory.mktemp("page")
    with page_server(folder, bundle_folder, build_bundle(folder / "previous", tasks=())) as url:
        yield url


@pytest.fixture
def opened(browser_page: Watched, url: str) -> Iterator[Watched]:  # noqa: F811
    browser_page.page.goto(url)
    browser_page.page.wait_for_selector("text=Whose list?")
    yield browser_page
    assert browser_page.troubles == []


def recommend(watched: Watched, user: str) -> None:
    watched.page.get_by_label("User id").fill(user)
    watched.page.get_by_role("button", name="Recommend").click()
    watched.page.wait_for_selector(READY)


def ids(watched: Watched, rows: str = LIST) -> list[str]:
    return watched.page.locator(rows).evaluate_all("rows => rows.map(row => row.dataset.item)")


def asked_ids(url: str, **query: Any) -> list[str]:
    return [item["item_id"] for item in ask(url, **query)["items"]]


def wait_for_list(watched: Watched, expected: list[str]) -> None:
    watched.page.wait_for_function(
        "([rows, want]) => JSON.stringify([...document.querySelectorAll(rows)].map(row => row.dataset.item)) == want",
        arg=[LIST, watched.page.evaluate("JSON.stringify", expected)],
    )


def seen(item: dict[str, Any]) -> str:
    """What stands for an item; a blank title could not be clicked."""
    return next((text for text in (item["title"], item["item_id"]) if text.strip("\0 \t\n")), json.dumps(item["item_id"]))


def test_a_user_gets_exactly_the_lists_of_the_api(opened: Watched, url: str) -> None:
    recommend(opened, "user-6")
    answer = ask(url, user_id="user-6", explain=True)
    page, items, candidates = opened.page, answer["items"], answer["explanation"]["candidates"]
    shown = [row.split("\t") for row in page.locator(LIST).evaluate_all("rows => rows.map(row => row.innerText)")]
    assert ids(opened) == [item["item_id"] for item in items]
    assert page.locator(f"{LIST} .title").all_inner_texts() == [item["title"] for item in items]
    figures = [[f"{item['score']:.3f}", *(f"{100 * chance:.1f} %" for chance in item["tasks"].values())] for item in items]
    assert [[text.strip() for text in row[2:]] for row in shown] == figures
    assert ids(opened, "#history .entries li") == [item_text(item) for item in reversed(timeline_of(8))]
    assert page.locator(".summary").inner_text().startswith(f"10 items by tiny {answer['version'][:8]}")
    assert page.locator(".stages li").first.inner_text().startswith("state ")

    page.get_by_role("tab", name="Candidates").click()
    rows = "#panel-candidates tbody tr"
    assert ids(opened, rows) == [item["item_id"] for item in candidates]
    assert page.locator(f"{rows}.inlist").count() == 10
    page.get_by_role("button", name="Retrieval score").click()
    by_score = sorted(candidates, key=lambda item: item["retrieval_score"], reverse=True)
    assert ids(opened, rows) == [item["item_id"] for item in by_score]


def test_a_posted_event_changes_the_list(opened: Watched, url: str) -> None:
    recommend(opened, "user-3")
    before = ids(opened)
    opened.page.locator(LIST).nth(2).get_by_role("button", name="like").click()
    opened.page.wait_for_selector(".after")
    answer = ask(url, user_id="user-3", explain=True)
    last = answer["explanation"]["history"][-1]
    assert (last["item_id"], last["live"]) == (before[2], True)
    assert before[2] not in ids(opened)
    assert ids(opened) == [item["item_id"] for item in answer["items"]]
    newest = opened.page.locator("#history .entries li").first
    assert newest.get_attribute("data-item") == before[2]
    assert "live" in newest.inner_text()
    assert opened.page.locator("#history .badge.live").count() == 1
    new = [item for item in ids(opened) if item not in before]
    assert new
    assert ids(opened, f"{LIST}.new") == new
    assert f"{len(new)} new, {len(new)} gone" in opened.page.locator(".after").inner_text()


def test_a_list_of_items_stands_in_for_a_user(opened: Watched, url: str) -> None:
    page = opened.page
    page.get_by_text("Items", exact=True).click()
    page.get_by_label("Item ids, oldest first").fill("item-3, item-9")
    page.get_by_role("button", name="Recommend").click()
    wait_for_list(opened, asked_ids(url, history=["item-3", "item-9"]))
    assert page.locator("#forget-open").count() == 0
    added = ids(opened)[0]
    page.locator(LIST).first.get_by_role("button", name="add to history").click()
    wait_for_list(opened, asked_ids(url, history=["item-3", "item-9", added]))
    assert ids(opened, "#history .entries li") == [added, "item-9", "item-3"]


def test_filters_hold_and_the_address_can_be_shared(opened: Watched, url: str) -> None:
    recommend(opened, "user-5")
    page, first = opened.page, ids(opened)
    page.get_by_role("button", name="Filters and context").click()
    page.get_by_label("Never these items").fill(f"{first[0]}, {first[1]}")
    page.get_by_label("leave out what the user has seen").uncheck()
    page.get_by_label("k", exact=True).fill("7")
    page.get_by_role("button", name="Recommend").click()
    expected = asked_ids(url, user_id="user-5", k=7, exclude=first[:2], filter_seen=False)
    wait_for_list(opened, expected)
    assert not set(first[:2]) & set(expected)
    address = page.url
    assert "user-5" not in address.split("#")[0]  # what browsers send, and servers log
    page.go_back()
    wait_for_list(opened, first)
    page.goto("about:blank")
    page.goto(address)
    wait_for_list(opened, expected)
    assert page.get_by_label("User id").input_value() == "user-5"
    assert page.locator("#recent option").evaluate_all("options => options.map(each => each.value)") == ["user-5"]


def test_two_versions_side_by_side(opened: Watched, url: str) -> None:
    recommend(opened, "user-7")
    page = opened.page
    page.get_by_role("tab", name="Compare versions").click()
    page.wait_for_selector(".pair")
    live, previous = (page.locator(f"select[data-side={side}]").input_value() for side in ("left", "right"))
    assert live != previous
    left, right = (asked_ids(url, user_id="user-7", version=version) for version in (live, previous))
    assert ids(opened, "[data-side=left] li") == left
    assert ids(opened, "[data-side=right] li") == right
    both = set(left) & set(right)
    shift = {item: left.index(item) - right.index(item) for item in both}
    figures = dict(
        zip(page.locator(".figures dt").all_inner_texts(), page.locator(".figures dd").all_inner_texts(), strict=True)
    )
    assert 0 < len(both) < 10
    assert figures == {
        "overlap@10": f"{len(both) / 10:.2f}",
        "mean shift": f"{sum(map(abs, shift.values())) / len(both):.2f}",
        "moved up": str(sum(by > 0 for by in shift.values())),
        "moved down": str(sum(by < 0 for by in shift.values())),
        "new": str(10 - len(both)),
        "gone": str(10 - len(both)),
    }
    assert ids(opened, "[data-side=right] li.new") == [item for item in right if item not in both]
    assert ids(opened, "[data-side=left] li.gone") == [item for item in left if item not in both]
    page.locator("select[data-side=right]").select_option(live)
    page.wait_for_selector("text=Both sides are the same version")
    assert ids(opened, "[data-side=right] li") == left


def test_an_item_says_why_and_what_is_like_it(opened: Watched, url: str) -> None:
    recommend(opened, "user-8")
    page, items = opened.page, ids(opened)
    page.locator(f"{LIST} .title").nth(1).click()
    page.wait_for_selector("#item .similar ol")
    assert "Stands at place 2 of the list." in page.locator("#item .why").inner_text()
    similar = ask(url, "/similar", item_id=items[1], k=6)["items"]
    assert ids(opened, "#item .similar li") == [item["item_id"] for item in similar]
    page.locator("#item .similar .title").first.click()
    page.wait_for_function("want => document.querySelector('#item .id').textContent == want", arg=similar[0]["item_id"])
    page.get_by_role("button", name="Close the panel").click()
    assert not page.locator("#item").is_visible()


def test_a_user_is_forgotten_after_a_second_question(opened: Watched, url: str) -> None:
    recommend(opened, "user-9")
    page, before = opened.page, ids(opened)
    page.get_by_role("button", name="Forget this user").click()
    page.get_by_role("button", name="Keep").click()
    assert asked_ids(url, user_id="user-9") == before
    page.get_by_role("button", name="Forget this user").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget", exact=True).click()
    page.wait_for_selector("text=user-9 is forgotten")
    assert ask(url, user_id="user-9", explain=True)["explanation"]["history"] == []
    assert page.locator("#history .entries li").count() == 0
    assert page.locator(".notices li").count() > 0
    assert page.locator("#recent option").count() == 0


def test_the_keyboard_is_enough(opened: Watched, url: str) -> None:
    page = opened.page
    press = page.keyboard.press

    def tab_to(wanted: str) -> None:
        for _ in range(80):
            press("Tab")
            if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
                return
        raise AssertionError(f"Tab does not reach {wanted}")

    tab_to("[name=user]")
    page.keyboard.type("user-10")
    press("Enter")
    wait_for_list(opened, asked_ids(url, user_id="user-10"))
    tab_to("#tab-list")
    press("ArrowRight")
    assert page.locator("#panel-candidates").is_visible()
    press("ArrowLeft")
    tab_to(f"{LIST} .title")
    press("Enter")
    assert page.locator("#item").is_visible()
    press("Escape")
    assert not page.locator("#item").is_visible()
    assert page.evaluate("document.activeElement.className") == "title"
    clicked = ids(opened)[0]
    tab_to(f"{LIST} [data-event=purchase]")
    press("Enter")
    page.wait_for_selector(".after")
    assert ask(url, user_id="user-10", explain=True)["explanation"]["history"][-1]["item_id"] == clicked


def test_a_refusal_is_a_sentence(browser_page: Watched, url: str) -> None:  # noqa: F811
    browser_page.page.goto(f"{url}/#user=user-1&k=10000")
    alert = browser_page.page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("K is 10000: ask for 1 to ")
    browser_page.page.get_by_label("k", exact=True).fill("3")
    browser_page.page.get_by_role("button", name="Recommend").click()
    browser_page.page.wait_for_selector(LIST)
    assert not alert.is_visible()
    assert all("status of 400" in text for text in browser_page.troubles)


def test_hostile_texts_stay_text_and_a_stopped_server_gets_a_sentence(browser_page: Watched, tmp_path: Path) -> None:  # noqa: F811
    page = browser_page.page
    with page_server(tmp_path, hostile_bundle(tmp_path)) as url:
        page.set_viewport_size({"width": 360, "height": 740})
        page.goto(url)
        recommend(browser_page, IMAGE + "/../x?y#z%")
        assert page.locator(LIST).count() == 10
        page.goto(f"{url}/#user=user-11&k=20")
        page.wait_for_selector(f"{LIST}:nth-child(20)")
        answer = ask(url, user_id="user-11", k=20)
        assert ids(browser_page) == [item["item_id"] for item in answer["items"]]
        titles = page.locator(f"{LIST} .title").evaluate_all("all => all.map(each => each.textContent)")
        assert titles == [seen(item) for item in answer["items"]]
        had = page.locator("#history .title").evaluate_all("all => all.map(each => each.textContent)")
        assert {text for text in HOSTILE if text.strip("\0 \t\n")} <= {*titles, *had}
        for row in range(12):
            page.locator(f"{LIST} .title").nth(row).click()
            page.wait_for_selector("#item .similar ol")
        for tab, sign in (("List", LIST), ("Candidates", "#panel-candidates tr"), ("Compare versions", ".pair")):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_selector(sign)
            assert page.evaluate(TOO_WIDE) == []
        assert page.locator("#grid script, #grid img, #grid a, header a").count() == 0
        page.get_by_role("tab", name="List").click()
        clicked = ids(browser_page)[4]
        page.locator(LIST).nth(4).get_by_role("button", name="click").click()
        page.wait_for_selector(".after")
        assert ask(url, user_id="user-11", explain=True)["explanation"]["history"][-1]["item_id"] == clicked
        assert browser_page.troubles == []
    page.get_by_role("button", name="Recommend").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "The server does not answer: check that it runs, and ask again."
    assert all("net::ERR" in text for text in browser_page.troubles)
