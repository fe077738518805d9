"""Shapes: B = users, L = history, M = tokens (history + one start token each), D = width, E = width of a head, H = heads."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recsys.models import pointwise_attention as attention
from recsys.models.hstu import BUCKETS, HSTU, HSTUEncoder, elapsed_buckets
from recsys.models.pointwise_attention import pointwise_attention

D, MAX_HISTORY = 8, 7
HOUR, DAY = 3600, 86400


def build(**settings: str) -> HSTUEncoder:
    torch.manual_seed(0)
    encoder = HSTU(dim=D, blocks=2, heads=2, dropout=0.5, **settings).build(MAX_HISTORY).eval()
    with torch.no_grad():
        for block in encoder.blocks:  # as they begin, biases and projections are too small for anything to matter
            block.gate_value_query_key.weight *= 40
            block.time_K.copy_(torch.linspace(-2, 2, BUCKETS))
            block.position_P.copy_(torch.linspace(-1, 1, MAX_HISTORY + 1))
    return encoder


def histories(lengths: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Vectors of each user's events, and times of the events and of the request, hours apart."""
    generator = torch.Generator().manual_seed(5)
    vectors = [torch.randn(length, D, generator=generator) for length in lengths]
    gaps = [torch.randint(1, 3 * HOUR * 1000, (length + 1,), generator=generator) for length in lengths]
    return vectors, [1_700_000_000_000 + gap.cumsum(0) for gap in gaps]


def encode(encoder: HSTUEncoder, users: list[Tensor], times: list[Tensor]) -> list[Tensor]:
    """The hidden states of each user, the start token's first."""
    length_B = torch.tensor([len(user) for user in users])
    return list(encoder(torch.cat(users), length_B, torch.cat(times)).split((length_B + 1).tolist()))


def test_pointwise_attention_by_hand() -> None:
    """SiLU(1) = 1 / (1 + exp(-1)) = 0.7311; over n = 4 that is 0.1828 for each token seen."""
    one = torch.ones(1, 1, 2, 1)
    mixed = pointwise_attention(one, one, one, torch.zeros(2), torch.zeros(3), torch.zeros(1, 2, 2, dtype=torch.int32), 4)
    torch.testing.assert_close(mixed.flatten(), torch.tensor([0.1828, 0.3655]), atol=5e-5, rtol=0)


def test_biases_are_of_the_pair_by_hand() -> None:
    """Query and key 0, so the biases alone are the score. SiLU(1) = 0.7311, SiLU(2) = 1.7616, SiLU(3) = 2.8577."""
    zero, value = torch.zeros(1, 1, 2, 1), torch.tensor([1.0, 10.0]).view(1, 1, 2, 1)
    position_P, time_K = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])  # of the token itself, of the one before it
    bucket_BLL = torch.tensor([[[0, 0], [1, 0]]], dtype=torch.int32)
    mixed = pointwise_attention(zero, zero, value, position_P, time_K, bucket_BLL, 1)
    torch.testing.assert_close(mixed.flatten(), torch.tensor([0.7311, 2.8577 + 7.3106]), atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0, 0), (1, 0), (2, 2), (60, 13), (HOUR, 27), (DAY, 37), (30 * DAY, 49), (10**14, 107)]
)
def test_buckets_of_elapsed_time_by_hand(seconds: int, bucket: int) -> None:
    """floor(ln(seconds) / 0.301): ln 60 = 4.094 is 13.6 buckets."""
    first = 1_700_000_000_123 if seconds < 10**9 else 0
    found = elapsed_buckets(torch.tensor([[first, first + 1000 * seconds]]), knows_request=True)
    assert found[0, 1, 0] == bucket  # the second token predicts that late; the first held an event of `first`
    assert found.max() < BUCKETS


def test_a_query_counts_from_the_event_it_predicts_a_key_from_the_one_it_holds() -> None:
    """Events at 0, 1 minute and 1 hour, the request after a day: tokens start, first and second predict the next of them."""
    time_BL = torch.tensor([[0, 60_000, HOUR * 1000, DAY * 1000]])
    found = elapsed_buckets(time_BL, knows_request=True)[0].tril()
    # keys are of 0 (the start token counts as of the first event), 0, 60 s and 3600 s
    expected = [[0, 0, 0, 0], [13, 13, 0, 0], [27, 27, 27, 0], [37, 37, 37, 37]]  # ln 3540, 86340 and 82800 are as those
    assert found.tolist() == expected
    own = elapsed_buckets(time_BL, knows_request=False)[0].tril()
    assert own.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [13, 13, 0, 0], [27, 27, 27, 0]]


def reference(
    query: Tensor, key: Tensor, value: Tensor, position_P: Tensor, time_K: Tensor, bucket: Tensor, scale: int
) -> Tensor:
    """One pair of tokens at a time."""
    rows = []
    for i in range(query.shape[2]):
        row = torch.zeros_like(value[:, :, 0])
        for j in range(i + 1):
            score_BH = (query[:, :, i] * key[:, :, j]).sum(-1) + position_P[i - j] + time_K[bucket[:, i, j].long()][:, None]
            row = row + (score_BH * score_BH.sigmoid() / scale)[..., None] * value[:, :, j]
        rows.append(row)
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("chunk", [1, 2 * 2 * 5 * 5, 10**6])
def test_the_backward_pass_by_hand_equals_autograd(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of one row, of two and an odd one left, and of all."""
    monkeypatch.setattr(attention, "CHUNK_SCORES", chunk)
    generator = torch.Generator().manual_seed(3)
    given = [torch.randn(5, 2, 5, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    given += [torch.randn(size, generator=generator, dtype=torch.float64) for size in (7, 6)]
    bucket_BLL = torch.randint(0, 6, (5, 5, 5), generator=generator, dtype=torch.int32)
    weight = torch.randn(5, 2, 5, 3, generator=generator, dtype=torch.float64)
    found = []
    for function in (pointwise_attention, reference):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        mixed = function(*leaves, bucket_BLL, 4)
        found.append([mixed.detach(), *torch.autograd.grad((mixed * weight).sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


def test_the_exported_form_equals_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build()
    users, times = histories([MAX_HISTORY, 2])
    trained = encode(encoder, users, times)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    for ours, theirs in zip(encode(encoder, users, times), trained, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_later_event_changes_no_earlier_state() -> None:
    encoder, (users, times) = build(), histories([5, 3])
    changed = [users[0].clone(), users[1]]
    changed[0][3] *= -2
    before, after = encode(encoder, users, times), encode(encoder, changed, times)
    torch.testing.assert_close(before[0][:4], after[0][:4], rtol=0, atol=0)  # start token and events 0 to 2
    assert ((before[0][4:] - after[0][4:]).abs().amax(dim=1) > 1e-3).all()
    torch.testing.assert_close(before[1], after[1], rtol=0, atol=0)


@pytest.mark.parametrize(("query_time", "first_changed"), [("request", 3), ("last_event", 4)])
def test_a_later_time_changes_no_earlier_state(query_time: str, first_changed: int) -> None:
    """Token 3 predicts event 3 and may know when that is; with `last_event` only tokens that hold it know."""
    encoder, (users, times) = build(query_time=query_time), histories([5, 3])
    later = [times[0].clone(), times[1]]
    later[0][3:] += 40 * DAY * 1000
    before, after = encode(encoder, users, times), encode(encoder, users, later)
    torch.testing.assert_close(before[0][:first_changed], after[0][:first_changed], rtol=0, atol=0)
    assert ((before[0][first_changed:] - after[0][first_changed:]).abs().amax(dim=1) > 1e-4).all()


def test_the_time_of_the_request_counts_unless_the_model_must_not_know_it() -> None:
    users, times = histories([4])
    asked_later = [torch.cat([times[0][:-1], times[0][-1:] + 30 * DAY * 1000])]
    knows, ignores = build(), build(query_time="last_event")
    assert (encode(knows, users, times)[0][-1] - encode(knows, users, asked_later)[0][-1]).abs().max() > 1e-3
    torch.testing.assert_close(encode(ignores, users, times)[0], encode(ignores, users, asked_later)[0], rtol=0, atol=0)


def test_only_differences_of_times_count() -> None:
    encoder, (users, times) = build(), histories([4, 2])
    shifted = [time + 10**12 for time in times]
    for one, other in zip(encode(encoder, users, times), encode(encoder, users, shifted), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("lengths", [[0, 1, MAX_HISTORY, 3], [0], [0, 0], [MAX_HISTORY]])
def test_jagged_equals_padded_whatever_the_padding_holds(lengths: list[int]) -> None:
    encoder, (users, times) = build(), histories(lengths)
    jagged_BD = torch.stack([states[-1] for states in encode(encoder, users, times)])
    for columns in {max(1, *lengths), MAX_HISTORY}:
        padded_BLD = pad_sequence([*users, torch.zeros(columns, D)], batch_first=True, padding_value=9.0)[:-1]
        filler = torch.zeros(columns + 1, dtype=torch.int64)
        time_BM = pad_sequence([*times, filler], batch_first=True, padding_value=10**15)[:-1]
        found = encoder.encode_padded(padded_BLD, torch.tensor(lengths), time_BM)
        torch.testing.assert_close(found, jagged_BD, atol=1e-5, rtol=1e-5)


def test_company_in_the_batch_does_not_change_a_user() -> None:
    encoder, (users, times) = build(), histories([2, MAX_HISTORY, 0, 4])
    for user, time, states in zip(users, times, encode(encoder, users, times), strict=True):
        torch.testing.assert_close(encode(encoder, [user], [time])[0], states, atol=1e-5, rtol=1e-5)


def test_an_empty_history_depends_on_the_start_token_alone() -> None:
    encoder, (users, times) = build(), histories([0, 3, 0])
    states = encode(encoder, users, times)
    torch.testing.assert_close(states[0], states[2], atol=1e-6, rtol=1e-6)  # at different times
    with torch.no_grad():
        encoder.start += torch.arange(D)
    assert not torch.allclose(encode(encoder, users[:1], times[:1])[0], states[0])


def test_gradient_reaches_every_parameter() -> None:
    encoder, (users, times) = build().train(), histories([MAX_HISTORY, 0, 2])
    torch.cat(encode(encoder, users, times)).mul(torch.arange(D)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert (encoder.place.grad != 0).any(dim=1).all(), "a place no history reaches"


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_has_gradients(half: torch.dtype) -> None:
    encoder, (users, times) = build(), histories([MAX_HISTORY, 0, 2])
    exact = torch.cat(encode(encoder, users, times))
    with torch.autocast("cpu", half):
        rough = torch.cat(encode(encoder, users, times))
    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()
    rough.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


def test_width_must_divide_by_heads() -> None:
    with pytest.raises(ValueError, match="dim 8 is not divisible by heads 3"):
        HSTU(dim=8, heads=3)
