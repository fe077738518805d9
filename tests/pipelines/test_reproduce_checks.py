"""What stops a reproduction before training: a dataset that says something else, by what differs."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.origin import Origin, this_machine
from pipelines.reproduction.checks import check_data
from recsys.errors import InputError

RAW = Path("raw")
ORIGIN = Origin(
    raw="/raw", inputs={"a.csv": "1", "b.csv": "2"}, content="c", dataset="d", polars="2.1.0", parts=("retriever",),
    began_from=None, machine=this_machine(),
)  # fmt: skip


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "inputs": ORIGIN.inputs, "data_fingerprint": "f", "content": "c", "fingerprint": "d", "polars": "2.1.0", **changes
    }  # fmt: skip


def test_the_same_dataset_is_none_of_it() -> None:
    assert check_data(ORIGIN, "f", manifest(), RAW) == []


def test_files_that_changed_went_or_came_are_named() -> None:
    now = manifest(inputs={"a.csv": "9", "c.csv": "3"}, data_fingerprint="g")
    with pytest.raises(InputError, match=r"a\.csv has changed, b\.csv is gone, c\.csv is new"):
        check_data(ORIGIN, "f", now, RAW)


def test_another_reading_of_the_same_files_is_refused() -> None:
    with pytest.raises(InputError, match="the `data` section is read otherwise by this code"):
        check_data(ORIGIN, "f", manifest(data_fingerprint="g"), RAW)
    with pytest.raises(InputError, match="`prepare` of this commit works otherwise"):
        check_data(ORIGIN, "f", manifest(content="other", fingerprint="e"), RAW)


def test_other_numbers_of_ids_and_another_polars_are_told_and_let_pass() -> None:
    assert "had grown by appended files" in check_data(ORIGIN, "f", manifest(fingerprint="e"), RAW)[0]
    assert check_data(ORIGIN, "f", manifest(polars="2.2.0", content="x", fingerprint="e"), RAW) == [
        "Polars: the run's is 2.1.0, here it is 2.2.0"
    ]


def test_a_machine_is_told_by_what_differs() -> None:
    here = this_machine(processes=1)
    assert here.differences(here) == {}
    other = here.model_copy(update={"threads": here.threads + 1, "processor": "another"})
    assert other.differences(here) == {"processor": ("another", here.processor), "threads": (here.threads + 1, here.threads)}
