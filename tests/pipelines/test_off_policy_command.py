"""Off-policy values of a model, from its scores to the command. Shapes: N = rows, B = requests, E = excluded items."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.policy_world_days import TestDays as Days
from benchmarks.policy_world_days import greedy
from pipelines import candidates, models, off_policy, stages
from pipelines.requests import requests, softmax_policy
from pipelines.workspace import Workspace, config_path, open_dataset
from recsys import track
from recsys.artefact import read_manifest
from recsys.columns import FIRST_ID, POSITION, PROPENSITY, TEST, TIME_MS, USER
from recsys.config import RunConfig, load
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import padded
from recsys.generate.decoder import Decoder
from recsys.generate.generator import GenerationGraph
from recsys.generate.ids import SemanticIds
from recsys.metrics.off_policy.outcome import cross_fitted
from recsys.models.sasrec import SASRec
from recsys.simulate import Simulation, simulate
from recsys.train.loop import MODEL_FILE

SPEC = Simulation(users=60, items=40, events=6000, days=5, categories=5, seed=2)


class Counting:
    """Scores an item by how often the history has it."""

    def best(
        self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, count: int, time_BM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        score_BI = torch.zeros(len(history_BL), count)
        score_BI = score_BI.scatter_add(1, history_BL, torch.ones_like(history_BL, dtype=torch.float32))
        score_BI[:, :FIRST_ID] = -torch.inf
        score_BK, item_BK = score_BI.scatter(1, exclude_BE, -torch.inf).sort(dim=1, descending=True)
        return item_BK, score_BK


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = Workspace(tmp_path_factory.mktemp("off-policy"))
    simulate(SPEC, found.raw)
    stages.prepare(load(config_path("demo")), found.raw, found)
    return found


@pytest.fixture
def config() -> RunConfig:
    return load(config_path("demo"))


@pytest.fixture
def data(workspace: Workspace, config: RunConfig) -> Dataset:
    return open_dataset(workspace, config)


@pytest.mark.parametrize("request_time", ["target", "last_event"])
def test_a_request_is_what_came_before_its_rows(data: Dataset, request_time: Any) -> None:
    row_N = data.example_rows(TEST)
    asked = requests(data, row_N, request_time)
    assert len(asked.user_R) < len(row_N) / 5  # ten places of a page, one request
    for place, row in enumerate(row_N.tolist()):
        user, position, time_ms = (int(data.examples[name][np.array([row])][0]) for name in (USER, POSITION, TIME_MS))
        request = np.array([asked.request_N[place]])
        before = slice(data.start_U[user], data.start_U[user] + position)
        event_ms = data.time_ms_E[before].tolist()
        asked_ms = time_ms if request_time == "target" or not event_ms else event_ms[-1]
        assert asked.history.take(request).item_E.tolist() == data.item_E[before].tolist()
        assert asked.time_ms.take(request).item_E.tolist() == [*event_ms, asked_ms]


@pytest.mark.parametrize("filter_seen", [True, False])
def test_the_policys_chance_of_every_logged_item(data: Dataset, filter_seen: bool) -> None:
    """exp(times seen / 2) over the sum of the same, item by item."""
    config = load(config_path("demo"), f"evaluation.filter_seen={str(filter_seen).lower()}", "max_history=1000")
    task, rows = off_policy.logged_rows(config, data, None)
    model = cross_fitted(
        rows.reward_N, rows.place_N, rows.item_N, rows.user_N, num_items=data.num_items, rng=np.random.default_rng(0)
    )
    log = off_policy.as_logged(rows, model, softmax_policy(Counting(), data.num_items, 2.0), config)
    assert task == "click"
    seen = 0
    for row in range(0, len(log.reward_N), 7):
        request = rows.asked.request_N[row : row + 1]
        times_I = np.bincount(rows.asked.history.take(request).item_E, minlength=data.num_items)
        weight_I = np.where(filter_seen & (times_I > 0), 0, np.exp(times_I / 2))
        weight_I[:FIRST_ID] = 0
        prob_I, item, fold = weight_I / weight_I.sum(), rows.item_N[row], model.fold_N[row]
        assert log.target_N[row] == pytest.approx(prob_I[item])
        assert log.direct_N is not None
        assert log.direct_N[row] == pytest.approx(model.rate_FS[fold, rows.place_N[row]] * (prob_I @ model.lift_FI[fold]))
        seen += times_I[item] > 0
    assert seen > 10


def test_estimates_hold_the_truth_of_the_world(data: Dataset, workspace: Workspace) -> None:
    """A policy that shows every item alike, and one that shows what the user clicked: the log tells them apart rightly."""
    config = load(config_path("demo"), "evaluation.filter_seen=false")
    _, rows = off_policy.logged_rows(config, data, "click")
    days = Days(SPEC, data, rows.asked)
    model = cross_fitted(
        rows.reward_N, rows.place_N, rows.item_N, rows.user_N, num_items=data.num_items, rng=np.random.default_rng(0)
    )
    known = days.known_values(data.train_count_I)
    for temperature in (1e9, 1.0):
        policy = softmax_policy(Counting(), data.num_items, temperature)
        value_R = days.values(policy, max_history=50, filter_seen=False)
        found = off_policy.estimates(off_policy.as_logged(rows, model, policy, config))
        for name in ("ips", "snips", "DR", "self-normalised DR"):
            # Accidents add a twentieth of all clicks.
            assert found[name]["value"] == pytest.approx(days.logged_reward(value_R, 0.01), abs=4 * found[name]["error"])
        if temperature > 1:
            assert value_R == pytest.approx(known["uniform"])
    assert known["the best item"].mean() > known["logging policy"].mean() > known["uniform"].mean()
    best = days.values(greedy(softmax_policy(Counting(), data.num_items)), max_history=50, filter_seen=False)
    assert (best <= known["the best item"] + 1e-9).all()


@pytest.mark.parametrize(
    ("overrides", "task", "sentence"),
    [
        (["data.events.propensity=null"], None, "no propensities"),
        ([], "bought", "choose from"),
    ],
)  # fmt: skip
def test_a_log_that_does_not_tell_is_refused(
    data: Dataset, overrides: list[str], task: str | None, sentence: str
) -> None:  # fmt: skip
    with pytest.raises(InputError, match=sentence):
        off_policy.logged_rows(load(config_path("demo"), *overrides), data, task)


def test_a_row_without_a_chance_is_counted(data: Dataset, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    propensity_X = np.array(data.examples[PROPENSITY])
    propensity_X[data.example_rows(TEST)[:3]] = [0, np.nan, 1.5]
    monkeypatch.setitem(vars(data), "examples", {**data.examples, PROPENSITY: propensity_X})
    with pytest.raises(InputError, match="for 3 of 580 test"):
        off_policy.logged_rows(config, data, "click")


def test_wrong_options_are_named(data: Dataset, config: RunConfig, workspace: Workspace) -> None:
    for options, sentence in (
        ({"part": "ranker"}, "no policy over items"),
        ({"temperatures": [0.0]}, "not above 0"),
        ({"part": "generator"}, "no `generator` section"),
        ({"part": "policy"}, "no `policy` section"),
    ):
        given: dict[str, Any] = {"part": "retriever", "task": None, "temperatures": [1.0], **options}
        with pytest.raises(InputError, match=sentence):
            off_policy.off_policy_run(config, data, workspace, **given)


def test_with_nothing_left_to_show_no_item_has_a_chance() -> None:
    nothing = SimpleNamespace(best=lambda *_: (torch.zeros(1, 4, dtype=torch.int64), torch.full((1, 4), -torch.inf)))
    empty = torch.zeros(1, 1, dtype=torch.int64)
    assert softmax_policy(nothing, 4)(empty, empty[0], empty, empty).tolist() == [[0, 0, 0, 0]]


@torch.no_grad()
def test_a_generator_is_a_policy_over_items_too() -> None:
    """Its chances of whole ids, code by code, over those that are left."""
    items = FIRST_ID + 30
    code_IT, place = np.full((items, 3), -1, np.int32), np.arange(30)
    code_IT[FIRST_ID:] = np.stack([place % 4, place // 4 % 4, place // 16], axis=1)
    torch.manual_seed(0)
    vectors = torch.randn(items, 16)
    graph = GenerationGraph(
        SASRec(kind="sasrec", dim=16, blocks=1, heads=1), Decoder(), SemanticIds(code_IT, (4, 4, 2)), vectors, 10, 5
    ).eval()
    history_BL, length_B = torch.tensor([[3, 4, 0], [5, 6, 7]]), torch.tensor([2, 3])
    exclude_BE, time_BM = torch.tensor([[3, 4, 0], [0, 0, 0]]), torch.zeros(2, 4, dtype=torch.int64)
    every_BI = torch.arange(items).repeat(2, 1)
    prob_BI = graph.log_probs(history_BL, length_B, every_BI, time_BM).sum(-1).double().exp()
    prob_BI[:, :FIRST_ID] = 0
    prob_BI[0, [3, 4]] = 0
    found = softmax_policy(graph, items)(history_BL, length_B, exclude_BE, time_BM)
    assert found.numpy() == pytest.approx((prob_BI / prob_BI.sum(1, keepdim=True)).numpy(), abs=1e-6)


def small_run(cli: Any, folder: Path) -> list[str]:
    """The options of a model that trains in a second, on a log that is simulated and prepared here."""
    assert not cli("simulate", "--users", "60", "--items", "40", "--events", "6000", "--days", "5").failed
    assert not cli("prepare").failed
    changes = ("retriever.fit.epochs=1", "retriever.encoder.dim=8")
    return [*(word for each in changes for word in ("--set", each)), "--store", f"sqlite:///{folder}/mlflow.db"]


@pytest.mark.usefixtures("one_group")
def test_the_command(cli: Any, tmp_path: Path) -> None:
    small = small_run(cli, tmp_path)
    early = cli("off-policy")
    assert early.failed
    assert "recsys train" in early.said
    assert not cli("train", "--only", "retriever", *small).failed
    done = cli("off-policy", "--temperature", "1", "--temperature", "1000", "--json", *small)
    assert not done.failed, done.said
    result = json.loads(done.out)
    assert result == json.loads((tmp_path / "runs/demo/off_policy.json").read_text())
    assert "above the log" in done.said
    even = result["policies"]["1000"]
    assert even["support"]["mean_weight"] == pytest.approx(1, abs=0.2)
    run = track.get_run(Workspace(tmp_path / "runs/demo").run_id or "", uri=small[-1])
    assert run.metrics["off_policy/retriever@1000/snips"] == pytest.approx(even["estimates"]["snips"]["value"])
    assert run.metrics["off_policy/logging"] == pytest.approx(result["logging"]["value"])


@pytest.mark.usefixtures("one_group")
def test_a_policy_has_its_parents_form_and_its_own_weights(cli: Any, tmp_path: Path) -> None:
    small = small_run(cli, tmp_path)
    learning = [
        "policy.objective={kind: top_k_reinforce, k: 1}", "policy.rewards=[{kind: task, task: click}]",
        "policy.judged_by=reward", "policy.fit={epochs: 4, embedding_learning_rate: 0.1}", "evaluation.filter_seen=false",
    ]  # fmt: skip
    small += [word for each in learning for word in ("--set", each)]
    assert not cli("train", "--only", "retriever", *small).failed
    early = cli("off-policy", "--part", "policy", *small)
    assert early.failed
    assert "recsys train" in early.said
    assert not cli("train", "--only", "policy", *small).failed
    found = {}
    for part in ("retriever", "policy"):
        done = cli("off-policy", "--part", part, "--json", *small)
        assert not done.failed, done.said
        found[part] = json.loads(done.out)
    of_policy, root = found["policy"], Workspace(tmp_path / "runs/demo")
    manifest = read_manifest(root.checkpoint("policy"), "checkpoint")
    assert manifest["guard"]["kept"] == "policy", "else there is nothing to tell the two apart by"
    assert (of_policy["part"], of_policy["checkpoint"]) == ("policy", manifest["fingerprint"])
    assert of_policy["logging"] == found["retriever"]["logging"]
    config = load(config_path("demo"), "retriever.encoder.dim=8", "retriever.fit.epochs=1", *learning)
    data = open_dataset(root, config)
    _, rows = off_policy.logged_rows(config, data, None)
    history_NL, length_N = padded(rows.asked.history.take(rows.asked.request_N).last(config.max_history))
    for part, result in found.items():
        graph = models.retrieval_graph(config, data, load_file(root.checkpoint(part) / MODEL_FILE))
        chance_N = graph.log_probs(history_NL, length_N, torch.from_numpy(rows.item_N[:, None])).exp()[:, 0, 0].detach().numpy()
        weight = np.mean(chance_N / rows.propensity_N)
        assert result["policies"]["1"]["support"]["mean_weight"] == pytest.approx(weight, rel=1e-4), part
    values = [found[part]["policies"]["1"]["estimates"]["snips"]["value"] for part in found]
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize(("parent", "form"), [("retriever", "retrieval_graph"), ("generator", "generation_graph")])
def test_the_parent_says_what_form_a_policy_has(
    parent: str, form: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(config_path("demo"), "generator={ids: {vectors: {kind: content}}}", f"policy.parent={parent}")
    workspace = Workspace(tmp_path)
    for number, part in enumerate(off_policy.PARTS):
        workspace.checkpoint(part).mkdir()
        save_file({"number": torch.tensor(number)}, workspace.checkpoint(part) / MODEL_FILE)
    monkeypatch.setattr(candidates, "semantic_ids", lambda *_: "ids")
    for name in ("retrieval_graph", "generation_graph"):
        monkeypatch.setattr(models, name, lambda *given, name=name, **_: (name, int(given[-1]["number"])))
    assert candidates.candidate_graph(config, data, workspace, "policy") == (form, off_policy.PARTS.index("policy"))
