"""Shapes: W = width."""

import pytest
import torch
from pydantic import ValidationError

from recsys.models.dcn_v2 import DCNV2


def test_two_layers_by_hand() -> None:
    # W swaps, b = [1, 0], x0 = [1, 2]. First layer: [1, 2] * ([2, 1] + [1, 0]) + [1, 2] = [4, 4];
    # second: [1, 2] * ([4, 4] + [1, 0]) + [4, 4] = [9, 12].
    module = DCNV2(layers=2).build(2)
    with torch.no_grad():
        for layer in module.layers:
            layer.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
            layer.bias.copy_(torch.tensor([1.0, 0.0]))
    assert module(torch.tensor([1.0, 2.0])).tolist() == [9, 12]


def test_low_rank_is_the_product_of_two_thin_matrices() -> None:
    torch.manual_seed(0)
    full, thin = DCNV2(layers=1).build(6), DCNV2(layers=1, rank=2).build(6)
    down, up = thin.layers[0]
    with torch.no_grad():
        full.layers[0].weight.copy_(up.weight @ down.weight)
        full.layers[0].bias.copy_(up.bias)
    x_BW = torch.randn(5, 6)
    torch.testing.assert_close(thin(x_BW), full(x_BW))
    assert sum(p.numel() for p in thin.parameters()) == 2 * 6 + 6 * 2 + 6


def test_each_layer_raises_the_degree_by_one() -> None:
    """Without biases a cross of l layers is a polynomial of degree l + 1: its (l + 2)nd finite difference is zero."""
    torch.manual_seed(0)
    module = DCNV2(layers=2).build(3).double()
    with torch.no_grad():
        for layer in module.layers:
            layer.bias.zero_()
    x_W = torch.randn(3, dtype=torch.float64)
    along = torch.stack([module(k * x_W) for k in range(1, 7)])
    assert along.diff(n=4, dim=0).abs().max() < 1e-9
    assert along.diff(n=3, dim=0).abs().max() > 1e-3


def test_rank_zero_is_refused() -> None:
    with pytest.raises(ValidationError, match="rank"):
        DCNV2(rank=0)
