"""Artefacts are whole or absent, and refuse what they are not."""

import json
from pathlib import Path

import pytest

from recsys.artefact import MANIFEST, read_manifest, write_artefact
from recsys.errors import InputError


def write(folder: Path, text: str) -> None:
    with write_artefact(folder, "dataset", note="test") as (scratch, manifest):
        (scratch / "data.txt").write_text(text)
        manifest["rows"] = len(text)


def write_half(folder: Path, error: type[BaseException]) -> None:
    with write_artefact(folder, "dataset") as (scratch, _):
        (scratch / "data.txt").write_text("half")
        raise error


def test_a_reader_finds_files_hashes_and_what_the_writer_added(tmp_path: Path) -> None:
    write(tmp_path / "a", "hello")
    manifest = read_manifest(tmp_path / "a", "dataset", verify=True)
    assert manifest["rows"] == 5
    assert list(manifest["files"]) == ["data.txt"]
    write(tmp_path / "b", "hello")
    assert read_manifest(tmp_path / "b", "dataset")["fingerprint"] == manifest["fingerprint"]
    write(tmp_path / "b", "other")
    assert read_manifest(tmp_path / "b", "dataset")["fingerprint"] != manifest["fingerprint"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_a_writer_that_stops_leaves_the_old_artefact_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "a", "old")
    with pytest.raises(error):
        write_half(tmp_path / "a", error)
    assert (tmp_path / "a" / "data.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", "old")
    (tmp_path / "a").rename(tmp_path / ".a.old")  # where a killed swap leaves it
    assert read_manifest(tmp_path / "a", "dataset", verify=True)["rows"] == 3
    (tmp_path / ".a.999999999.tmp").mkdir()  # what a killed writer left
    write(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no dataset: make it with `recsys prepare`"):
        read_manifest(tmp_path / "missing", "dataset")
    write(tmp_path / "a", "x")
    with pytest.raises(InputError, match="holds a 'dataset' artefact where a bundle is needed"):
        read_manifest(tmp_path / "a", "bundle")
    path = tmp_path / "a" / MANIFEST
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | {"format_version": 1}))
    with pytest.raises(InputError, match="dataset format version 1, this recsys reads version 2: make it again"):
        read_manifest(tmp_path / "a", "dataset")
    path.write_text(whole[:20])
    with pytest.raises(InputError, match="not valid JSON"):
        read_manifest(tmp_path / "a", "dataset")
    path.write_text(whole)
    (tmp_path / "a" / "data.txt").write_text("y")
    read_manifest(tmp_path / "a", "dataset")
    with pytest.raises(InputError, match=r"data\.txt is missing or differs from its manifest"):
        read_manifest(tmp_path / "a", "dataset", verify=True)
