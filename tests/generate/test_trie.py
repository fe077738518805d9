"""The trie against what can be read off the codes. Shapes: X = nodes, C = children, B = users, E = excluded items."""

import numpy as np
import pytest
import torch
from generator_cases import ids_of, random_ids

from recsys.columns import FIRST_ID
from recsys.generate.trie import Trie

CODES = [[1, 0, 2], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 2, 0]]  # items 2 to 6, not in the order of their codes
SHAPES = [((4, 3, 5), 17), ((2, 2, 2, 2), 16), ((6,), 4), ((1, 5), 5), ((3, 3, 3), 1)]


def test_nodes_stand_in_the_order_of_their_codes() -> None:
    trie = Trie(ids_of(CODES))
    assert trie.get_buffer("item_J").tolist() == [5, 3, 4, 2, 6]  # 001 010 100 102 120
    assert trie.part("code", 0).tolist() == [0, 1]
    assert trie.part("code", 1).tolist() == [0, 1, 0, 2]
    assert trie.part("first", 1).tolist() == [0, 2, 4]
    assert trie.part("leaf", 1).tolist() == [0, 1, 2, 4, 5]
    assert trie.widths == [2, 2, 2]


def test_children_of_a_node() -> None:
    trie = Trie(ids_of(CODES))
    child_XC, is_child_XC = trie.below(2, torch.tensor([[2, 3], [0, 1]]))
    assert child_XC[0, 0].tolist() == [2, 3]
    assert is_child_XC.tolist() == [[[True, True], [True, False]], [[True, False], [True, False]]]
    assert child_XC[is_child_XC].tolist() == [2, 3, 4, 0, 1]
    assert (child_XC < 5).all(), "a place without a child names a node that exists"


@pytest.mark.parametrize(("sizes", "items"), SHAPES)
def test_codes_and_parents_are_those_of_the_item(sizes: tuple[int, ...], items: int) -> None:
    ids = random_ids(sizes, items, seed=1)
    trie, item_J = Trie(ids), torch.arange(FIRST_ID, ids.num_items)
    np.testing.assert_array_equal(trie.codes(item_J).numpy(), ids.code_IT[FIRST_ID:])
    assert trie.codes(torch.tensor([0, 1])).tolist() == [[0] * len(sizes)] * 2
    for level in range(trie.levels):
        prefixes = [tuple(code_T[:level]) for code_T in ids.code_IT[FIRST_ID:].tolist()]
        node_J = trie.parents(level, item_J).tolist()
        assert len(set(zip(prefixes, node_J, strict=True))) == len(set(prefixes)) == len(set(node_J))
        assert trie.parents(level, torch.tensor([0, 1])).tolist() == [0, 0]


@pytest.mark.parametrize(("sizes", "items"), SHAPES)
def test_a_node_is_open_while_an_item_is_left_behind_it(sizes: tuple[int, ...], items: int) -> None:
    ids, rng = random_ids(sizes, items, seed=2), np.random.default_rng(0)
    trie = Trie(ids)
    exclude_BE = torch.from_numpy(rng.integers(0, ids.num_items, (9, 2 * items)))  # reserved ids and duplicates among them
    exclude_BE[0] = 0
    before_BJ1 = trie.excluded(exclude_BE)
    left = [set(range(FIRST_ID, ids.num_items)) - set(exclude_E.tolist()) for exclude_E in exclude_BE]
    for level in range(trie.levels):
        nodes = len(trie.part("code", level))
        is_open_BX = trie.is_open(level, torch.arange(nodes).expand(9, -1), before_BJ1)
        for items_left, is_open_X in zip(left, is_open_BX, strict=True):
            wanted = {int(node) for node in trie.part("node", level)[torch.tensor(sorted(items_left), dtype=torch.long)]}
            assert set(is_open_X.nonzero().squeeze(1).tolist()) == wanted
