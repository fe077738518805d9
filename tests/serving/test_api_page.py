"""The page's files as they are served: those of the folder, no others, under a policy that lets nothing else in."""

import base64
import hashlib
from pathlib import Path

import pytest

from serving.api.page import Page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<script>let a = 1;</script><style>p {}</style><script src='/page/a.js'></script>")
    (page / "a.js").write_text("export {};")
    (page / "icon.svg").write_text("<svg/>")
    (page / "notes.md").write_text("not of the page")
    (tmp_path / "secret.js").write_text("not of the page either")
    return page


def test_only_assets_of_the_folder_are_there(folder: Path) -> None:
    assert sorted(Page(folder).paths) == ["/", "/page/a.js", "/page/icon.svg"]


def test_inline_blocks_are_let_in_by_hash(folder: Path) -> None:
    policy = dict(Page(folder).get("/", {}).headers)[b"content-security-policy"].decode()
    digest = base64.b64encode(hashlib.sha256(b"let a = 1;").digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_types_are_told(folder: Path) -> None:
    types = {path: dict(Page(folder).get(path, {}).headers)[b"content-type"].decode() for path in Page(folder).paths}
    assert types == {
        "/": "text/html; charset=utf-8",
        "/page/a.js": "text/javascript; charset=utf-8",
        "/page/icon.svg": "image/svg+xml",
    }


def test_no_page_is_no_route(tmp_path: Path) -> None:
    assert Page(tmp_path).paths == []
