"""Shapes: B = users, L = history, N = history items of all users, M = tokens (N + one start token each), D = width."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recsys.models.sasrec import SASRec, SASRecEncoder

D, MAX_HISTORY = 8, 7


@pytest.fixture
def encoder() -> SASRecEncoder:
    torch.manual_seed(0)
    return SASRec(dim=D, blocks=2, heads=2, dropout=0.5).build(MAX_HISTORY).eval()


def histories(lengths: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(length, D, generator=generator) for length in lengths]


def encode(encoder: SASRecEncoder, users: list[Tensor]) -> list[Tensor]:
    """The hidden states of each user, the start token's first."""
    length_B = torch.tensor([len(user) for user in users])
    return list(encoder(torch.cat(users), length_B).split((length_B + 1).tolist()))


def test_a_later_item_does_not_change_earlier_states(encoder: SASRecEncoder) -> None:
    users = histories([5, 3])
    changed = [users[0].clone(), users[1]]
    changed[0][3] *= -2
    before, after = encode(encoder, users), encode(encoder, changed)
    torch.testing.assert_close(before[0][:4], after[0][:4], rtol=0, atol=0)  # start token and items 0 to 2
    assert ((before[0][4:] - after[0][4:]).abs().amax(dim=1) > 1e-3).all()
    torch.testing.assert_close(before[1], after[1], rtol=0, atol=0)


@pytest.mark.parametrize("lengths", [[0, 1, MAX_HISTORY, 3], [0], [0, 0], [MAX_HISTORY]])
def test_jagged_equals_padded(encoder: SASRecEncoder, lengths: list[int]) -> None:
    users = histories(lengths)
    jagged_BD = torch.stack([states[-1] for states in encode(encoder, users)])
    for columns in {max(1, *lengths), MAX_HISTORY}:
        padded_BLD = pad_sequence([*users, torch.zeros(columns, D)], batch_first=True, padding_value=9.0)[:-1]
        torch.testing.assert_close(encoder.encode_padded(padded_BLD, torch.tensor(lengths)), jagged_BD, atol=1e-5, rtol=1e-5)


def test_company_in_the_batch_does_not_change_a_user(encoder: SASRecEncoder) -> None:
    users = histories([2, MAX_HISTORY, 0, 4])
    together = encode(encoder, users)
    for user, states in zip(users, together, strict=True):
        torch.testing.assert_close(encode(encoder, [user])[0], states, atol=1e-5, rtol=1e-5)


def test_order_matters(encoder: SASRecEncoder) -> None:
    [user] = histories([4])
    assert (encode(encoder, [user])[0][-1] - encode(encoder, [user.flip(0)])[0][-1]).abs().max() > 1e-3


def test_gradient_reaches_every_parameter(encoder: SASRecEncoder) -> None:
    encoder.train()
    weight_D = torch.arange(D).float()  # the sum of a layer norm's outputs alone does not depend on its inputs
    torch.cat(encode(encoder, histories([MAX_HISTORY, 0, 2]))).mul(weight_D).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert (encoder.start.grad != 0).any()
    assert (encoder.place.grad != 0).any(dim=1).all(), "a place no history reaches"


def test_an_empty_history_depends_on_the_start_token_alone(encoder: SASRecEncoder) -> None:
    states = encode(encoder, histories([0, 3, 0]))
    torch.testing.assert_close(states[0], states[2])
    with torch.no_grad():
        encoder.start += torch.arange(D)
    assert not torch.allclose(encode(encoder, histories([0]))[0], states[0])


def test_width_must_divide_by_heads() -> None:
    with pytest.raises(ValueError, match="dim 8 is not divisible by heads 3"):
        SASRec(dim=8, heads=3)
