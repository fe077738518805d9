"""External ids to rows: what was written is found, and nothing else."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import id_index
from recsys.columns import UNKNOWN_ID
from recsys.errors import InputError
from recsys.id_index import IdIndex, id_hash, id_table, write_id_index

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def column(ids: list[str | None], *, chunk: int = 3) -> pa.ChunkedArray:
    return pa.chunked_array([ids[at : at + chunk] for at in range(0, len(ids), chunk)] or [[]], pa.string())


@settings(deadline=None)
@given(ids=st.lists(TEXT, unique=True, max_size=12), other=TEXT)
def test_every_id_is_found_and_no_other(ids: list[str], other: str) -> None:
    texts = column([None, None, *ids])
    index = IdIndex(texts, id_table(texts))
    assert [index.find(text) for text in ids] == list(range(2, 2 + len(ids)))
    assert index.find(other) == (2 + ids.index(other) if other in ids else UNKNOWN_ID)


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_index, "id_hash", len)
    texts = column([None, None, "ab", "cd", "e", "ef", ""])
    index = IdIndex(texts, id_table(texts))
    assert [index.find(text) for text in ("ab", "cd", "e", "ef", "", "gh", "abc")] == [2, 3, 4, 5, 6, UNKNOWN_ID, UNKNOWN_ID]


def test_the_hash_is_the_same_everywhere() -> None:
    """Else a file that one version wrote would find nothing in another."""
    assert [id_hash(text) for text in ("", "item-1", "ä")] == [0xB4B2797457A0A6E4, 0x74A8B5AD5A9DEBE4, 0x39A02B5EE2BB4DF0]


def test_a_text_that_is_no_unicode_is_unknown() -> None:
    texts = column([None, None, "a"])
    assert IdIndex(texts, id_table(texts)).find("\ud800") == UNKNOWN_ID


def test_a_file_of_other_ids_is_refused(tmp_path: Path) -> None:
    texts = column([None, None, "a", "b"])
    write_id_index(texts, tmp_path / "index.arrow")
    assert IdIndex.open(texts, tmp_path / "index.arrow").find("b") == 3
    with pytest.raises(InputError, match=r"index\.arrow is of 2 ids, its table has others"):
        IdIndex.open(column([None, None, "a"]), tmp_path / "index.arrow")
