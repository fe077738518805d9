"""The page holds the report's numbers, loads nothing, and shows text as text."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from dataset_files import write_dataset_files

from pipelines.charts import HEIGHT, bars, line
from pipelines.quality_page import quality_page
from recsys.data.drift import drift
from recsys.data.quality import quality

DAY = 24 * 3600 * 1000
VOID = {"meta", "rect", "polygon", "polyline", "path"}


class Balanced(HTMLParser):
    """Collects tags, and fails where one is closed that is not open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    events = [("a", "x", 20_000 * DAY, 0), ("a", "y", 20_001 * DAY, 1), ("b", "<b>&", 20_500 * DAY, 2)]
    facts = {"rows_read": 2000, "rows_quarantined": 13, "quarantined_by_rule": {"user_id_empty": 12, "unreadable": 1},
             "rows_dropped_by_min_counts": 1984, "rows_kept": 3}  # fmt: skip
    folder = write_dataset_files(tmp_path / "d", [events], titles={"x": "<script>alert(1)</script>"}, report=facts)
    return quality(folder)


def test_the_page_is_one_file_and_says_the_numbers(report: dict[str, Any]) -> None:
    page = quality_page(report, drift(report, report | {"users": 4}))
    parsed = Balanced(page)
    assert parsed.open == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(parsed.seen)
    assert not re.search(r"https?://|@import|url\(|\son\w+=", page)
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;&amp;" in page
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "user_id_empty user id is empty 12 0.6%" in text
    assert "min counts dropped by a filter 1,984 99.2%" in text
    assert "2024-10-04 00:00 to 2026-02-16 00:00 UTC" in text
    assert "events per week" in text  # of a series longer than a year
    assert "users shifted relative 0.500 2 4" in text
    assert "prefers-color-scheme: dark" in page


def test_parts_that_a_report_lacks(report: dict[str, Any]) -> None:
    page = quality_page(report | {"time": None})
    assert "events per hour" not in page
    assert "Changes since" not in page
    assert Balanced(page).open == []


def test_bars_are_in_proportion() -> None:
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([0-9.]+)"', bars([1, 4, 0], ["a", "b", "c"]))]
    assert heights == pytest.approx([HEIGHT / 4, HEIGHT, 0])
    assert bars([], []).count("<rect") == 0


def test_a_line_of_one_value_and_of_none() -> None:
    assert "2024" in line([3], "2024", "2024")
    assert "<svg" in line([], "", "")
