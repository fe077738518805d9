"""Every curl that a page prints works as printed, but for the port: with the real curl against a real server."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.run import running_service

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs/api.md"})]  # that has a test of its own
SERVER = re.compile(r"http://(127\.0\.0\.1|localhost):3000")


def commands() -> list[tuple[str, str]]:
    """(page, command): what begins with `curl`, a trailing backslash joining it with the next line."""
    found = []
    for page in PAGES:
        joined = page.read_text().replace("\\\n", " ")
        found += [(page.name, line.strip()) for line in joined.splitlines() if re.match(r"\s*curl .*:3000", line)]
    return found


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    if shutil.which("curl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no curl on the path")
    with running_service(bundle_folder) as url:
        yield url


def test_pages_print_some() -> None:
    assert "README.md" in {page for page, _ in commands()}


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_printed_curl_works(url: str, page: str, command: str) -> None:
    words = shlex.split(SERVER.sub(url, command))
    done = subprocess.run([*words, "--silent", "--show-error", "--fail-with-body"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = words[words.index("-d") + 1] if "-d" in words else "{}"
    if "/recommend" in command:
        answer = json.loads(done.stdout)
        assert len(answer["items"]) == json.loads(asked).get("k", 10)
