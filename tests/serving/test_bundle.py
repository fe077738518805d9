"""What a bundle gives once it is open: stand-ins, ids, categories, the reference, and where its graphs run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_bundle import COVISIT_IN, POPULAR_P, REFERENCE, ROWS, SEGMENT_VP, VECTOR_ND, build_bundle

from recsys.artefact import read_manifest, write_artefact
from recsys.columns import UNKNOWN_ID
from recsys.errors import InputError
from serving.bundle.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(build_bundle(tmp_path_factory.mktemp("open") / "bundle"))


def test_stand_ins(bundle: Bundle) -> None:
    np.testing.assert_array_equal(bundle.popular_P, POPULAR_P)
    item_N, score_N = bundle.covisits(7)
    assert item_N.tolist() == COVISIT_IN[7].tolist()
    assert score_N.tolist() == [0.5, 0.25]
    assert not len(bundle.covisits(0)[0])
    np.testing.assert_array_equal(bundle.popular_with(2), SEGMENT_VP[2])
    np.testing.assert_array_equal(bundle.popular_with(3), SEGMENT_VP[3])
    assert not len(bundle.popular_with(UNKNOWN_ID))


def test_vectors_of_length_one(bundle: Bundle) -> None:
    expected = VECTOR_ND[[5, 9]] / np.linalg.norm(VECTOR_ND[[5, 9]], axis=1, keepdims=True)
    np.testing.assert_allclose(bundle.unit_vectors(np.array([5, 9])), expected, rtol=1e-6)


def test_files_are_mapped_and_not_read(bundle: Bundle) -> None:
    assert isinstance(bundle.vector_ID, np.memmap)
    assert isinstance(bundle.popular_P, np.memmap)


def test_ids_of_every_row_are_found(bundle: Bundle) -> None:
    assert [bundle.item_index.find(bundle.item_id(row)) for row in range(2, ROWS)] == list(range(2, ROWS))
    assert bundle.user_index.find("user-11") == 13
    assert bundle.user_index.find("item-1") == UNKNOWN_ID


def test_the_reference_is_what_the_file_says(bundle: Bundle) -> None:
    assert bundle.reference is not None
    assert bundle.reference.model_dump(mode="json") == REFERENCE


def rewritten(source: Path, target: Path, change: Callable[[Path], None]) -> Path:
    """The same bundle with other files, and a manifest that fits them."""
    kept = {name: value for name, value in read_manifest(source, "bundle").items() if name in ("name", "model", "lineage")}
    with write_artefact(target, "bundle", **kept) as (scratch, _):
        for path in source.iterdir():
            if path.name != "manifest.json":
                (scratch / path.name).write_bytes(path.read_bytes())
        change(scratch)
    return target


def test_a_bundle_without_a_reference_or_segments_opens(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    def remove(folder: Path) -> None:
        (folder / "reference.json").unlink()
        (folder / "segments.npy").unlink()

    bundle = Bundle.load(rewritten(make_bundle(), tmp_path / "other", remove))
    assert bundle.reference is None
    assert not len(bundle.popular_with(2))


def test_a_reference_that_is_none_is_refused(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = rewritten(
        make_bundle(), tmp_path / "other", lambda at: (at / "reference.json").write_text('{"edges": "a"}') and None
    )
    with pytest.raises(InputError, match=r"reference\.json is unusable .*recsys export"):
        Bundle.load(folder)


def test_a_category_is_the_first_of_several_and_unknown_where_there_is_none(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    def lists(folder: Path) -> None:
        table = pa.ipc.open_file(folder / "items.arrow").read_all()
        codes = [[0], [1], *([[3, 2], [], [4]] * ROWS)][:ROWS]
        column = table.schema.get_field_index("feature_colour")
        changed = table.set_column(column, "feature_colour", pa.array(codes, pa.list_(pa.int32())))
        with pa.ipc.new_file(folder / "items.arrow", changed.schema) as writer:
            writer.write_table(changed, max_chunksize=16)

    bundle = Bundle.load(rewritten(make_bundle(), tmp_path / "other", lists))
    assert bundle.category_I[:5].tolist() == [0, 1, 3, UNKNOWN_ID, 4]
    assert len(bundle.category_I) == ROWS


def test_the_providers_are_those_of_the_session(bundle: Bundle) -> None:
    assert bundle.providers == list(bundle.retrieval.session.get_providers())
    assert "CPUExecutionProvider" in bundle.providers


def test_opening_needs_neither_torch_nor_faiss(make_bundle: Callable[..., Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.bundle.bundle import Bundle; Bundle.load(Path(sys.argv[1]));"
        "print(sorted({'torch', 'faiss', 'polars', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, make_bundle()], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
