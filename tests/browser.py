"""Pages in a real Chromium: the fixture `browser_page`, which also notes what a page must not do.

A test module takes it with `from browser import browser_page, chromium`; `browser_page.troubles` is to be empty at the end.
"""

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
OWN = ("file:///", "data:", "blob:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:")


@dataclass
class Watched:
    """A page and what it did wrong: console errors, uncaught errors, requests to other machines."""

    page: "Page"
    console_errors: list[str] = field(default_factory=list)
    page_errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    @property
    def troubles(self) -> list[str]:
        return [*self.console_errors, *self.page_errors, *self.outside, *self.dialogs]


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """Chromium, running; skips without it or playwright, and fails where CI must have them.

    Of one module, since playwright keeps an event loop in this thread for as long, in which no other test could start one.
    """
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        _absent(f"no Chromium on the path ({', '.join(NAMES)}): install the package chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _absent("playwright is not installed: pip install 'recsys[verify]'")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def browser_page(chromium: "Browser") -> Iterator[Watched]:
    """A fresh page of 1280 x 900, with a profile of its own."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    watched = Watched(page)
    page.on("console", lambda said: watched.console_errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: watched.page_errors.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(OWN) else watched.outside.append(request.url))
    page.on("dialog", lambda dialog: (watched.dialogs.append(dialog.message), dialog.dismiss()))
    yield watched
    context.close()


def colours(png: bytes) -> int:
    """How many different colours a screenshot has; an empty page has one."""
    from matplotlib.image import imread

    pixel_XC = (imread(io.BytesIO(png), format="png")[..., :3] * 255).astype(np.uint32).reshape(-1, 3)
    return len(np.unique(pixel_XC @ np.array([1 << 16, 1 << 8, 1], np.uint32)))


def _absent(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
