"""The files that retrieval is served from: one graph that scores all items, or one that gives the vector of a request."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from recsys.export.bias import add_bias
from recsys.export.graphs import export_candidates
from recsys.export.scoring import Scoring, remove_unused, share_table
from recsys.export.tables import Table, shrink
from recsys.models.retriever import RetrievalGraph

USER = "user"  # output of the graph of requests


def export_retrieval(graph: RetrievalGraph, max_history: int, num_items: int, path: Path) -> None:
    """`export_candidates`, with an input `bias` and each item table written once."""
    export_candidates(graph, max_history, path)
    model = onnx.load(path)
    add_bias(model, num_items)
    share_table(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def shrink_file(path: Path, kind: Table, num_items: int) -> None:
    """Write what `export_retrieval` wrote again with smaller tables."""
    if kind != "float32":
        model = onnx.load(path)
        shrink(model, kind, num_items)
        onnx.save(model, path)


def split_query(path: Path, query: Path, kind: Table, num_items: int) -> None:
    """From what `export_retrieval` wrote, a graph that stops at the vector: output `user` (B, D) as it is scored."""
    model = onnx.load(path)
    found = Scoring.of(model)
    width = found.width(model)
    model.graph.node.append(helper.make_node("Identity", [found.user], [USER]))
    model.graph.ClearField("output")
    model.graph.output.append(helper.make_tensor_value_info(USER, TensorProto.FLOAT, ["batch", width]))
    remove_unused(model)
    kept = {name for node in model.graph.node for name in node.input}
    inputs = [entry for entry in model.graph.input if entry.name in kept]
    model.graph.ClearField("input")
    model.graph.input.extend(inputs)
    shrink(model, kind, num_items)
    onnx.checker.check_model(model)
    onnx.save(model, query)
