"""Lists for all users in one file: the same lists as one at a time, all of them or none."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_bundle import NUM_USERS
from typer.testing import CliRunner

from pipelines import batch_scoring
from pipelines.batch_scoring import recommend_all
from pipelines.cli import app
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.recommend import recommend
from serving.schema import Query


@pytest.fixture(scope="module")
def folder(bundle_folder: Path) -> Path:
    return bundle_folder


def test_the_lists_are_those_of_one_request_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across the borders of batches and of row groups."""
    monkeypatch.setattr(batch_scoring, "USERS_AT_ONCE", 3)
    monkeypatch.setattr(batch_scoring, "USERS_WRITTEN", 5)
    written = recommend_all(folder, tmp_path / "recs.parquet", 4)
    bundle, rows = Bundle.load(folder), pq.read_table(tmp_path / "recs.parquet").to_pylist()
    assert (written["users"], written["rows"]) == (NUM_USERS, NUM_USERS * 4)
    assert [row["user_id"] for row in rows] == [f"user-{user}" for user in range(NUM_USERS) for _ in range(4)]
    for start in range(0, len(rows), 4):
        items = recommend(bundle, Query(user_id=rows[start]["user_id"], k=4)).items
        for place, (row, item) in enumerate(zip(rows[start : start + 4], items, strict=True), 1):
            assert (row["rank"], row["item_id"], row["source"]) == (place, item.item_id, item.source)
            assert row["score"] == pytest.approx(item.score)
            assert {"click": row["task_click"], "like": row["task_like"]} == pytest.approx(item.tasks)
            assert row["version"] == bundle.version
    assert pq.ParquetFile(tmp_path / "recs.parquet").num_row_groups == 3
    assert [path.name for path in tmp_path.iterdir()] == ["recs.parquet"]


def test_named_users_the_unknown_among_them(folder: Path, tmp_path: Path) -> None:
    recommend_all(folder, tmp_path / "recs.parquet", 2, ["nobody", "user-3"])
    rows = pq.read_table(tmp_path / "recs.parquet").to_pylist()
    assert [(row["user_id"], row["source"]) for row in rows[:2]] == [("nobody", "popularity")] * 2
    assert rows[0]["task_click"] is None
    assert rows[2]["task_click"] is not None


def test_a_run_that_fails_leaves_the_file_as_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "recs.parquet"
    out.write_bytes(b"of yesterday")
    monkeypatch.setattr(batch_scoring, "USERS_WRITTEN", 5)
    with pytest.raises(RuntimeError, match="power cut"):
        recommend_all(folder, out, 2, (user if user != "user-8" else _fail() for user in map("user-{}".format, range(12))))
    with pytest.raises(InputError, match="k is 1000: ask for 1 to 200"):
        recommend_all(folder, out, 1_000)
    assert out.read_bytes() == b"of yesterday"
    assert [path.name for path in tmp_path.iterdir()] == ["recs.parquet"]


def _fail() -> str:
    raise RuntimeError("power cut")


def test_the_command_writes_the_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    command = ["recommend", "--bundle", str(folder), "--all-users", "--out", str(out), "--k", "3"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert pq.read_metadata(out).num_rows == NUM_USERS * 3


@pytest.mark.parametrize("options", [["--all-users"], ["--out", "x.parquet"], ["--all-users", "--out", "x", "--user", "u"]])
def test_half_of_the_options_are_refused(folder: Path, options: list[str]) -> None:
    result = CliRunner().invoke(app, ["recommend", "--bundle", str(folder), *options])
    assert isinstance(result.exception, InputError)
    assert "--all-users goes with --out" in str(result.exception)


@pytest.mark.parametrize("out", [".", "no-such-folder/recs.parquet"])
def test_a_place_that_cannot_be_written_is_refused(folder: Path, tmp_path: Path, out: str) -> None:
    with pytest.raises(InputError, match="cannot be written: name a file in a folder that is there"):
        recommend_all(folder, tmp_path / out, 3)
