"""The page at / of a server that wants an API key: it asks for one, keeps it for the tab, and says what a key may not do."""

from pathlib import Path

from browser import Watched, browser_page, chromium  # noqa: F401
from page_server import page_server

from serving.api.keys import add_key

LIST = "#panel-list tbody tr"


def test_a_key_is_asked_for_and_kept_in_the_tab_only(browser_page: Watched, bundle_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    reads, writes = (add_key(tmp_path / "live", name, scopes) for name, scopes in (("r", ["read"]), ("w", ["read", "write"])))
    page = browser_page.page
    key = page.get_by_label("API key")
    alert = page.get_by_role("alert")
    with page_server(tmp_path, bundle_folder, keys=True) as url:
        page.goto(f"{url}/#user=user-2")
        key.wait_for()
        assert "an API key is needed" in alert.inner_text().replace("An", "an")
        assert page.locator(LIST).count() == 0

        key.fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        page.wait_for_function("document.querySelector('#error').textContent.includes('not valid')")

        key.fill(reads)
        key.press("Enter")
        page.wait_for_selector(f"{LIST}:nth-child(10)")
        page.wait_for_selector("#health:has-text('up')")
        assert not key.is_visible()
        assert not alert.is_visible()
        page.locator(LIST).first.get_by_role("button", name="like").click()
        alert.wait_for()
        assert "scope read" in alert.inner_text()
        assert page.locator(".badge.live").count() == 0

        key.fill(writes)
        key.press("Enter")
        page.wait_for_selector("#error", state="hidden")
        clicked = page.locator(LIST).first.get_attribute("data-item")
        page.locator(LIST).first.get_by_role("button", name="like").click()
        page.wait_for_selector(".after")
        assert page.locator("#history li.live").get_attribute("data-item") == clicked
        kept = [page.evaluate(f"JSON.stringify({where}Storage)") for where in ("session", "local")]
        assert writes in kept[0]
        assert not any(token in kept[1] + page.url + page.content() for token in (reads, writes))
        page.reload()
        page.wait_for_selector(f"{LIST}:nth-child(10)")
    assert all("status of 401" in text or "status of 403" in text for text in browser_page.troubles)
