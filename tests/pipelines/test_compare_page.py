"""The page of a comparison in a real browser: it draws, sorts, chooses, reaches nobody, and names what runs lack."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Watched, browser_page, chromium, colours  # noqa: F401
from compare_store import Made, filled

from pipelines.comparison.comparison import Comparison, Consensus
from pipelines.comparison.details import Details, details
from pipelines.comparison.page import compare_page, write_page

SCRIPT = "<script>alert(1)</script>"
LINK = '<a href="javascript:alert(2)">x</a>&amp;'
OTHER = "random split, seen items kept, ties by position [9f3e11aa]"
TABS = ("Metric against cost", "Differences", "Learning curves", "Slices", "Reliability", "Users won and lost", "Every metric")
BARE = frozenset({"curves", "cost", "users", "reliability", "slices", "latency"})
MADE = (
    Made("base"),
    Made("better", 0.1),
    Made("worse", -0.1),
    Made("old", 0.02, without=frozenset({"children", "latency"})),
    Made("bare", 0.03, without=BARE),
    Made(SCRIPT, 0.05),
    Made(LINK, 0.06),
    Made("better", 0.04),
    Made("elsewhere", 0.2, protocol=OTHER),
    Made("elsewhere 2", 0.25, protocol=OTHER),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Comparison]:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    return uri, filled(uri, folder, MADE)


@pytest.fixture(scope="module")
def found(store: tuple[str, Comparison]) -> Details:
    return details(store[1], store[0])


@pytest.fixture(scope="module")
def written(store: tuple[str, Comparison], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "below" / "compare.html"
    write_page(store[1], path, uri=store[0])
    return path


@pytest.fixture
def opened(browser_page: Watched, written: Path) -> Iterator[Watched]:  # noqa: F811
    browser_page.page.goto(written.as_uri())
    browser_page.page.wait_for_selector(".main-svg")
    yield browser_page
    assert browser_page.troubles == []


def _names(watched: Watched, group: int = 0) -> list[str]:
    return watched.page.locator(f"[data-group='{group}'] tbody th label").all_inner_texts()


def _choose(watched: Watched, title: str, value: str) -> None:
    watched.page.locator(f"[role=tabpanel]:visible select[data-choice={title}]").select_option(value)


def _traces(watched: Watched, panel: int, key: str) -> list[object]:
    return json.loads(
        watched.page.evaluate(f"JSON.stringify(document.querySelector('#panel{panel} .plot').data.map(t => t.{key}))")
    )


def test_a_page_draws_every_plot(opened: Watched) -> None:
    page = opened.page
    assert page.locator("[role=tab]").all_inner_texts() == list(TABS)
    for number, title in enumerate(TABS):
        page.get_by_role("tab", name=title).click()
        assert page.locator("[role=tabpanel]:visible").count() == 1
        panel = page.locator(f"#panel{number}")
        if title != "Every metric":
            box = panel.locator(".main-svg").first.bounding_box()
            assert box is not None
            assert box["width"] > 600
            assert box["height"] > 200
            assert panel.locator(".plot").get_attribute("aria-label")
        page.wait_for_timeout(100)
        assert colours(panel.screenshot()) > 40, title
    assert colours(page.screenshot(full_page=True)) > 100


def test_tabs_answer_to_keys(opened: Watched) -> None:
    opened.page.locator("#tab0").focus()
    opened.page.keyboard.press("ArrowLeft")
    assert opened.page.locator("[aria-selected=true]").inner_text() == TABS[-1]
    opened.page.keyboard.press("Home")
    assert opened.page.locator("#panel0").is_visible()
    assert opened.page.evaluate("document.activeElement.id") == "tab0"


def test_a_click_on_a_heading_sorts(opened: Watched, store: tuple[str, Comparison]) -> None:
    heading = opened.page.locator("[data-group='0'] thead button").get_by_text("training", exact=True)
    places = [place for place in store[1].groups[0].places if "cost" not in MADE[place].without]
    by_cost = sorted(places, key=lambda place: store[1].runs[place].metrics["cost/train_s"])
    rows = opened.page.locator("[data-group='0'] tbody tr")
    before = _names(opened)
    heading.click()
    assert [int(row.get_attribute("data-run") or -1) for row in rows.all()] == [*reversed(by_cost), 4]
    heading.click()
    assert [int(row.get_attribute("data-run") or -1) for row in rows.all()] == [*by_cost, 4]  # what is absent stays last
    assert opened.page.locator("th[aria-sort=ascending]").count() == 1
    opened.page.locator("[data-group='0'] thead button").get_by_text("NDCG@10", exact=True).click()
    assert _names(opened) == before  # at first, the best by the main metric is on top


def test_a_choice_changes_the_plot(opened: Watched) -> None:
    before = _traces(opened, 0, "y")
    _choose(opened, "metric", "test/HR@10")
    assert _traces(opened, 0, "y") != before
    before = _traces(opened, 0, "x")
    _choose(opened, "cost", "export/latency_p99_ms")
    assert _traces(opened, 0, "x") != before
    assert opened.page.locator("#panel0 .xtitle").text_content() == "latency, p99 (ms)"
    opened.page.click("#tab2")
    before = _traces(opened, 2, "y")
    _choose(opened, "curve", "ranker/loss")
    assert _traces(opened, 2, "y") != before


def test_ticks_say_what_is_drawn(opened: Watched) -> None:
    opened.page.click("#tab2")
    assert len(_traces(opened, 2, "name")) == 7  # all of the group but the run without curves
    opened.page.get_by_role("button", name="none", exact=True).click()
    assert "no run of this group is ticked" in opened.page.locator("#panel2 figcaption").inner_text()
    opened.page.locator("tr[data-run='2'] input").check()
    assert _traces(opened, 2, "name") == ["worse"]
    opened.page.fill("#find", "els")
    assert opened.page.locator("tbody tr[data-run]:visible").count() == 2


def test_groups_are_not_mixed(opened: Watched) -> None:
    assert _names(opened, 1) == ["elsewhere 2", "elsewhere"]
    assert opened.page.locator("[data-group='1'] h3").inner_text() == f"B{OTHER}"
    opened.page.click("#tab3")
    caption = opened.page.locator("#panel3 figcaption")
    assert caption.inner_text().startswith("Group A. ")
    assert not {"elsewhere", "elsewhere 2"} & set(map(str, _traces(opened, 3, "name")))
    opened.page.locator("#groups select").select_option("1")
    assert caption.inner_text().startswith("Group B. ")
    assert _traces(opened, 3, "name") == ["elsewhere", "elsewhere 2"]


def test_runs_that_lack_something_are_named(opened: Watched) -> None:
    for number in (1, 2, 3, 4, 5):
        opened.page.click(f"#tab{number}")
        assert "Not stored by: bare." in opened.page.locator(f"#panel{number} figcaption").inner_text()
    assert "no reliability bins" in opened.page.locator("#absent tr", has_text="bare").inner_text()
    assert "Every run has stored everything" not in opened.page.locator("#absent").inner_text()


def test_names_are_text_and_stay_apart(opened: Watched, store: tuple[str, Comparison]) -> None:
    names = _names(opened)
    assert SCRIPT in names
    assert LINK in names
    twins = [run.id[:8] for run in store[1].runs if run.name == "better"]
    assert {f"better ({each})" for each in twins} < set(names)
    opened.page.click("#tab2")
    legend = [text.strip() for text in opened.page.locator("#panel2 .legendtext").all_text_contents()]
    assert SCRIPT in legend
    assert any(each.startswith('<a href="javascript') for each in legend)
    assert opened.page.locator("a[href^=javascript]").count() == 0
    assert opened.page.locator(".warnings li").inner_text() == store[1].warnings[0]


def test_the_policy_stops_a_script_that_slipped_in(browser_page: Watched, written: Path, tmp_path: Path) -> None:  # noqa: F811
    tampered = tmp_path / "tampered.html"
    evil = '<script>document.title="reached"</script><img src="https://example.org/x.png"></main>'
    tampered.write_text(written.read_text("utf-8").replace("</main>", evil), "utf-8")
    browser_page.page.goto(tampered.as_uri())
    browser_page.page.wait_for_selector(".main-svg")
    assert browser_page.page.title() != "reached"
    assert len([said for said in browser_page.console_errors if "Content Security Policy" in said]) == 2


def test_narrow_and_dark(browser_page: Watched, written: Path) -> None:  # noqa: F811
    page = browser_page.page
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.goto(written.as_uri())
    page.wait_for_selector(".main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 29)"
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("#panel0 .plot[data-drawn='2']")  # drawn again, in the other colours
    assert page.evaluate("document.querySelector('.plot').layout.font.color") == "#1d2329"
    assert browser_page.troubles == []


def test_links_lead_to_a_server_and_carry_no_password(store: tuple[str, Comparison], found: Details) -> None:
    page = compare_page(store[1], found, uri="https://me:secret@mlflow.example.org:8443/base/")
    assert "secret" not in page
    assert f'href="https://mlflow.example.org:8443/base/#/runs/{store[1].runs[0].id}"' in page
    assert "in MLflow" not in compare_page(store[1], found, uri=store[0])


def test_a_consensus_is_shown(store: tuple[str, Comparison], found: Details) -> None:
    consensus = Consensus(("click", "like"), ("better", SCRIPT), {"better": 1.5, SCRIPT: 0.0}, {"better": 0.5})
    page = compare_page(Comparison(**{**vars(store[1]), "consensus": consensus}), found, uri=store[0])
    assert re.search(r"Over click, like.*better</th><td>1\.5</td><td>0\.5000.*&lt;script&gt;.*<td>0</td><td>-", page, re.DOTALL)


def test_a_page_is_written_whole_or_not_at_all(store: tuple[str, Comparison], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.mkdir()  # nothing can be renamed to a folder
    with pytest.raises(OSError, match=r"page\.html"):
        write_page(store[1], path, uri=store[0])
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_runs_that_have_nothing_make_a_page(browser_page: Watched, tmp_path: Path) -> None:  # noqa: F811
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    nothing = BARE | {"children"}
    comparison = filled(uri, tmp_path, (Made("one", without=nothing), Made("two", without=nothing)))
    write_page(comparison, tmp_path / "page.html", uri=uri)
    browser_page.page.goto((tmp_path / "page.html").as_uri())
    for number in range(1, 6):
        browser_page.page.click(f"#tab{number}")
        assert "Nothing to draw" in browser_page.page.locator(f"#panel{number} figcaption").inner_text()
    assert browser_page.troubles == []


@pytest.mark.slow
def test_a_page_of_200_runs_takes_seconds(browser_page: Watched, tmp_path: Path) -> None:  # noqa: F811
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    made = tuple(Made(f"run {number}", number % 60 / 1000) for number in range(200))
    comparison = filled(uri, tmp_path, made, users=6040, steps=300)
    began = time.process_time()
    write_page(comparison, tmp_path / "page.html", uri=uri)
    assert time.process_time() - began < 5
    began = time.perf_counter()
    browser_page.page.goto((tmp_path / "page.html").as_uri())
    browser_page.page.wait_for_selector(".main-svg")
    assert time.perf_counter() - began < 10
    browser_page.page.get_by_role("button", name="all", exact=True).click()
    browser_page.page.click("#tab2")
    assert len(_traces(browser_page, 2, "name")) == 200
    assert browser_page.troubles == []
