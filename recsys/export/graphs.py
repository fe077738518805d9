"""Write the serving forms as ONNX graphs (opset 20).

Shapes: B = requests, L = history, E = excluded, K = items returned, C = candidates, F = context features, T = tasks.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from recsys.models.ranker import RankingGraph
from recsys.models.retriever import RetrievalGraph

OPSET = 20


def export_retrieval(graph: RetrievalGraph, max_history: int, path: Path) -> None:
    """Inputs history (B, L), length (B), exclude (B, E); outputs item (B, K), score (B, K). Ids are 64-bit, 0 pads."""
    history_BL, length_B, columns = _history(max_history)
    batch, excluded = Dim("batch", min=1), Dim("excluded", min=1)
    sample = (history_BL, length_B, torch.zeros(2, 2, dtype=torch.int64))
    shapes = ({0: batch, **columns}, {0: batch}, {0: batch, 1: excluded})
    _export(graph, sample, ["history", "length", "exclude"], ["item", "score"], shapes, path)


def export_ranking(graph: RankingGraph, max_history: int, num_context: int, path: Path) -> None:
    """Inputs user (B), history (B, L), length (B), item (B, C) and, with context features, context (B, F);
    output probability (B, C, T)."""
    batch, candidates = Dim("batch", min=1), Dim("candidates", min=1)
    history_BL, length_B, columns = _history(max_history)
    inputs: dict[str, tuple[Tensor, Mapping[int, Dim]]] = {
        "user": (torch.ones(2, dtype=torch.int64), {0: batch}),
        "history": (history_BL, {0: batch, **columns}),
        "length": (length_B, {0: batch}),
        "item": (torch.ones(2, 4, dtype=torch.int64), {0: batch, 1: candidates}),
    }
    if num_context:
        inputs["context"] = (torch.ones(2, num_context, dtype=torch.int64), {0: batch})
    sample, shapes = zip(*inputs.values(), strict=True)
    _export(graph, sample, list(inputs), ["probability"], shapes, path)


def _history(max_history: int) -> tuple[Tensor, Tensor, dict[int, Dim]]:
    """A sample history_BL, its length_B, and the free dimension of its columns; a history of at most one event has none."""
    columns = min(3, max_history)
    free = {1: Dim("length", min=1, max=max_history)} if max_history > 1 else {}
    return torch.ones(2, columns, dtype=torch.int64), torch.full((2,), columns), free


def _export(
    graph: nn.Module,
    sample: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Mapping[int, Dim], ...],
    path: Path,
) -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), sample, path, dynamo=True, opset_version=OPSET, input_names=inputs, output_names=outputs,
            dynamic_shapes=shapes, external_data=False, verbose=False,
        )  # fmt: skip
