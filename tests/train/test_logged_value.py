"""What a policy would have earned on the log's rows. Shapes: B = rows, L = history, G = candidates, M = L + 1."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.batch import Batch, Ids
from recsys.policy.rewards.task import Task
from recsys.train.policy_validation import logged_value
from recsys.train.proposing import Rewarder

CLICK = Rewarder((Task(task="click"),), ("click",))
# history, request's time, item, click, chance of the log: two pages of one prompt, another time, another history, none
ROWS = [
    ([3, 4], 9, 5, 1.0, 0.5), ([3, 4], 9, 6, 0.0, 0.25), ([3, 4], 9, 5, 1.0, 0.5), ([3, 4], 11, 5, 0.0, 0.5),
    ([4, 3], 11, 6, 1.0, 0.125), ([], 11, 7, 1.0, 0.25), ([], 11, 5, 0.0, 0.5), ([3, 4], 9, 7, 1.0, 0.125),
]  # fmt: skip


class Told:
    """A chance made of everything a prompt says; counts the prompts it is given."""

    def __init__(self, shift: float = 0.0):
        self.shift, self.prompts = shift, 0

    def chance(self, history: list[int], time: int, item: int) -> float:
        told = sum(place * each for place, each in enumerate(history, 1)) + time + 2 * item + self.shift
        return 0.02 + 0.9 * (told % 7) / 7

    def log_probs(self, history_BL: Tensor, length_B: Tensor, item_BG: Tensor, time_BM: Tensor | None = None) -> Tensor:
        self.prompts += len(history_BL)
        found = torch.zeros(*item_BG.shape, 2)
        for row, length in enumerate(length_B.tolist()):
            time = 0 if time_BM is None else int(time_BM[row, length])
            for column, item in enumerate(item_BG[row].tolist()):
                if item:
                    found[row, column] = np.log(self.chance(history_BL[row, :length].tolist(), time, item)) / 2
        return found


def batches(*, size: int, times: bool, propensities: bool) -> Iterator[Batch]:
    for begin in range(0, len(ROWS), size):
        rows = ROWS[begin : begin + size]
        histories, times_B, item_B, click_B, chance_B = (list(column) for column in zip(*rows, strict=True))
        length_B = torch.tensor([len(history) for history in histories])
        ids = {"history": Ids(torch.tensor([item for history in histories for item in history], dtype=torch.int64), length_B)}
        ids["item"] = Ids(torch.tensor(item_B), torch.ones_like(length_B))
        ids["seen"] = Ids(torch.empty(0, dtype=torch.int64), torch.zeros_like(length_B))
        if times:
            past = [[*range(len(history)), time] for history, time in zip(histories, times_B, strict=True)]
            ids["time"] = Ids(torch.tensor([each for times_M in past for each in times_M]), length_B + 1)
        yield Batch(
            ids, label_BT=torch.tensor(click_B)[:, None],
            propensity_B=torch.tensor(chance_B) if propensities else torch.empty(0),
        )  # fmt: skip


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("propensities", [True, False])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_rows_count_by_how_much_likelier_they_are(size: int, propensities: bool, times: bool) -> None:
    graph, parent = Told(), Told(shift=3.0)
    found = logged_value(graph, parent, CLICK, batches(size=size, times=times, propensities=propensities))
    asked: list[Any] = [(history, time if times else 0, item) for history, time, item, _, _ in ROWS]
    before_N = [chance for *_, chance in ROWS] if propensities else [parent.chance(*each) for each in asked]
    weight_N = np.array([graph.chance(*each) for each in asked]) / np.array(before_N)
    assert found == pytest.approx(float(weight_N @ [click for *_, click, _ in ROWS] / weight_N.sum()), rel=1e-5)
    assert parent.prompts == (0 if propensities else graph.prompts)
    if size == 8:
        assert graph.prompts == (5 if times else 4), "a prompt is read once where its rows stand together"


def test_no_rows_have_no_value() -> None:
    assert np.isnan(logged_value(Told(), Told(), CLICK, []))
