"""A retrieval graph whose item table takes fewer bytes.

Shapes: B = requests, I = rows of the item table, D = width, K = items returned, S = items of the shortlist.
"""

import math
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from recsys.export.scoring import SCORED, Scoring, insert, remove_unused, replace

Table = Literal["float32", "float16", "int8"]
SHORTLIST = 1.25  # times the items returned: how many are scored again


def shrink(model: onnx.ModelProto, kind: Table, num_items: int) -> None:
    """Store the tables (I, D) of a graph that `share_table` and `add_bias` were applied to as `kind`; it may be without scores.

    float16 is for disk: rows are read as such, but a CPU has no product of it, so ONNX Runtime makes float32 of what is scored
    when it opens the graph. int8: each row over its own scale, which is its largest number over 127; all items are scored in
    whole numbers, the best SHORTLIST x K again with the user's vector as it is, so that only the table is rounded.
    """
    if kind == "float32":
        return
    tables = [
        t for t in model.graph.initializer if len(t.dims) == 2 and t.dims[0] == num_items and t.data_type == TensorProto.FLOAT
    ]
    if kind == "int8" and any("score" in node.output for node in model.graph.node):
        _score_in_int8(model, num_items)
    for tensor in tables:
        values_ID = numpy_helper.to_array(tensor)
        readers = [node for node in model.graph.node if tensor.name in node.input]
        for node in readers:
            if kind == "float16":
                _read_float16(model, node)
            elif node.op_type in ("Gather", "GatherND"):
                _read_int8(model, node, tensor.name)
        if kind == "float16":
            tensor.CopyFrom(numpy_helper.from_array(values_ID.astype(np.float16), tensor.name))
        else:
            row_ID, scale_I = quantised(values_ID)
            tensor.CopyFrom(numpy_helper.from_array(row_ID, tensor.name))
            model.graph.initializer.append(numpy_helper.from_array(scale_I[:, None], f"{tensor.name}_scale"))
    if kind == "int8":
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    remove_unused(model)


def quantised(values_ID: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """row_ID (int8) and scale_I with values = row x scale, to half a scale."""
    scale_I = np.maximum(np.abs(values_ID).max(axis=1), np.finfo(np.float32).tiny * 127).astype(np.float32) / 127
    return np.rint(values_ID / scale_I[:, None]).astype(np.int8), scale_I


def _read_float16(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """What the node gives, as float32 under its old name."""
    [name] = node.output
    node.output[0] = f"{name}_float16"
    insert(model, node, [helper.make_node("Cast", [f"{name}_float16"], [name], to=TensorProto.FLOAT)], after=True)


def _read_int8(model: onnx.ModelProto, node: onnx.NodeProto, table: str) -> None:
    [name] = node.output
    node.output[0] = f"{name}_int8"
    scale = onnx.NodeProto.FromString(node.SerializeToString())
    scale.name, scale.input[0], scale.output[0] = f"{node.name}_scale", f"{table}_scale", f"{name}_scale"
    insert(
        model, node,
        [
            scale,
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_unscaled"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_unscaled", f"{name}_scale"], [name]),
        ],
        after=True,
    )  # fmt: skip


def _score_in_int8(model: onnx.ModelProto, num_items: int) -> None:
    """user x table of whole numbers, a shortlist by it, and the shortlist's own scores."""
    found, graph = Scoring.of(model), model.graph
    user = found.user
    [k] = [numpy_helper.to_array(t) for t in graph.initializer if t.name == found.top_k.input[1]]
    nodes = [  # a request's numbers depend on it alone, not on those beside it, as with DynamicQuantizeLinear
        helper.make_node("Abs", [user], ["user_size"]),
        helper.make_node("ReduceMax", ["user_size", "last_axis"], ["user_most"], keepdims=1),
        helper.make_node("Max", ["user_most", "tiny"], ["user_range"]),
        helper.make_node("Div", [user, "user_range"], ["user_share"]),
        helper.make_node("Mul", ["user_share", "int8_most"], ["user_scaled"]),
        helper.make_node("Round", ["user_scaled"], ["user_rounded"]),
        helper.make_node("Add", ["user_rounded", "zero_float"], ["user_shifted"]),
        helper.make_node("Cast", ["user_shifted"], ["user_uint8"], to=TensorProto.UINT8),
        helper.make_node("Reshape", [f"{SCORED}_scale", "all"], ["item_scale"]),
        helper.make_node(
            "MatMulIntegerToFloat", ["user_uint8", found.table, "one", "item_scale", "zero_uint8"], [found.scores],
            domain="com.microsoft",
        ),
    ]  # fmt: skip
    replace(model, found.product, nodes)
    _shortlist(model, found)
    constants = {
        "last_axis": np.array([1]), "tiny": np.array(1e-30, np.float32), "int8_most": np.array(127, np.float32),
        "zero_float": np.array(128, np.float32), "zero_uint8": np.array(128, np.uint8), "one": np.array(1, np.float32),
        "all": np.array([-1]), "shortlist_size": np.array([min(math.ceil(SHORTLIST * int(k[0])), num_items)]),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def _shortlist(model: onnx.ModelProto, found: Scoring) -> None:
    """item_BK and score_BK from a longer item_BS, scored again; what is left out stays out."""
    biased_scores, k = found.top_k.input
    nodes = [
        helper.make_node("TopK", [biased_scores, "shortlist_size"], ["shortlist_score", "shortlist"]),
        helper.make_node("Gather", [SCORED, "shortlist"], ["shortlist_items"], axis=0),
        helper.make_node("Unsqueeze", [found.user, "minus_one"], ["user_column"]),
        helper.make_node("MatMul", ["shortlist_items", "user_column"], ["shortlist_column"]),
        helper.make_node("Squeeze", ["shortlist_column", "minus_one"], ["shortlist_own"]),
        helper.make_node("IsInf", ["shortlist_score"], ["shortlist_out"]),
        helper.make_node("Where", ["shortlist_out", "minus_infinity", "shortlist_own"], ["shortlist_final"]),
        helper.make_node("TopK", ["shortlist_final", k], ["score", "shortlist_place"]),
        helper.make_node("GatherElements", ["shortlist", "shortlist_place"], ["item"], axis=1),
    ]
    replace(model, found.top_k, nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "minus_one"))
