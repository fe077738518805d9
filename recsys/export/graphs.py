"""Write the serving forms as ONNX graphs (opset 20). Shapes: B = requests, L = history, E = excluded, C = candidates, F = context."""

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
    sample = (torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 2]), torch.zeros(2, 2, dtype=torch.int64))
    batch, length, excluded = Dim("batch", min=1), Dim("length", min=1, max=max_history), Dim("excluded", min=1)
    shapes = ({0: batch, 1: length}, {0: batch}, {0: batch, 1: excluded})
    _export(graph, sample, ["history", "length", "exclude"], ["item", "score"], shapes, path)


def export_ranking(graph: RankingGraph, max_history: int, num_context: int, path: Path) -> None:
    """Inputs user (B), history (B, L), length (B), item (B, C) and, with context features, context (B, F);
    output probability (B, C, T)."""
    batch, length, candidates = Dim("batch", min=1), Dim("length", min=1, max=max_history), Dim("candidates", min=1)
    ones = torch.ones(2, 3, dtype=torch.int64)
    inputs: dict[str, tuple[Tensor, Mapping[int, Dim]]] = {
        "user": (torch.ones(2, dtype=torch.int64), {0: batch}),
        "history": (ones, {0: batch, 1: length}),
        "length": (torch.tensor([3, 2]), {0: batch}),
        "item": (torch.ones(2, 4, dtype=torch.int64), {0: batch, 1: candidates}),
    }
    if num_context:
        inputs["context"] = (torch.ones(2, num_context, dtype=torch.int64), {0: batch})
    sample, shapes = zip(*inputs.values(), strict=True)
    _export(graph, sample, list(inputs), ["probability"], shapes, path)


def _export(
    graph: nn.Module, sample: tuple[Tensor, ...], inputs: list[str], outputs: list[str], shapes: tuple[Mapping[int, Dim], ...], path: Path
) -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), sample, path, dynamo=True, opset_version=OPSET, input_names=inputs, output_names=outputs,
            dynamic_shapes=shapes, external_data=False, verbose=False,
        )  # fmt: skip
