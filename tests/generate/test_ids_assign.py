"""Every item has an id of its own; old items keep theirs."""

from pathlib import Path

import numpy as np
import pytest
from catalogues import EACH, GROUPS, catalogue, planted_items, planted_titles

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.generate.assign import assign, extend, numbers
from recsys.generate.balanced_kmeans import BalancedKMeans
from recsys.generate.ids import NO_CODE
from recsys.generate.ids_config import IdsConfig, Limits
from recsys.generate.items import Items

SMALL = IdsConfig(quantizer=BalancedKMeans(levels=1, codes=GROUPS))


def test_items_with_equal_codes_are_numbered_by_row() -> None:
    assert numbers(np.array([[1, 0], [0, 0], [1, 0], [1, 1], [1, 0]])).tolist() == [0, 0, 1, 0, 2]


def test_items_of_one_subject_share_their_first_code(tmp_path: Path) -> None:
    ids = assign(SMALL, planted_items(tmp_path / "dataset"), seed=1).ids
    first = ids.code_IT[FIRST_ID:, 0].reshape(EACH, GROUPS)
    assert (first == first[0]).all()
    assert len(set(first[0])) == GROUPS
    assert ids.sizes == (GROUPS, EACH + SMALL.spare)
    assert (ids.code_IT[:FIRST_ID] == NO_CODE).all()


def test_the_same_seed_gives_the_same_ids(tmp_path: Path) -> None:
    items = planted_items(tmp_path / "dataset")
    found = [assign(IdsConfig(quantizer=BalancedKMeans(levels=2, codes=4)), items, seed=7) for _ in range(2)]
    assert (found[0].ids.code_IT == found[1].ids.code_IT).all()
    assert all((found[0].codebook.quantizer[name] == array).all() for name, array in found[1].codebook.quantizer.items())


def test_new_items_get_the_next_free_number_and_old_ones_keep_theirs(tmp_path: Path) -> None:
    old = assign(SMALL, planted_items(tmp_path / "old"), seed=1)
    titles = [*planted_titles(), "chess board model 1", "garden hose model 2", "chess board model 3"]
    grown = extend(SMALL, Items(catalogue(tmp_path / "new", titles)), old.ids, old.codebook).ids
    assert (grown.code_IT[: old.ids.num_items] == old.ids.code_IT).all()
    chess, hose = old.ids.code_IT[FIRST_ID + GROUPS - 1, 0], old.ids.code_IT[FIRST_ID, 0]
    assert grown.code_IT[old.ids.num_items :].tolist() == [[chess, EACH], [hose, EACH], [chess, EACH + 1]]
    assert grown.sizes == old.ids.sizes, "there were spare codes"


def test_the_last_level_grows_when_its_spare_codes_are_used_up(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"spare": 0})
    old = assign(config, planted_items(tmp_path / "old"), seed=1)
    grown = extend(config, Items(catalogue(tmp_path / "new", [*planted_titles(), "chess board"])), old.ids, old.codebook).ids
    assert (old.ids.sizes[-1], grown.sizes[-1]) == (EACH, EACH + 1)


def test_without_collisions_and_spare_codes_there_is_no_last_level(tmp_path: Path) -> None:
    titles = [f"{word} {word}" for word in ("apple", "bridge", "candle", "dragon")]
    config = IdsConfig(quantizer=BalancedKMeans(levels=1, codes=4), spare=0)
    old = assign(config, Items(catalogue(tmp_path / "old", titles)), seed=1)
    assert old.ids.sizes == (4,)
    with pytest.raises(InputError, match="new item 'i6' has all codes of another item"):
        extend(config, Items(catalogue(tmp_path / "new", [*titles, "apple"])), old.ids, old.codebook)


def test_too_many_items_with_equal_codes_are_refused_by_name(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"limits": Limits(max_collisions=EACH - 1)})
    with pytest.raises(
        InputError, match=rf"^{EACH} items share all codes \(such as 'i\d+', 'i\d+', 'i\d+', ...\).*raise the limit"
    ):
        assign(config, planted_items(tmp_path / "dataset"), seed=1)


def test_items_without_content_do_not_move_the_codes_and_get_the_nearest_to_the_mean(tmp_path: Path) -> None:
    titles: list[str | None] = [*planted_titles(), None, "", None]
    config = SMALL.model_copy(update={"limits": Limits(max_without_content=0.1)})
    told = assign(config, planted_items(tmp_path / "told"), seed=1)
    found = assign(config, Items(catalogue(tmp_path / "some", titles)), seed=1)
    assert (found.ids.code_IT[: told.ids.num_items] == told.ids.code_IT).all()
    empty = found.ids.code_IT[-3:]
    assert len(set(empty[:, 0])) == 1
    assert empty[:, 1].tolist() == [EACH, EACH + 1, EACH + 2]
    with pytest.raises(
        InputError, match=r"3 of 51 items have no content \(such as 'i50', 'i51', 'i52'\).*max_without_content 0.05"
    ):
        assign(SMALL, Items(catalogue(tmp_path / "more", titles)), seed=1)


def test_a_catalogue_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a title nor item features"):
        assign(SMALL, Items(catalogue(tmp_path / "none", items=4)), seed=1)
    with pytest.raises(InputError, match="no item has content"):
        assign(SMALL, Items(catalogue(tmp_path / "null", [None] * 4)), seed=1)
