"""docs/api.md: its commands work as printed, and it names every route, status and limit."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_bundle import build_bundle

from serving.api.examples import REFUSALS, VERSION
from serving.api.keys import add_key
from serving.api.routes import ROUTES
from serving.models.folder import copy_in
from serving.run import running_service
from serving.schema import MAX_EVENTS, MAX_IDS, MAX_TEXT
from serving.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text()
SECURITY = (Path(__file__).parents[2] / "docs/security.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


@pytest.fixture(scope="module")
def served(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """A server with a key for everything, and another version beside the live one."""
    folder = tmp_path_factory.mktemp("docs")
    key = add_key(folder / "live", "all", ["read", "write", "admin"])
    other = copy_in(build_bundle(folder / "other", title=False), folder / "live").version
    with running_service(bundle_folder, live=folder / "live", keys=True) as url:
        yield url, key, str(other)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works_as_printed(served: tuple[str, str, str], command: str) -> None:
    """Ids are those of the demo there and of the tests' bundle here; the example version is one that is there."""
    if shutil.which("curl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("curl is not installed")
    url, key, other = served
    command = command.replace("http://127.0.0.1:3000", url).replace(VERSION, other)
    command = re.sub(r'"u(\d)"', r'"user-\1"', re.sub(r'"i(\d)"', r'"item-\1"', command))
    command = command.replace(
        "curl ", "curl -s -w '\\n%{http_code}' " + ("" if "$KEY" in command else '-H "X-API-Key: $KEY" '), 1
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "KEY": key}, timeout=30)
    body, status = done.stdout.rsplit("\n", 1)
    assert status == "200", body


def test_every_route_status_and_limit_is_named() -> None:
    for route in ROUTES:
        assert route.path in PAGE
        assert any(route.path.partition("{")[0] in command for command in COMMANDS), route.path
        if route.scope is not None:
            assert re.search(rf"^\| `{route.method} {re.escape(route.path)}` \| {route.scope} \|", PAGE, re.M), route.path
    for status in (*REFUSALS, 404, 405, 431, 500):
        assert re.search(rf"^\|.*\b{status}\b.*\|", PAGE, re.M), status
    for field in re.findall(r"`([a-z]+_[a-z_]+)`", PAGE.partition("## Limits")[2].partition("## From Python")[0]):
        assert field in Settings.model_fields or field in ("num_candidates",)
    defaults = Settings.model_fields
    for value in (
        MAX_IDS, MAX_EVENTS, MAX_TEXT, defaults["max_body_bytes"].default, defaults["max_header_bytes"].default,
        defaults["max_connections"].default, defaults["max_queue"].default,
    ):  # fmt: skip
        assert f" {value:,} " in PAGE or f"| {value:,}" in PAGE, value


def test_scopes_are_named_in_both_pages() -> None:
    for route in ROUTES:
        if route.scope is not None:
            [row] = re.findall(rf"^\| `{route.scope}` \| (.*) \|$", SECURITY, re.M)
            assert f"{route.path}`" in row or route.path.startswith("/admin/")


def test_the_python_example_runs(served: tuple[str, str, str]) -> None:
    url, key, _ = served
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    code = code.replace("http://127.0.0.1:3000", url).replace("api_key=None", f"api_key={key!r}")
    exec(re.sub(r'"i(\d)"', r'"item-\1"', code.replace('"u1"', '"user-1"')), {})
