"""Probabilities of items, and that a step at a time is the same model as all codes at once."""

import pytest
import torch
from generator_cases import DIM, all_log_probs, fixed_decoder, ids_of, random_decoder, random_ids

from recsys.columns import FIRST_ID
from recsys.generate.trie import Trie

SHAPES = [((4, 3, 5), 17), ((2, 2, 2, 2), 16), ((6,), 4), ((1, 5), 5), ((3, 3, 3), 1)]


@pytest.mark.parametrize(("sizes", "items"), SHAPES)
@pytest.mark.parametrize("blocks", [1, 3])
def test_probabilities_of_all_items_sum_to_one_among_legal_codes(sizes: tuple[int, ...], items: int, blocks: int) -> None:
    ids = random_ids(sizes, items, seed=3)
    total = {
        softmax: all_log_probs(random_decoder(ids, 0, softmax, blocks=blocks), Trie(ids), torch.randn(5, DIM)).exp().sum(1)
        for softmax in ("legal", "all")
    }
    torch.testing.assert_close(total["legal"], torch.ones(5))
    full = items == torch.tensor(sizes).prod()
    assert torch.allclose(total["all"], torch.ones(5)) if full else (total["all"] < 0.999).all()


@pytest.mark.parametrize("places", [(), (6,), (2, 3)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_steps_with_kept_keys_and_values_are_the_pass_over_all_codes(places: tuple[int, ...], blocks: int) -> None:
    ids = random_ids((4, 3, 5, 2), 40, seed=4)
    decoder = random_decoder(ids, 1, blocks=blocks)
    hidden = torch.randn(*places, DIM) if places else torch.randn(1, DIM)
    code = Trie(ids).codes(torch.randint(FIRST_ID, ids.num_items, hidden.shape[:-1]))
    whole = decoder(hidden, code)
    token, cache = decoder.first(hidden), None
    for level, logit in enumerate(whole):
        stepped, cache = decoder.step(level, token, cache)
        torch.testing.assert_close(stepped, logit, atol=1e-5, rtol=1e-5)
        if level + 1 < ids.levels:
            token = decoder.next(level + 1, token, code[..., level])


def test_a_code_depends_on_those_before_it_and_on_no_later_one() -> None:
    ids = random_ids((4, 3, 5), 60, seed=5)
    decoder, hidden = random_decoder(ids, 2), torch.randn(1, DIM)
    one, other = (decoder(hidden, torch.tensor([codes])) for codes in ([1, 2, 0], [1, 0, 3]))
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])
    assert not torch.allclose(one[2], other[2])


def test_hand_worked_probabilities_of_both_softmaxes() -> None:
    """P(a) = 0.6, P(b) = 0.4; a has the legal child 0 of 0.3, b the legal child 0 of 0.9."""
    ids = ids_of([[0, 0], [1, 0]], sizes=(2, 2))
    probability = [{(): [0.6, 0.4]}, {(0,): [0.3, 0.7], (1,): [0.9, 0.1]}]
    for softmax, wanted in (("all", [0.18, 0.36]), ("legal", [0.6, 0.4])):
        found = all_log_probs(fixed_decoder(ids, probability, softmax), Trie(ids), torch.zeros(1, DIM)).exp()
        torch.testing.assert_close(found, torch.tensor([wanted]))


def test_reserved_ids_neither_fail_nor_touch_the_others() -> None:
    ids = random_ids((4, 3, 5), 17, seed=6)
    decoder, trie, hidden_XD = random_decoder(ids, 3), Trie(ids), torch.randn(4, DIM)
    mixed = decoder.log_probs(trie, hidden_XD, torch.tensor([0, 5, 1, 9]))
    torch.testing.assert_close(mixed[[1, 3]], decoder.log_probs(trie, hidden_XD[[1, 3]], torch.tensor([5, 9])))
    assert torch.isfinite(mixed).all()


@pytest.mark.parametrize("softmax", ["legal", "all"])
def test_every_parameter_learns_from_log_probs(softmax: str) -> None:
    ids = random_ids((4, 3, 5), 30, seed=7)
    decoder = random_decoder(ids, 0, softmax).train()  # a fresh one's blocks are the identity, whose inner layers wait
    item_X = torch.arange(FIRST_ID, ids.num_items)
    decoder.log_probs(Trie(ids), torch.randn(len(item_X), DIM), item_X).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
