"""Shapes: B = examples, T = tasks."""

import pytest
import torch
from pydantic import ValidationError

from recsys.heads.regression import Regression

NAN = float("nan")


def test_hand_worked_numbers() -> None:
    # Errors 1, -2 and 5. Huber with delta 2: half of 1, half of 4, then 2 * (5 - 1) = 8. Squared: 1, 4 and 25.
    predicted_BT, label_BT = torch.tensor([[1.0], [0.0], [9.0]]), torch.tensor([[0.0], [2.0], [4.0]])
    assert Regression(delta=2)(predicted_BT, label_BT)[0].flatten().tolist() == [0.5, 2, 8]
    assert Regression(loss="squared")(predicted_BT, label_BT)[0].flatten().tolist() == [1, 4, 25]


@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_a_label_that_does_not_exist_has_no_loss_and_no_gradient(loss: str) -> None:
    predicted_BT = torch.tensor([[3.0, -2.0], [1e30, 4.0]], requires_grad=True)
    loss_BT, exists_BT = Regression(loss=loss)(predicted_BT, torch.tensor([[NAN, 1.0], [NAN, NAN]]))
    loss_BT.sum().backward()
    assert exists_BT.tolist() == [[False, True], [False, False]]
    assert (loss_BT.detach() != 0).tolist() == exists_BT.tolist()
    assert (predicted_BT.grad != 0).tolist() == exists_BT.tolist()


def test_the_unit_of_the_label_does_not_matter_when_delta_goes_with_it() -> None:
    """Seconds or minutes: predictions, labels and delta times 60 give 3600 times the loss."""
    torch.manual_seed(0)
    predicted_BT, label_BT = torch.randn(50, 2) * 3, torch.randn(50, 2)
    minutes_BT, _ = Regression(delta=1.5)(predicted_BT, label_BT)
    seconds_BT, _ = Regression(delta=90)(predicted_BT * 60, label_BT * 60)
    torch.testing.assert_close(seconds_BT, minutes_BT * 3600)


def test_delta_is_positive() -> None:
    with pytest.raises(ValidationError, match="delta"):
        Regression(delta=0)
