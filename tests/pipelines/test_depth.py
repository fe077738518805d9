"""`recsys depth`: who is judged, on what, and what follows from it. Shapes: U = users, K = places."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from pipelines import stages
from pipelines.depth.asked import questions
from pipelines.depth.depth import Found, at_depth, depth_run, judge, lists, open_bundle
from pipelines.depth.plot import figure
from pipelines.depth.table import sentences, table
from pipelines.export import export_run
from pipelines.models import retrieval_graph
from pipelines.progress import TrainingProgress
from pipelines.train import train_ranker, train_retriever
from pipelines.workspace import Workspace, config_path, open_dataset
from recsys import evaluate
from recsys.columns import FIRST_ID, TEST
from recsys.config import RunConfig, load
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import Judged
from recsys.jagged import Jagged
from recsys.metrics.ranking import rank_metrics
from recsys.simulate import Simulation, simulate
from recsys.train.loop import MODEL_FILE

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
QUOTAS = "serving.rerank=[{kind: quotas, at_most_each: 1}]"
SMALL = ["retriever.fit.epochs=1", "ranker.fit.epochs=1", "serving.num_candidates=30"]
Ran = tuple[RunConfig, Dataset, Workspace]


@pytest.fixture(scope="module")
def ran(group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    config, workspace = load(config_path("demo"), *SMALL), Workspace(tmp_path_factory.mktemp("depth"))
    simulate(Simulation(users=80, items=60, events=6000, days=5, categories=5, seed=2), workspace.raw)
    stages.prepare(config, workspace.raw, workspace)
    data = open_dataset(workspace, config)
    with TrainingProgress(Console(file=io.StringIO()), None) as progress:
        for part, train in (("retriever", train_retriever), ("ranker", train_ranker)):
            train(config, data, workspace.checkpoint(part), device=group, progress=progress)
    export_run(config, data, workspace, device=group)
    return config, data, workspace


@pytest.fixture(scope="module")
def judged(ran: Ran) -> Judged:
    config, data, _ = ran
    everyone = evaluate.judged_users(data, TEST, filter_seen=config.evaluation.filter_seen)
    return everyone.take(np.flatnonzero(everyone.history.lengths))


def test_nobody_is_asked_about_what_comes_after_the_split(ran: Ran, judged: Judged) -> None:
    config, data, workspace = ran
    bundle = open_bundle(config, data, workspace)
    asked = questions(bundle, data, judged, TEST, k=5, filter_seen=True, request_time="target")
    later = 0
    for row, each in enumerate(asked):
        begin, end = judged.history.offset_U1[row : row + 2]
        assert each.past.item_L.tolist() == judged.history.item_E[begin:end].tolist()
        assert each.now_ms == judged.time_ms.item_E[judged.time_ms.offset_U1[row + 1] - 1]
        later += len(bundle.timeline_of(each.user)) - len(each.past.item_L)
        hour = bundle.facts.context["hour"][each.context_F[0] - FIRST_ID]
        assert int(float(hour)) == each.now_ms // 3_600_000 % 24, "the context of the moment"
    assert later >= len(asked), "the bundle itself knows the answers"
    hidden = questions(bundle, data, judged, TEST, k=5, filter_seen=True, request_time="last_event")
    assert all(each.context_F.tolist() == [1] for each in hidden)


def test_the_least_depth_is_what_recsys_evaluate_judges(ran: Ran, judged: Judged) -> None:
    config, data, workspace = ran
    graph = retrieval_graph(config, data, load_file(workspace.checkpoint("retriever") / MODEL_FILE))
    item_UK = evaluate.recommend(graph, judged, k=30, max_history=config.max_history, filter_seen=True)
    values = rank_metrics(item_UK, judged.relevant, [10, 30])
    found = depth_run(config, data, workspace, depths=[1, 10, 30])
    rows = {row["depth"]: row for row in found["depths"]}
    assert rows[1]["NDCG@10"] == pytest.approx(values["NDCG@10"].mean())
    assert rows[10]["HR@10"] == pytest.approx(values["HR@10"].mean()), "the same ten in another order"
    assert rows[10]["NDCG@10"] != rows[1]["NDCG@10"]
    assert rows[30]["reach"] == pytest.approx(values["Recall@30"].mean())
    assert rows[1]["reach"] <= rows[10]["reach"] <= rows[30]["reach"]
    assert all(row["ms_per_list"] > 0 for row in found["depths"])


def test_the_greatest_depth_is_what_is_served(ran: Ran, judged: Judged) -> None:
    config, data, workspace = ran
    bundle = open_bundle(config, data, workspace)
    assert bundle.facts.serving.ranked is None
    asked = questions(bundle, data, judged, TEST, k=10, filter_seen=True, request_time="target")
    assert (lists(at_depth(bundle, 30), asked, 10).item_UK == lists(bundle, asked, 10).item_UK).all()


def test_rerankers_of_the_config_are_tried_without_an_export(ran: Ran) -> None:
    _, data, workspace = ran
    config = load(config_path("demo"), *SMALL, QUOTAS)
    found = depth_run(config, data, workspace, depths=[1, 30], users=10)
    assert found["users"] == 10
    assert found["rerank"] == ["quotas"]
    for row in found["depths"]:
        assert row["reranked"]["ILD@10"] > row["ILD@10"]
        assert row["reranked"]["to_plain"]["mean"] == pytest.approx(row["reranked"]["NDCG@10"] - row["NDCG@10"])
    assert any("quotas changes NDCG@10 by" in line for line in sentences(found))


@pytest.mark.parametrize(
    ("keys", "sets", "message"),
    [
        ({"depths": [31]}, [], "--depth is 31: choose 1 to 30"),
        ({"k": 31}, [], "--k is 31: choose 1 to 30"),
        ({"split": "train"}, [], "choose valid or test"),
        ({}, ["serving.rerank=[{kind: quotas, at_least: {hats: 1}}]"], "names 'hats', which no item has as its category"),
    ],
)
def test_what_cannot_be_done_is_refused(ran: Ran, keys: dict[str, Any], sets: list[str], message: str) -> None:
    _, data, workspace = ran
    with pytest.raises(InputError, match=message):
        depth_run(load(config_path("demo"), *SMALL, *sets), data, workspace, **keys)


def test_the_command(ran: Ran, cli: Callable[..., Any]) -> None:
    workspace = ran[2].root
    done = cli(
        "depth", "--workspace", str(workspace), "--users", "10", "--depth", "1", "--depth", "20", "--json", "--set", QUOTAS
    )
    assert done.code == 0, done.said
    found = json.loads(done.out)
    assert [row["depth"] for row in found["depths"]] == [1, 20]
    assert json.loads((workspace / "depth.json").read_text()) == found
    assert (workspace / "depth.png").read_bytes().startswith(b"\x89PNG")
    assert "recsys export" in done.said
    assert f"serving.ranked={found['smallest']}" in done.said
    refused = cli("depth", "--workspace", str(workspace), "--depth", "99")
    assert refused.code == 2
    assert "choose 1 to 30" in refused.said


def planted(ran: Ran, hits: dict[int, float]) -> dict[str, Any]:
    """What is said of 400 users of whom `hits[depth]` find their item at the top, the others nowhere; the same users first."""
    config, data, _ = ran
    users, offset_U1 = 400, np.arange(401)
    item_U = np.full(users, FIRST_ID)
    of_users = Judged(
        np.arange(users), Jagged(item_U + 1, offset_U1), Jagged(item_U, offset_U1), Jagged(item_U, offset_U1)
    )  # fmt: skip
    found = {}
    for depth, share in hits.items():
        item_UK = np.tile(np.arange(FIRST_ID + 2, FIRST_ID + 12), (users, 1))
        item_UK[: int(users * share), 0] = FIRST_ID
        found[depth] = Found(item_UK, item_UK, np.pad(item_UK, ((0, 0), (0, 40))), 0.1 * depth)
    rest = {"config": "planted", "split": "test", "k": 10, "users": users, "without_history": 3, "rerank": []}
    return rest | judge(config, data, of_users, found, 10)


@pytest.mark.parametrize(
    ("hits", "peak", "smallest", "said"),
    [
        ({1: 0.2, 10: 0.598, 20: 0.6, 50: 0.3}, 20, 10, "Set serving.ranked: 10, .* 4.00 ms less than with 50"),
        ({1: 0.2, 10: 0.3, 20: 0.4, 50: 0.6}, 50, 50, "raise serving.num_candidates"),
        ({1: 0.6, 10: 0.4, 20: 0.3, 50: 0.3}, 1, 1, "Ranking makes no list better"),
        ({1: 0.597, 10: 0.4, 20: 0.6, 50: 0.3}, 20, 1, "The order of retrieval alone is not significantly worse"),
        ({1: 0.5, 10: 0.5, 20: 0.5, 50: 0.5}, 1, 1, "3 users without a history"),
    ],
)
def test_the_smallest_depth_that_is_not_worse(ran: Ran, hits: dict[int, float], peak: int, smallest: int, said: str) -> None:
    found = planted(ran, hits)
    assert (found["peak"], found["smallest"]) == (peak, smallest)
    for row in found["depths"]:
        assert row["NDCG@10"] == pytest.approx(hits[row["depth"]], abs=0.01)
        assert row["to_peak"]["mean"] == pytest.approx(row["NDCG@10"] - hits[peak], abs=0.01)
        assert row["to_peak"]["low"] <= row["to_peak"]["mean"] <= row["to_peak"]["high"]
        if row["depth"] < smallest:
            assert row["to_peak"]["high"] < 0
    lines = " ".join(sentences(found))
    assert re.search(said, lines), lines
    assert ("Ranking all 50 is significantly worse" in lines) == (hits[50] < hits[peak])


def test_table_and_figure_show_every_depth(ran: Ran, tmp_path: Path) -> None:
    found = planted(ran, {1: 0.2, 10: 0.6, 50: 0.3})
    text = io.StringIO()
    Console(file=text, width=200).print(table(found))
    assert all(f" {depth} " in text.getvalue() for depth in (1, 10, 50))
    assert "best" in text.getvalue()
    drawn = figure(found)
    assert [label.get_text() for label in drawn.axes[1].get_xticklabels()] == ["1", "10", "50"]
