"""A small real bundle: 40 items, 12 users, two graphs whose answers the functions below give in numpy.

B = queries, L = history, E = excluded items, K = candidates, C = items to rank, T = tasks, N = rows of the item table.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from onnx import numpy_helper, parser

from recsys.artefact import write_artefact
from recsys.id_index import write_id_index

NUM_ITEMS, NUM_USERS, NUM_CANDIDATES, MAX_HISTORY = 40, 12, 20, 8
ROWS = NUM_ITEMS + 2
TASKS = ("click", "like")
VALUE = {"click": 1.0, "like": 0.5}
SIMILARITY_NN = np.random.default_rng(0).normal(size=(ROWS, ROWS)).astype(np.float32)
SIMILARITY_NN[:, :2] = -np.inf  # padding and unknown are never candidates

# The generation graph is another table, of log-probabilities; the width of its beam is up to the test.
LOG_PROB_NN = np.random.default_rng(1).normal(-5, size=(ROWS, ROWS)).astype(np.float32)
LOG_PROB_NN[:, :2] = -np.inf

# Stand-ins: the popular items are those of even ids, then those of odd ones; an item's co-visits are the next two.
VECTOR_ND = np.random.default_rng(2).normal(size=(ROWS, 4)).astype(np.float32)
POPULAR_P = np.array([*range(2, ROWS, 2), *range(3, ROWS, 2)], np.int32)
COVISIT_IN = np.array([[0, 0], [0, 0], *([2 + (row - 1) % NUM_ITEMS, 2 + row % NUM_ITEMS] for row in range(2, ROWS))], np.int32)
COVISIT_SCORE_IN = np.where(COVISIT_IN > 0, np.float32([0.5, 0.25]), 0).astype(np.float32)
SEGMENT_VP = np.stack([POPULAR_P, POPULAR_P, POPULAR_P[::-1], np.roll(POPULAR_P, 7)])
# Half of the final values at most 0.5, the other half above.
REFERENCE = {"edges": [0.5], "share": [0.5, 0.5], "tasks": {task: {"edges": [0.5], "share": [0.5, 0.5]} for task in TASKS}}
COLOURS, COUNTRIES = ("red", "green", "blue"), ("aa", "bb")

# Score = similarity to the last item of the history; excluded items become -inf; the best K are taken in the graph.
FINDER = """
<ir_version: 10, opset_import: ["": 20]>
candidates (int64[B, L] history, int64[B] length, int64[B, E] exclude{bias_input})
  => (int64[B, {count}] item, float[B, {count}] score)
<int64[1] one = {{1}}, int64[1] k = {{{count}}}, int64 zero = {{0}}>
{{
  column = Unsqueeze(length, one)
  before = Sub(column, one)
  last = Max(before, zero)
  newest = GatherElements<axis = 1>(history, last)
  query = Squeeze(newest, one)
  scores = Gather(similarity, query)
  shape = Shape(exclude)
  masks = ConstantOfShape<value = float[1] {{-inf}}>(shape)
  masked = ScatterElements<axis = 1>(scores, exclude, masks)
  biased = {biased}
  score, item = TopK(biased, k)
}}
"""

# click = (7 item + user + length + context) mod 11 / 11, like = 3 item mod 5 / 5
RANKING = """
<ir_version: 10, opset_import: ["": 20]>
ranking (int64[B] user, int64[B, L] history, int64[B] length, int64[B, C] item{context_input}) => (float[B, C, 2] probability)
<int64[1] one = {{1}}, int64[1] last = {{-1}}, int64 three = {{3}},
 int64 five = {{5}}, int64 seven = {{7}}, int64 eleven = {{11}},
 float fives = {{5}}, float elevens = {{11}}>
{{
  whose = Add(user, length)
  {context_sum}
  who = Unsqueeze(asked, one)
  sevenfold = Mul(item, seven)
  mixed = Add(sevenfold, who)
  click_rest = Mod(mixed, eleven)
  click_float = Cast<to = 1>(click_rest)
  click = Div(click_float, elevens)
  threefold = Mul(item, three)
  like_rest = Mod(threefold, five)
  like_float = Cast<to = 1>(like_rest)
  like = Div(like_float, fives)
  click_column = Unsqueeze(click, last)
  like_column = Unsqueeze(like, last)
  probability = Concat<axis = -1>(click_column, like_column)
}}
"""


def found(
    history_BL: np.ndarray, length_B: np.ndarray, exclude_BE: np.ndarray, table_NN: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    scores_BN = table_NN[history_BL[np.arange(len(history_BL)), np.maximum(length_B - 1, 0)]].copy()
    for scores_N, exclude_E in zip(scores_BN, exclude_BE, strict=True):
        scores_N[exclude_E] = -np.inf
    item_BK = np.argsort(-scores_BN, axis=1, kind="stable")[:, :count]
    return item_BK, np.take_along_axis(scores_BN, item_BK, axis=1)


def probabilities(user: int, length: int, item: int, context: int = 0) -> tuple[float, float]:
    return (7 * item + user + length + context) % 11 / 11, 3 * item % 5 / 5


def timeline_of(user: int) -> list[int]:
    """Dense items of a dense user, oldest first: 3 to 14 of them."""
    return [2 + (5 * user + 3 * place) % NUM_ITEMS for place in range(user + 1)]


def item_text(dense: int) -> str:
    return f"item-{dense - 2}"


def build_bundle(
    folder: Path,
    *,
    tasks: tuple[str, ...] = TASKS,
    context: tuple[str, ...] = (),
    title: bool = True,
    beam: int = 0,
    serving: dict[str, Any] | None = None,
    value: dict[str, float] | str | None = None,
) -> Path:
    """With a `beam` there is a generation graph, too."""
    model = {
        "max_history": MAX_HISTORY,
        "num_candidates": NUM_CANDIDATES,
        "num_items": ROWS,
        **({"candidates": "generation"} if beam else {}),
        "tasks": list(tasks),
        "value": (value or VALUE) if tasks else {},
        "context": {name: [str(value) for value in range(24)] for name in context},
        "category": {"colour": COLOURS},
        "segment": "country",
        "segment_values": COUNTRIES,
        "serving": serving or {},
    }
    lineage = {"dataset": "0123456789abcdef", "config": "tiny", "commit": "unknown"}
    with write_artefact(folder, "bundle", name="tiny", model=model, lineage=lineage) as (scratch, _):
        for name, (table_NN, count) in _finders(beam).items():
            bias = {"bias_input": ", float[X, I] bias", "biased": "Add(masked, bias)"}
            if name == "generation":  # a search reads `exclude` alone
                bias = {"bias_input": "", "biased": "Identity(masked)"}
            model_proto = parser.parse_model(FINDER.format(count=count, **bias))
            model_proto.graph.initializer.append(numpy_helper.from_array(table_NN, "similarity"))
            onnx.save(model_proto, scratch / f"{name}.onnx")
        if tasks:
            onnx.save(parser.parse_model(_ranking_text(len(context))), scratch / "ranking.onnx")
        _write_tables(scratch, title)
        np.save(scratch / "vectors.npy", VECTOR_ND)
        _write_stand_ins(scratch)
        if tasks:
            (scratch / "reference.json").write_text(json.dumps(REFERENCE))
        np.savez(scratch / "parity.npz", **_parity(bool(tasks), len(context), beam))
    return folder


def _finders(beam: int) -> dict[str, tuple[np.ndarray, int]]:
    return {"retrieval": (SIMILARITY_NN, NUM_CANDIDATES)} | ({"generation": (LOG_PROB_NN, beam)} if beam else {})


def _ranking_text(num_context: int) -> str:
    if not num_context:
        return RANKING.format(context_input="", context_sum="asked = Identity(whose)")
    total = "total = ReduceSum<keepdims = 0>(context, one)\n  asked = Add(whose, total)"
    return RANKING.format(context_input=f", int64[B, {num_context}] context", context_sum=total)


def _write_tables(folder: Path, title: bool) -> None:
    timelines = [[], []] + [timeline_of(user) for user in range(2, NUM_USERS + 2)]
    lengths = [len(timeline) for timeline in timelines]
    users = {
        "user_id": pa.array([None, None] + [f"user-{user}" for user in range(NUM_USERS)], pa.string()),
        "start": pa.array(np.cumsum([0, *lengths[:-1]]), pa.int64()),
        "length": pa.array(lengths, pa.int64()),
        "feature_country": pa.array([0, 1] + [2 + user % 2 for user in range(NUM_USERS)], pa.int32()),
    }
    items = {
        "item_id": pa.array([None, None] + [item_text(row) for row in range(2, ROWS)], pa.string()),
        "train_count": pa.array([0] * ROWS, pa.int64()),
        "feature_colour": pa.array([0, 1] + [2 + row % 3 for row in range(2, ROWS)], pa.int32()),
    }
    if title:
        items["title"] = pa.array([None, None] + [f"Title {row}" for row in range(2, ROWS)], pa.string())
    items_E = np.concatenate(timelines)
    timeline = {"item": pa.array(items_E, pa.int32()), "time_ms": pa.array(np.arange(len(items_E)) * 1000, pa.int64())}
    for name, columns in {"users": users, "items": items, "timeline": timeline}.items():
        table = pa.table(columns)
        with pa.ipc.new_file(folder / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=16)  # several record batches, as a large table has
        if f"{name[:-1]}_id" in table.column_names:
            write_id_index(table[f"{name[:-1]}_id"], folder / f"{name[:-1]}_index.arrow")


def _write_stand_ins(folder: Path) -> None:
    np.save(folder / "popular.npy", POPULAR_P)
    np.save(folder / "segments.npy", SEGMENT_VP)
    start_I1 = pa.array(np.concatenate([[0], np.cumsum((COVISIT_IN > 0).sum(axis=1))]))
    lists = {"item": COVISIT_IN[COVISIT_IN > 0], "score": COVISIT_SCORE_IN[COVISIT_IN > 0]}
    table = pa.table({name: pa.LargeListArray.from_arrays(start_I1, pa.array(each)) for name, each in lists.items()})
    with pa.ipc.new_file(folder / "covisits.arrow", table.schema) as writer:
        writer.write_table(table)


def _parity(with_ranking: bool, num_context: int, beam: int) -> dict[str, Any]:
    history_BL = np.array([[3, 9, 4], [5, 0, 0], [0, 0, 0]])
    length_B = np.array([3, 1, 0])
    exclude_BE = np.array([[3, 9, 4], [0, 0, 0], [7, 8, 0]])
    sample: dict[str, Any] = {}
    for name, (table_NN, count) in _finders(beam).items():
        item_BK, score_BK = found(history_BL, length_B, exclude_BE, table_NN, count)
        out = {"history": history_BL, "length": length_B, "exclude": exclude_BE, "item": item_BK, "score": score_BK}
        out["bias"] = np.zeros((1, ROWS), np.float32)
        sample |= {f"{name}_{each}": array for each, array in out.items()}
    if with_ranking:
        user_B, item_BC = np.array([2, 3, 1]), np.array([[6, 7], [8, 9], [2, 41]])
        rows = zip(user_B, length_B, item_BC, strict=True)
        probability = np.array([[probabilities(u, n, i, num_context) for i in items] for u, n, items in rows], np.float32)
        out = {"user": user_B, "history": history_BL, "length": length_B, "item": item_BC, "probability": probability}
        sample |= {f"ranking_{name}": array for name, array in out.items()}
        if num_context:
            sample["ranking_context"] = np.ones((3, num_context), dtype=np.int64)
    return sample
