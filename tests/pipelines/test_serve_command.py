"""`recsys serve`: what it refuses before anything starts, and what it says."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from recsys.errors import InputError
from serving.run import check_open
from serving.settings import Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_other_machines_are_let_in_with_keys_or_knowingly(host: str) -> None:
    with pytest.raises(InputError, match=f"--host {host} lets other machines in and no API key is asked for"):
        check_open(host, keys=False, allowed=False)
    check_open(host, keys=True, allowed=False)
    check_open(host, keys=False, allowed=True)


def test_this_machine_needs_no_keys() -> None:
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        check_open(host, keys=False, allowed=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines in"),
        (["--host", "0.0.0.0", "--no-keys"], "--host 0.0.0.0 lets other machines in"),
        (["--state", "redis://:secret@127.0.0.1:6379/0"], "set RECSYS_STATE instead"),
        (["--max-queue", "0"], "--max-queue is 0: input should be greater than or equal to 1"),
        (["--model", "shop"], "--model and --bundle are two sources"),
        ([], "holds no bundle"),
    ],
)
def test_refusals_are_one_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["serve", "--bundle", str(tmp_path / "bundle"), *words])
    assert isinstance(done.exception, InputError)
    assert sentence in str(done.exception)
    assert "\n" not in str(done.exception)
    assert "secret" not in str(done.exception) + done.output
    assert not (tmp_path / "live").exists()


def test_a_password_in_the_environment_is_no_offence_and_is_not_shown(tmp_path: Path) -> None:
    words = ["serve", "--bundle", str(tmp_path / "bundle")]
    done = CliRunner().invoke(app, words, env={"RECSYS_STATE": "redis://:secret@127.0.0.1:6379/0"})
    assert "holds no bundle" in str(done.exception)
    assert "secret" not in done.output
    assert "secret" not in CliRunner().invoke(app, ["serve", "--help"], env={"RECSYS_STATE": "redis://:secret@h/0"}).output


def test_every_setting_has_an_option() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    missing = [name for name in Settings.model_fields if f"--{name.replace('_', '-')}" not in shown]
    assert missing == []
