"""Shapes: recsys/models/dtrn.py."""

from dataclasses import replace

import pytest
import torch
from ranker_cases import DIM, FIELDS, TASKS, ranker_inputs
from torch import Tensor

from recsys.models.dtrn import DTRN, TaskInterest, TaskRefinement
from recsys.models.ranker_inputs import RankerInputs


def interest(*, modulated: bool) -> TaskInterest:
    torch.manual_seed(0)
    module = TaskInterest(DTRN(), DIM, len(TASKS))
    if modulated:
        torch.nn.init.normal_(module.generated.weight, std=0.5)
        torch.nn.init.normal_(module.generated.bias, std=0.5)
    return module


def test_refinement_by_hand() -> None:
    # Fields [1, 3] and [2, 2] have means 2 and 2. The squeeze adds them to 4, gates sigmoid(0 * 4) = .5 and sigmoid(5 * 4) = 1.
    module = TaskRefinement(1, 2, reduction=2)
    with torch.no_grad():
        module.squeeze.weight_TIO.fill_(1)
        module.excite.weight_TIO.copy_(torch.tensor([[[0.0, 5.0]]]))
        module.squeeze.bias_TO.zero_()
        module.excite.bias_TO.zero_()
    refined = module(torch.tensor([[1.0, 3.0], [2.0, 2.0]])[None, None, None])
    torch.testing.assert_close(refined[0, 0, 0], torch.tensor([[0.5, 1.5], [2.0, 2.0]]))


def test_tasks_start_with_the_same_interests_and_then_part() -> None:
    inputs = ranker_inputs()
    start_BCTKD, later_BCTKD = interest(modulated=False)(inputs), interest(modulated=True)(inputs)
    assert start_BCTKD.shape == (4, 3, len(TASKS), len(TASKS) + 1, DIM)
    torch.testing.assert_close(start_BCTKD, start_BCTKD[:, :, :1].expand_as(start_BCTKD))
    assert not torch.allclose(later_BCTKD[:, :, 0], later_BCTKD[:, :, 1])


def attended(module: TaskInterest, item_D: Tensor, event_ND: Tensor, task: int, behaviour: int) -> Tensor:
    """One candidate, task and behaviour with its events alone: scale and shift on the events, as the formula has it."""
    scale_D, shift_D, feed_scale_D, feed_shift_D = (each[task, behaviour] for each in module._modulation())
    changed_ND = scale_D * module.norm_event(event_ND) + shift_D
    query_AD = module.query(module.norm_item(item_D)).view(module.heads, DIM)
    weight_AN = (query_AD @ changed_ND.T * DIM**-0.5).softmax(-1)
    mixed_D = module.out((weight_AN @ changed_ND).flatten())
    return mixed_D + module.feed(feed_scale_D * module.norm_feed(mixed_D) + feed_shift_D)


def test_reading_the_history_once_equals_reading_it_for_every_task_and_behaviour() -> None:
    module, inputs = interest(modulated=True), ranker_inputs()
    found_BCTKD = module(inputs)
    row, length = 1, int(inputs.inside_BL[1].sum())
    event_LD, mask_L = inputs.history_BLD[row, :length], inputs.behaviour_BL[row, :length]
    for k in range(len(TASKS) + 1):
        mine_L = torch.ones(length, dtype=torch.bool) if k == 0 else (mask_L >> (k - 1)) % 2 == 1
        assert mine_L.any()
        for t in range(len(TASKS)):
            expected_D = attended(module, inputs.item_BCD[row, 2], event_LD[mine_L], t, k)
            torch.testing.assert_close(found_BCTKD[row, 2, t, k], expected_D, atol=1e-5, rtol=1e-4)


def changed(inputs: RankerInputs, mask: int) -> Tensor:
    """Which behaviours see a change of the second user's first event, whose mask this is."""
    module = interest(modulated=True)
    behaviour_BL = inputs.behaviour_BL.clone()
    behaviour_BL[1, 0] = mask
    history_BLD = inputs.history_BLD.clone()
    history_BLD[1, 0] += torch.linspace(-2, 2, DIM)
    before = module(replace(inputs, behaviour_BL=behaviour_BL))
    after = module(replace(inputs, behaviour_BL=behaviour_BL, history_BLD=history_BLD))
    return (before[1] != after[1]).any(dim=-1).flatten(0, 1).any(dim=0)


@pytest.mark.parametrize(
    ("mask", "seen"), [(0b000, [1, 0, 0, 0]), (0b001, [1, 1, 0, 0]), (0b110, [1, 0, 1, 1]), (0b111, [1, 1, 1, 1])]
)
def test_a_behaviour_reads_its_own_events(mask: int, seen: list[int]) -> None:
    assert changed(ranker_inputs(), mask).int().tolist() == seen


def test_a_user_without_one_behaviour_is_finite() -> None:
    inputs = ranker_inputs()
    module = interest(modulated=True)
    logits = module(replace(inputs, behaviour_BL=torch.zeros_like(inputs.behaviour_BL)))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_more_tasks_than_a_mask_has_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 62 tasks, not 63"):
        DTRN().build(FIELDS, DIM, [f"task{t}" for t in range(63)])
