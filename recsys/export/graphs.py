"""Write the serving forms as ONNX graphs (opset 20).

Shapes: B = requests, L = history, E = excluded, K = items returned, C = candidates, F = context features, T = tasks,
P = point-in-time features.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from recsys.generate.generator import GenerationGraph
from recsys.models.ranker import RankingGraph
from recsys.models.retriever import RetrievalGraph

OPSET = 20


def export_candidates(graph: RetrievalGraph | GenerationGraph, max_history: int, path: Path) -> None:
    """Either graph that finds items, alike from outside. Inputs history (B, L), length (B), exclude (B, E) and, for an encoder
    that reads time, time (B, L + 1) in milliseconds; outputs item (B, K), score (B, K). Ids are 64-bit, 0 pads."""
    history_BL, length_B, columns = _history(max_history)
    batch, excluded = Dim("batch", min=1), Dim("excluded", min=1)
    inputs: dict[str, tuple[Tensor, Mapping[int, Any]]] = {
        "history": (history_BL, {0: batch, **columns}),
        "length": (length_B, {0: batch}),
        "exclude": (torch.zeros(2, 2, dtype=torch.int64), {0: batch, 1: excluded}),
    }
    if graph.encoder.reads_time:
        time_BM = torch.arange(2 * (history_BL.shape[1] + 1)).view(2, -1) * 1000
        inputs["time"] = (time_BM, {0: batch, **({1: columns[1] + 1} if columns else {})})
    sample, shapes = zip(*inputs.values(), strict=True)
    _export(graph, sample, list(inputs), ["item", "score"], shapes, path)


def export_ranking(graph: RankingGraph, max_history: int, num_context: int, path: Path) -> None:
    """Inputs user (B), history (B, L), length (B), item (B, C), with context features context (B, F), where behaviours are read
    behaviour (B, L), with point-in-time features dense (B, C, P) in 32-bit floats; output probability (B, C, T), which holds
    the number itself for a regression task."""
    batch, candidates = Dim("batch", min=1), Dim("candidates", min=1)
    history_BL, length_B, columns = _history(max_history)
    num_dense = len(graph.design.dense)
    inputs: dict[str, tuple[Tensor | None, Mapping[int, Dim] | None]] = {
        "user": (torch.ones(2, dtype=torch.int64), {0: batch}),
        "history": (history_BL, {0: batch, **columns}),
        "length": (length_B, {0: batch}),
        "item": (torch.ones(2, 4, dtype=torch.int64), {0: batch, 1: candidates}),
        "context": (torch.ones(2, num_context, dtype=torch.int64), {0: batch}) if num_context else (None, None),
        "behaviour": (torch.ones_like(history_BL), {0: batch, **columns}) if graph.reads_behaviours else (None, None),
        "dense": (torch.ones(2, 4, num_dense), {0: batch, 1: candidates}) if num_dense else (None, None),
    }
    names = [name for name, (sample, _) in inputs.items() if sample is not None]
    samples, shapes = zip(*inputs.values(), strict=True)
    _export(graph, samples, names, ["probability"], shapes, path)


def _history(max_history: int) -> tuple[Tensor, Tensor, dict[int, Dim]]:
    """A sample history_BL, its length_B, and the free dimension of its columns; a history of at most one event has none."""
    columns = min(3, max_history)
    free = {1: Dim("length", min=1, max=max_history)} if max_history > 1 else {}
    return torch.ones(2, columns, dtype=torch.int64), torch.full((2,), columns), free


def _export(
    graph: nn.Module,
    sample: tuple[Tensor | None, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Mapping[int, Dim] | None, ...],
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
