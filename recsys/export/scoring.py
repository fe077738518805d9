"""Where in an exported retrieval graph the items are scored, for what is changed there afterwards.

Shapes: I = rows of the item table, D = width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx
from onnx import helper, numpy_helper

SCORED = "scored_items"


@dataclass(frozen=True)
class Scoring:
    """user (B, D) x table (D, I) = scores (B, I), of which `top_k` takes the best."""

    top_k: onnx.NodeProto
    product: onnx.NodeProto

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Self:
        """Back from the only TopK along first inputs, through masks, to the product with a constant."""
        makes = {name: node for node in model.graph.node for name in node.output}
        top_k = makes["score"]
        assert top_k.op_type == "TopK", f"scores come from {top_k.op_type}"
        node = makes[top_k.input[0]]
        while node.op_type != "MatMul":
            node = makes[node.input[2 if node.op_type == "Where" else 0]]  # Where(reserved, -inf, scores)
        return cls(top_k, node)

    @property
    def user(self) -> str:
        return str(self.product.input[0])

    @property
    def table(self) -> str:
        return str(self.product.input[1])

    def width(self, model: onnx.ModelProto) -> int:
        """D, of a graph that `share_table` was applied to."""
        [table] = [tensor for tensor in model.graph.initializer if tensor.name == SCORED]
        return int(table.dims[1])

    @property
    def scores(self) -> str:
        return str(self.product.output[0])


def share_table(model: onnx.ModelProto) -> None:
    """Write the item table once where the exporter wrote it twice: as the history reads it, and turned, as it is scored.

    The table (I, D) that is scored is `scored_items` in the end, and that which is read is, too, if they are the same.
    """
    found = Scoring.of(model)
    by_name = {tensor.name: tensor for tensor in model.graph.initializer}
    turned = by_name.get(found.table)
    if turned is None:  # the exporter left a Transpose in the graph
        [node] = [node for node in model.graph.node if found.table in node.output]
        assert node.op_type == "Transpose", f"the item table comes from {node.op_type}"
        scored_ID = numpy_helper.to_array(by_name[node.input[0]])
    else:
        scored_ID = np.ascontiguousarray(numpy_helper.to_array(turned).T)
    same = [
        name
        for name, tensor in by_name.items()
        if list(tensor.dims) == list(scored_ID.shape) and np.array_equal(numpy_helper.to_array(tensor), scored_ID)
    ]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in same:
                node.input[place] = SCORED
    model.graph.initializer.append(numpy_helper.from_array(scored_ID, SCORED))
    found.product.input[1] = "turned_items"
    insert(model, found.product, [helper.make_node("Transpose", [SCORED], ["turned_items"], perm=[1, 0])])
    remove_unused(model)


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop nodes and constants that no output needs."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
    for entries, names in (
        (graph.node, lambda node: set(node.output)),
        (graph.initializer, lambda tensor: {tensor.name}),
        (graph.value_info, lambda info: {info.name}),
    ):
        for place in range(len(entries) - 1, -1, -1):
            if not needed & names(entries[place]):
                del entries[place]


def insert(model: onnx.ModelProto, beside: onnx.NodeProto, nodes: Sequence[onnx.NodeProto], *, after: bool = False) -> None:
    """Nodes in their order before (or after) another one."""
    place = _place(model, beside) + after
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def replace(model: onnx.ModelProto, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Nodes where another one stood."""
    insert(model, node, nodes, after=True)
    del model.graph.node[_place(model, node)]


def _place(model: onnx.ModelProto, node: onnx.NodeProto) -> int:
    return next(place for place, each in enumerate(model.graph.node) if each.output[0] == node.output[0])
