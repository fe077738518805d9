"""The search against exhaustive answers. Shapes: B = users, E = excluded items, K = items returned, G = samples, J = items."""

import numpy as np
import pytest
import torch
from generator_cases import DIM, all_log_probs, best_of_all, fixed_decoder, ids_of, random_decoder, random_ids
from torch import Generator

from recsys.columns import FIRST_ID
from recsys.generate.beam import beam_search, sample
from recsys.generate.trie import Trie

SHAPES = [((4, 3, 5), 17), ((4, 3, 5), 60), ((2, 2, 2, 2), 16), ((6,), 4), ((1, 5), 5), ((3, 3, 3), 1), ((7, 7), 12)]
USERS = 9


@pytest.mark.parametrize(("sizes", "items"), SHAPES)
@pytest.mark.parametrize("softmax", ["legal", "all"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_beam_as_wide_as_the_trie_finds_what_exhaustive_search_finds(
    sizes: tuple[int, ...], items: int, softmax: str, blocks: int
) -> None:
    ids = random_ids(sizes, items, seed=1)
    decoder, trie, rng = random_decoder(ids, 1, softmax, blocks=blocks), Trie(ids), np.random.default_rng(2)
    hidden_BD = torch.randn(USERS, DIM)
    exclude_BE = torch.from_numpy(rng.integers(0, ids.num_items, (USERS, max(1, items // 2))))  # with padding and duplicates
    with torch.no_grad():
        item_BK, score_BK = beam_search(decoder, trie, hidden_BD, exclude_BE, items)
    wanted_item_BK, wanted_BK = best_of_all(all_log_probs(decoder, trie, hidden_BD), exclude_BE, items)
    assert item_BK.tolist() == wanted_item_BK.tolist()
    torch.testing.assert_close(score_BK, wanted_BK, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("sizes", "items"), SHAPES)
@pytest.mark.parametrize("count", [1, 3, 50])
def test_as_many_items_as_are_left_are_found_and_all_are_distinct_and_allowed(
    sizes: tuple[int, ...], items: int, count: int
) -> None:
    ids = random_ids(sizes, items, seed=3)
    decoder, trie, rng = random_decoder(ids, 2), Trie(ids), np.random.default_rng(4)
    catalogue = np.arange(FIRST_ID, ids.num_items)
    excluded = [rng.permutation(catalogue)[: rng.integers(0, items + 1)] for _ in range(USERS)]
    excluded[0], excluded[1] = catalogue, catalogue[:-1]
    exclude_BE = torch.zeros(USERS, 2 * items + 1, dtype=torch.long)
    for row_E, out in zip(exclude_BE, excluded, strict=True):
        row_E[1 : 1 + 2 * len(out)] = torch.from_numpy(np.tile(out, 2))  # each of them twice, padding around them
    with torch.no_grad():
        item_BK, score_BK = beam_search(decoder, trie, torch.randn(USERS, DIM), exclude_BE, count)
    for item_K, score_K, out in zip(item_BK, score_BK, excluded, strict=True):
        found = item_K[torch.isfinite(score_K)].tolist()
        assert len(found) == min(count, items - len(out))
        assert len(set(found)) == len(found)
        assert set(found) <= set(catalogue.tolist()) - set(out.tolist())
        assert item_K[~torch.isfinite(score_K)].tolist() == [0] * (len(item_K) - len(found))
        assert (score_K[: len(found)].diff() <= 0).all()


@pytest.mark.parametrize(
    ("softmax", "exclude", "wanted"),
    [
        ("all", 0, {3: 0.36, 2: 0.18}),
        ("legal", 0, {2: 0.6, 3: 0.4}),
        ("all", 3, {2: 0.18}),
        ("legal", 3, {2: 0.6}),  # an exclusion takes a branch away and raises nobody's probability
        ("legal", 2, {3: 0.4}),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_hand_worked_example(softmax: str, exclude: int, wanted: dict[int, float], count: int) -> None:
    """P(a) = 0.6, P(b) = 0.4; a has the legal child 0 of 0.3 (item 2), b the legal child 0 of 0.9 (item 3)."""
    ids = ids_of([[0, 0], [1, 0]], sizes=(2, 2))
    probability = [{(): [0.6, 0.4]}, {(0,): [0.3, 0.7], (1,): [0.9, 0.1]}]
    decoder = fixed_decoder(ids, probability, softmax)
    item_BK, score_BK = beam_search(decoder, Trie(ids), torch.zeros(1, DIM), torch.tensor([[exclude]]), count)
    found = {item: p for item, p in zip(item_BK[0].tolist(), score_BK[0].exp().tolist(), strict=True) if p}
    if count == 1 and softmax == "all" and exclude == 0:
        assert found == pytest.approx({2: 0.18})  # a beam of one follows a, the greedy way
    else:
        assert found == pytest.approx(dict(list(wanted.items())[:count]))


def test_an_emptied_branch_takes_no_place_in_the_beam() -> None:
    """Codes 0 and 1 are the likely ones, all of their items are excluded, and a beam of two still finds two items."""
    ids = random_ids((4, 3, 5), 60, seed=5)
    first_J = ids.code_IT[FIRST_ID:, 0]
    decoder, trie = random_decoder(ids, 3), Trie(ids)
    with torch.no_grad():
        decoder.bias[0][:2] += 20
    exclude_BE = torch.from_numpy(FIRST_ID + np.flatnonzero(first_J < 2)).unsqueeze(0)
    with torch.no_grad():
        item_BK, score_BK = beam_search(decoder, trie, torch.randn(1, DIM), exclude_BE, 2)
    assert torch.isfinite(score_BK).all()
    assert (ids.code_IT[item_BK.numpy(), 0] >= 2).all()


def test_a_narrow_beam_keeps_each_prefix_with_its_own_past() -> None:
    """Scores of the items found are those of the teacher-forced pass, which has no beams to mix up."""
    ids = random_ids((8, 8, 8, 2), 700, seed=6)
    decoder, trie, hidden_BD = random_decoder(ids, 4, blocks=2), Trie(ids), torch.randn(USERS, DIM)
    with torch.no_grad():
        item_BK, score_BK = beam_search(decoder, trie, hidden_BD, torch.zeros(USERS, 1, dtype=torch.long), 5)
    all_BJ = all_log_probs(decoder, trie, hidden_BD)
    torch.testing.assert_close(score_BK, all_BJ.gather(1, item_BK - FIRST_ID), atol=1e-5, rtol=1e-5)
    assert (score_BK[:, 0] >= all_BJ.quantile(0.99, dim=1)).all()


def test_margins_say_how_far_a_cut_was_from_another_outcome() -> None:
    ids = random_ids((4, 3, 5), 60, seed=7)
    decoder, trie, hidden_BD = random_decoder(ids, 5), Trie(ids), torch.randn(USERS, DIM)
    none_BE, margins = torch.zeros(USERS, 1, dtype=torch.long), []
    with torch.no_grad():
        plain = beam_search(decoder, trie, hidden_BD, none_BE, 2)
        found = beam_search(decoder, trie, hidden_BD, none_BE, 2, margins)
        logit_BK, _ = decoder.step(0, decoder.first(hidden_BD), None)
    assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))
    best_BK = logit_BK.log_softmax(-1).topk(3).values
    torch.testing.assert_close(margins[0], best_BK[:, 1] - best_BK[:, 2])
    assert len(margins) == 2
    wide: list[torch.Tensor] = []
    with torch.no_grad():
        beam_search(decoder, trie, hidden_BD, none_BE, 60, wide)
    assert all((margin_B == torch.inf).all() for margin_B in wide)


@pytest.mark.parametrize("softmax", ["legal", "all"])
def test_samples_come_as_often_as_the_model_says(softmax: str) -> None:
    """Code by code over what is left; checked against the exact distribution of that walk."""
    ids = random_ids((3, 2, 3), 10, seed=8)
    decoder, trie, hidden_BD = random_decoder(ids, 6, softmax), Trie(ids), torch.randn(2, DIM)
    exclude_BE = torch.tensor([[0, 0, 0], [4, 4, 7]])
    draws = 20_000
    item_BG = sample(decoder, trie, hidden_BD, exclude_BE, draws, Generator().manual_seed(0))
    for item_G, hidden_D, exclude_E in zip(item_BG, hidden_BD, exclude_BE.tolist(), strict=True):
        share = np.bincount(item_G.numpy(), minlength=ids.num_items) / draws
        exact = _walk(decoder, ids.code_IT, hidden_D, set(exclude_E))
        assert share[[0, 1, *exclude_E]].sum() == 0
        assert np.abs(share - exact).max() < 4 * np.sqrt(0.25 / draws)
        if softmax == "legal" and set(exclude_E) == {0}:
            np.testing.assert_allclose(exact[FIRST_ID:], all_log_probs(decoder, trie, hidden_D[None]).exp()[0], atol=1e-5)


@torch.no_grad()
def _walk(decoder, code_IT: np.ndarray, hidden_D: torch.Tensor, exclude: set[int]) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The chance of every item when each code is drawn among those that lead to an item that is left."""
    left = [item for item in range(FIRST_ID, len(code_IT)) if item not in exclude]
    chance = np.zeros(len(code_IT))
    for item in left:
        logits = decoder(hidden_D[None], torch.from_numpy(code_IT[item : item + 1].astype(np.int64)))
        chance[item] = 1.0
        for level, logit_1K in enumerate(logits):
            siblings = {int(code_IT[other, level]) for other in left if (code_IT[other, :level] == code_IT[item, :level]).all()}
            weight_K = logit_1K[0].exp().numpy()
            chance[item] *= weight_K[code_IT[item, level]] / sum(weight_K[code] for code in siblings)
    return chance


def test_samples_follow_the_generator_and_stop_where_nothing_is_left() -> None:
    ids = random_ids((3, 2, 3), 10, seed=9)
    decoder, trie, hidden_BD = random_decoder(ids, 7), Trie(ids), torch.randn(2, DIM)
    exclude_BE = torch.stack([torch.arange(ids.num_items), torch.zeros(ids.num_items, dtype=torch.long)])
    drawn = [sample(decoder, trie, hidden_BD, exclude_BE, 20, Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0][0].tolist() == [0] * 20
    assert (drawn[0][1] >= FIRST_ID).all()
