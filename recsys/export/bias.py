"""A retrieval graph that also takes what may not be recommended now, as numbers added to all scores before the top-k."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from recsys.columns import FIRST_ID
from recsys.export.scoring import Scoring, insert, remove_unused

BIAS = "bias"


def add_bias(model: onnx.ModelProto, num_items: int) -> None:
    """Give the graph the input `bias` (X, I), float32, X being 1 for all requests alike or B: 0, or -inf for what is left out.

    Done on the graph and not in torch, whose exporter cannot leave open whether a dimension is 1 or the batch. The reserved
    rows, which torch masks in a pass over all scores, join those that a request excludes, which are written in place.
    """
    found = Scoring.of(model)
    graph = model.graph
    nodes = [
        helper.make_node("Shape", ["exclude"], ["exclude_batch"], start=0, end=1),
        helper.make_node("Concat", ["exclude_batch", "reserved_count"], ["reserved_shape"], axis=0),
        helper.make_node("Expand", ["reserved", "reserved_shape"], ["reserved_rows"]),
        helper.make_node("Concat", ["exclude", "reserved_rows"], ["left_out"], axis=1),
        helper.make_node("Shape", ["left_out"], ["left_out_shape"]),
        helper.make_node("Expand", ["minus_infinity", "left_out_shape"], ["left_out_scores"]),
        helper.make_node("ScatterElements", [found.scores, "left_out", "left_out_scores"], ["masked_scores"], axis=1),
        helper.make_node("Add", ["masked_scores", BIAS], ["biased_scores"]),
    ]
    found.top_k.input[0] = "biased_scores"
    insert(model, found.top_k, nodes)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.arange(FIRST_ID), "reserved"),
            numpy_helper.from_array(np.array([FIRST_ID]), "reserved_count"),
            numpy_helper.from_array(np.array([-np.inf], np.float32), "minus_infinity"),
        ]
    )
    graph.input.append(helper.make_tensor_value_info(BIAS, TensorProto.FLOAT, ["biased_requests", num_items]))
    remove_unused(model)  # torch's own mask
