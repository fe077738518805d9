"""What objectives of logged actions share. Shapes: B = prompts, G = candidates."""

import torch
from torch import Tensor

from recsys.policy.group import Group


def require_propensities(group: Group) -> Tensor:
    """propensity_B, or a ValueError: an action that its policy never takes cannot be in its log."""
    if group.propensity_B is None:
        raise ValueError(
            "behaviour: logged needs the propensity of every logged action; take behaviour: parent or none instead"
        )
    propensity_B = group.propensity_B.detach()
    wrong_B = ~((propensity_B > 0) & (propensity_B <= 1))
    if bool(wrong_B.any()):
        raise ValueError(
            f"a propensity of a logged action is {propensity_B[wrong_B][0].item():g}; it has to be above 0 and at most 1: "
            "leave such rows out of the log, or take behaviour: parent or none"
        )
    return propensity_B


def effective_share(weight_B: Tensor, counted_B: Tensor) -> Tensor:
    """(sum w)² / sum w² as a share of the rows that count: near 0, a few rows carry the loss."""
    weight_B = weight_B.detach() * counted_B
    least = torch.finfo(weight_B.dtype).tiny
    return weight_B.sum().square() / (counted_B.sum() * weight_B.square().sum()).clamp(min=least)
