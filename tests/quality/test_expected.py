"""Entries of the leaderboard are whole, and configs reach the quality they are known for: trained on the real logs, judged as
`recsys evaluate` does."""

import os
from pathlib import Path

import pytest

from benchmarks.quality.entries import Entry, Known, differences, entries
from benchmarks.quality.seeds import raw_folder, run_seed
from recsys.protocol import Protocol

ENTRIES = entries()


def test_there_is_an_entry_for_each_data_set() -> None:
    assert set(ENTRIES) == {"ml-1m", "s3rec_beauty", "kuairand", "coat", "goodbooks-10k"}


def test_a_difference_of_the_tolerance_is_none() -> None:
    known = {name: Known(value=0.5, tolerance=0.25) for name in ("low", "high", "worse", "better", "gone", "none")}
    found = {"low": 0.25, "high": 0.75, "worse": 0.2499, "better": 0.7501, "none": float("nan")}
    assert differences(found, known) == [
        "worse is 0.2499, not within 0.25 of 0.5",
        "better is 0.7501, not within 0.25 of 0.5",
        "gone is missing",
        "none is nan, not within 0.25 of 0.5",
    ]


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_expected_can_be_measured(name: str) -> None:
    """The names are those of the config's lists and tasks."""
    entry = ENTRIES[name]
    config = entry.load(seed=1)
    lists = tuple(f"@{k}" for k in config.evaluation.ks)
    for metric in (*entry.expected, *entry.shown, *(metric for each in entry.published for metric in each.metrics)):
        assert metric.startswith(("test/", "floor/")), metric
        assert metric.endswith(lists) or metric.split("/")[-1] in config.tasks, metric


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_expected_was_measured_by_the_rules_of_today(name: str) -> None:
    entry = ENTRIES[name]
    now = Protocol.of(entry.load(seed=1)).line
    assert entry.protocol == now, f"{name}.yaml: measure again, and write down `protocol: {now}`"


@pytest.mark.parametrize("name", ENTRIES)
def test_a_tolerance_leaves_room_to_fail(name: str) -> None:
    """A value of a tenth of what is expected, and an AUC of chance, are outside."""
    for metric, known in ENTRIES[name].expected.items():
        useless = 0.5 if "AUC" in metric else known.value / 10
        assert abs(useless - known.value) > known.tolerance, metric


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_a_config_reaches_what_it_is_known_for(name: str, tmp_path: Path) -> None:
    root, entry = os.environ.get("RECSYS_DATA"), ENTRIES[name]
    if not root:
        pytest.skip("set RECSYS_DATA to the folder of the real data sets")
    if not (Path(root) / entry.data).is_dir():
        pytest.skip(f"no {entry.data} in {root}")
    found = _seed_1(entry, Path(root), tmp_path)
    said = differences(found, entry.expected)
    assert not said, "; ".join(said)


def _seed_1(entry: Entry, data: Path, work: Path) -> dict[str, float]:
    return run_seed(entry, raw_folder(entry, data, work), work / "run", 1).metrics
