"""Policies in the loop: every objective trains, a stopped run goes on bit for bit, the guard keeps the better of two."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from planted_data import BLOCK_ITEMS, NUM_ITEMS
from policy_world import block_of, policy_config, write_bandit
from safetensors.torch import load_file
from torch import Tensor
from training_runs import Recorder, assert_same_tensors, resume_folder, run_toy, state_without_clock, tensors, toy_job

from pipelines import models
from pipelines.policy import KINDS, policy_job, retriever_scorer, train_policy
from pipelines.train import train_retriever
from pipelines.workspace import Workspace, check_lineage, parts, read_state, served_part
from recsys import evaluate
from recsys.artefact import read_manifest
from recsys.columns import FIRST_ID, VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.policy import PolicyObjective
from recsys.policy.rewards.recommender import Recommender
from recsys.prompts import Histories, PromptLoader
from recsys.train.distributed import place
from recsys.train.loop import HISTORY_FILE, MODEL_FILE, fit
from recsys.train.policy_objective import seed_of
from recsys.train.proposing import Rewarder, served

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
OBJECTIVES = get_args(get_args(PolicyObjective)[0])
CLICK = [{"kind": "task", "task": "click"}]
DRAWN = {  # numbers drawn in every step, and a helper with parameters
    "objective": {"kind": "rere"}, "proposals": {"kind": "sample", "count": 6},
    "rewards": [{"kind": "hit"}, {"kind": "task", "task": "like"}], "constrained": {"at_least": [0.1, 0.1]},
}  # fmt: skip
LEARNED = {"objective": {"kind": "a_lol"}, "rewards": CLICK}


@pytest.fixture(scope="module")
def bandit(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_bandit(tmp_path_factory.mktemp("bandit") / "dataset")


@pytest.fixture(scope="module")
def walks(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A weak retriever of the planted walks."""
    return with_retriever(planted, group, tmp_path_factory.mktemp("walks"))


@pytest.fixture(scope="module")
def shown(bandit: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A weak retriever of what users of the bandit clicked."""
    return with_retriever(bandit, group, tmp_path_factory.mktemp("shown"))


def with_retriever(data: Dataset, device: torch.device, root: Path) -> Workspace:
    workspace = Workspace(root)
    train_retriever(policy_config(), data, workspace.checkpoint("retriever"), device=device, progress=Recorder())
    return workspace


def train(config: RunConfig, data: Dataset, out: Path, workspace: Workspace, device: torch.device, **options: Any) -> Any:
    progress = options.pop("progress", Recorder())
    return train_policy(config, data, out, workspace=workspace, device=device, progress=progress, **options)


def history(out: Path) -> list[dict[str, Any]]:
    return list(json.loads((out / HISTORY_FILE).read_text()))


def settings_of(kind: str, **more: Any) -> dict[str, Any]:
    logged = next(each for each in OBJECTIVES if each().kind == kind).logged
    return {"objective": {"kind": kind}, **({"rewards": CLICK, "judged_by": "reward"} if logged else {}), **more}


@pytest.mark.parametrize("kind", [each().kind for each in OBJECTIVES])
def test_every_objective_trains_and_begins_at_its_parent(
    kind: str, bandit: Dataset, shown: Workspace, group: torch.device, tmp_path: Path
) -> None:
    terms: list[dict[str, float]] = []

    class Terms(Recorder):
        def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
            terms.append(metrics)
            assert job == "policy"
            assert predictions <= 96  # prompts, and not the events of their histories

    config = policy_config(settings_of(kind, fit={"epochs": 1, "batch_size": 64}))
    manifest = train(config, bandit, tmp_path / "policy", shown, group, progress=Terms())
    assert all(np.isfinite(list(metrics.values())).all() for metrics in terms)
    assert {"reward", "hit_share", "skipped_share", "kl_to_parent"} <= terms[0].keys()
    assert abs(terms[0]["kl_to_parent"]) < 1e-6 < terms[-1]["kl_to_parent"]
    first, last = history(tmp_path / "policy")
    assert (first["epoch"], first["step"], last["epoch"]) == (0, 0, 1)
    assert abs(first["valid/kl_to_parent"]) < 1e-6 < last["valid/kl_to_parent"]
    assert "loss" not in first
    assert {"valid/NDCG@5", "valid/kl_to_parent", "valid/hit_share"} <= first.keys()
    assert ("valid/reward" in first) == config.policy.objective.reads_reward
    assert manifest["guard"]["parent"] == first[manifest["main_metric"]]


def test_a_policy_that_is_better_is_kept(planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path) -> None:
    config = policy_config({"fit": {"epochs": 6}}, data=without_propensity())
    manifest = train(config, planted, tmp_path / "policy", walks, group)
    guard, seen = manifest["guard"], [entry["valid/NDCG@5"] for entry in history(tmp_path / "policy")]
    assert guard["kept"] == "policy"
    assert guard["parent"] == seen[0] == read_manifest(walks.checkpoint("retriever"), "checkpoint")["best"]
    assert guard["best"] == max(seen[1:]) == manifest["best"] > guard["parent"] + 0.1
    assert f"above the parent's {seen[0]:.4f}" in guard["why"]
    state = load_file(tmp_path / "policy" / MODEL_FILE)
    assert ndcg(config, planted, state) == pytest.approx(guard["best"])
    assert state.keys() == load_file(walks.checkpoint("retriever") / MODEL_FILE).keys()


@pytest.mark.parametrize("absurd", [{"learning_rate": 1.0, "embedding_learning_rate": 1.0}, {"epochs": 1}])
def test_the_parent_is_kept_bit_for_bit_where_the_policy_is_not_above_it(
    absurd: dict[str, Any], planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    """By a learning rate that destroys it, and by a margin that one epoch does not reach."""
    config = policy_config({"fit": absurd, "margin": 0.0 if "learning_rate" in absurd else 0.9}, data=without_propensity())
    manifest = train(config, planted, tmp_path / "policy", walks, group)
    guard = manifest["guard"]
    assert guard["kept"] == "parent"
    assert manifest["best"] == guard["parent"]
    assert f"not above the parent's {guard['parent']:.4f}" in guard["why"]
    assert (guard["best"] > guard["parent"]) == ("learning_rate" not in absurd)
    assert_same_tensors(tensors(tmp_path / "policy"), tensors(walks.checkpoint("retriever")))


def without_propensity() -> dict[str, Any]:
    return {"events": {"path": "-", "user": "u", "item": "i", "labels": {"click": "c = 1"}}}


def ndcg(config: RunConfig, data: Dataset, state: dict[str, Tensor]) -> float:
    judged = evaluate.judged_users(data, VALID, filter_seen=True)
    graph = models.retrieval_graph(config, data, state)
    item_UK = evaluate.recommend(graph, judged, k=5, max_history=config.max_history, filter_seen=True)
    return evaluate.retrieval_metrics(item_UK, judged, [5], data.num_items)[0]["NDCG@5"]


@pytest.mark.parametrize(
    "objective",
    [{"kind": "top_k_reinforce", "k": 1}, {"kind": "top_k_reinforce", "behaviour": "none"}, {"kind": "a_lol"}],
    ids=str,
)
def test_from_the_log_of_a_bandit_a_policy_learns_what_is_clicked(
    objective: dict[str, Any], bandit: Dataset, shown: Workspace, group: torch.device, tmp_path: Path
) -> None:
    """The expected clicks are known: an item of the user's block is clicked, another hardly ever."""
    config = policy_config(
        {"objective": objective, "rewards": CLICK, "judged_by": "reward", "fit": {"epochs": 4, "batch_size": 32}}
    )
    manifest = train(config, bandit, tmp_path / "policy", shown, group)
    assert manifest["guard"]["kept"] == "policy"
    before, after = (own_share(config, bandit, folder) for folder in (shown.checkpoint("retriever"), tmp_path / "policy"))
    assert after > before + 0.1
    reward = [entry["valid/reward"] for entry in history(tmp_path / "policy")]
    assert reward[0] == pytest.approx(0.05 + 0.85 * before, abs=0.12)  # what the policy would have earned is estimated well
    assert max(reward) == pytest.approx(0.05 + 0.85 * after, abs=0.12)


def own_share(config: RunConfig, data: Dataset, checkpoint: Path) -> float:
    """The mean probability of items of the user's own block."""
    graph = models.retrieval_graph(config, data, load_file(checkpoint / MODEL_FILE))
    found = []
    for batch in PromptLoader(Histories(data, config.max_history), 256, seed=1).first_of(VALID):
        history_BL, length_B, _ = served(batch)
        for row, user in enumerate(batch.ids["user"].value_N.tolist()):
            first = FIRST_ID + block_of(user) * BLOCK_ITEMS
            item_BG = torch.arange(first, first + BLOCK_ITEMS)[None]
            with torch.no_grad():
                log_prob = graph.log_probs(history_BL[row, None], length_B[row, None], item_BG)
            found.append(float(log_prob.exp().sum()))
    return float(np.mean(found))


@pytest.mark.parametrize("settings", [DRAWN, LEARNED], ids=["drawn", "learned"])
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(
    settings: dict[str, Any], bandit: Dataset, shown: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = policy_config({**settings, "fit": {"epochs": 2, "batch_size": 40 if settings is DRAWN else 600}})
    steps = policy_job(config, bandit, group, read_state(shown, "retriever", config)).loader.num_batches(0)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    train(config, bandit, whole, shown, group, stop_after_steps=steps + 1)
    for stop in (1, steps - 1, steps, steps + 1):
        torch.manual_seed(stop)
        train(config, bandit, pieces, shown, group, stop_after_steps=stop)
    saved = tensors(resume_folder(whole))
    assert any(name.startswith("helpers/") for name in saved)
    assert_same_tensors(saved, tensors(resume_folder(pieces)))
    assert state_without_clock(resume_folder(whole)) == state_without_clock(resume_folder(pieces))
    manifests = [train(config, bandit, out, shown, group) for out in (whole, pieces, tmp_path / "third")]
    assert manifests[0]["guard"] == manifests[1]["guard"] == manifests[2]["guard"]
    for out in (whole, pieces):
        assert_same_tensors(tensors(out), tensors(tmp_path / "third"))
        assert [entry["epoch"] for entry in history(out)] == [0, 1, 2]


def test_a_batch_in_parts_gives_the_same_policy(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    for accumulate in (1, 3):
        config = policy_config({"fit": {"epochs": 1, "accumulate": accumulate}}, data=without_propensity())
        train(config, planted, tmp_path / f"{accumulate}", walks, group)
    one, three = tensors(tmp_path / "1"), tensors(tmp_path / "3")
    assert not torch.equal(one["encoder.start"], tensors(walks.checkpoint("retriever"))["encoder.start"])
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, three[name], atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("settings", [{"constrained": {"at_least": [0.1, 0.1]}}, LEARNED], ids=["constrained", "learned"])
def test_losses_of_parts_add_up(settings: dict[str, Any], bandit: Dataset, shown: Workspace, group: torch.device) -> None:
    config = policy_config(settings)
    job = policy_job(config, bandit, group, read_state(shown, "retriever", config))
    learner, model, batch = job.learner, place(job.build(), group), next(job.loader.epoch(0))
    drawn, count_T = learner.draw(batch, torch.Generator().manual_seed(1)), learner.counts(batch)
    found = model.embeddings(drawn.ids)
    whole = learner.losses(model, found, batch, drawn, count_T, 0)
    pieces = [
        learner.losses(model, vectors, rows, drawn, count_T, 0)
        for vectors, rows in learner.parts(model, found, batch, [3, batch.rows - 3])
    ]
    torch.testing.assert_close(sum(each.loss_T for each in pieces), whole.loss_T)
    assert whole.own != 0
    torch.testing.assert_close(sum(each.own for each in pieces), whole.own)


def test_a_recommender_that_does_not_learn_judges_what_is_proposed(
    bandit: Dataset, shown: Workspace, group: torch.device
) -> None:
    config = policy_config()
    rewarder = Rewarder((Recommender(normalise=False, weight=3),), score=retriever_scorer(config, bandit, shown, group))
    graph = models.retrieval_graph(config, bandit, load_file(shown.checkpoint("retriever") / MODEL_FILE))
    for batch in PromptLoader(Histories(bandit, config.max_history), 16, seed=1).epoch(0):
        item_BG = torch.randint(FIRST_ID, NUM_ITEMS, (batch.rows, 4))
        item_BG[:, 3] = 0  # there is no fourth candidate
        history_BL, length_B, _ = served(batch)
        expected_BG = graph.log_probs(history_BL, length_B, item_BG)[..., 0]
        [reward_BG] = rewarder.each(item_BG, batch)
        torch.testing.assert_close(reward_BG, expected_BG.detach())
        assert not reward_BG.requires_grad


def test_parts_of_a_batch_draw_apart(bandit: Dataset, shown: Workspace, group: torch.device, tmp_path: Path) -> None:
    """The same user twice would draw the same; two users do not."""
    config = policy_config(DRAWN)
    job = policy_job(config, bandit, group, read_state(shown, "retriever", config))
    batch = next(job.loader.epoch(0))
    one, other = batch.split([8, batch.rows - 8])
    assert seed_of(5, one) == seed_of(5, batch) != seed_of(5, other)
    assert seed_of(5, one) != seed_of(6, one)


def test_neither_the_parent_nor_the_scores_get_a_gradient(
    bandit: Dataset, shown: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = policy_config()
    job = policy_job(config, bandit, group, read_state(shown, "retriever", config))
    before = {name: tensor.clone() for name, tensor in job.learner.parent.state_dict().items()}
    fit(
        job, config.policy.fit, seed=1, device=group, out=tmp_path / "p", identity={}, progress=Recorder(), stop_after_steps=3,
        start=read_state(shown, "retriever", config),
    )  # fmt: skip
    assert all(parameter.grad is None for parameter in job.learner.parent.parameters())
    assert_same_tensors(before, job.learner.parent.state_dict())


def test_a_policy_belongs_to_its_parent(bandit: Dataset, shown: Workspace, group: torch.device, tmp_path: Path) -> None:
    workspace, config = Workspace(tmp_path), policy_config({"fit": {"epochs": 1}})
    with pytest.raises(InputError, match="holds no checkpoint: make it with `recsys train`"):
        train(config, bandit, workspace.checkpoint("policy"), workspace, group)
    train_retriever(config, bandit, workspace.checkpoint("retriever"), device=group, progress=Recorder())
    train(config, bandit, workspace.checkpoint("policy"), workspace, group)
    manifest = check_lineage(workspace, "policy", bandit, config)
    assert manifest["identity"]["parent"] == read_manifest(workspace.checkpoint("retriever"), "checkpoint")["fingerprint"]
    with pytest.raises(InputError, match=r"with other settings \(model\)"):
        check_lineage(workspace, "policy", bandit, policy_config({"rewards": [{"kind": "hit"}]}))
    fewer = config.model_copy(update={"seed": 2})
    train_retriever(fewer, bandit, workspace.checkpoint("retriever"), device=group, progress=Recorder())
    with pytest.raises(InputError, match=r"began from another retriever than .*: run `recsys train --only policy` again"):
        check_lineage(workspace, "policy", bandit, config)


def test_a_run_goes_not_on_from_the_steps_of_another_parent(bandit: Dataset, group: torch.device, tmp_path: Path) -> None:
    workspace, config = Workspace(tmp_path), policy_config({"fit": {"epochs": 1}})
    for seed, steps in ((1, 3), (2, 4)):
        other = config.model_copy(update={"seed": seed})
        train_retriever(other, bandit, workspace.checkpoint("retriever"), device=group, progress=Recorder())
        recorder = Recorder()
        train(config, bandit, workspace.checkpoint("policy"), workspace, group, stop_after_steps=steps, progress=recorder)
        assert len(recorder.losses) == steps


def test_a_parent_without_the_metric_is_refused(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    job = replace(toy_job(planted, lambda _: {"m": float("nan")}), guard=0.0)
    with pytest.raises(InputError, match="toy: the model it begins from has no m: choose a metric that exists for it"):
        run_toy(job, tmp_path / "toy", group, epochs=2)


@pytest.mark.parametrize(
    ("values", "margin", "kept", "best"),
    [
        ([0.5, 0.5, 0.5], 0.0, 0, 0.5),  # equal is not above
        ([0.5, 0.51, 0.52], 0.05, 0, 0.52),  # not above by enough
        ([0.5, 0.4, 0.56], 0.05, 2, 0.56),
        ([0.5, 0.6, 0.55], 0.05, 1, 0.6),
        ([0.5, float("nan"), float("nan")], 0.0, 0, None),
    ],
)
def test_what_the_guard_keeps(
    values: list[float], margin: float, kept: int, best: float | None, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    left, seen = iter(values), []

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in state.items()})
        return {"m": next(left)}

    manifest = run_toy(replace(toy_job(planted, validate), guard=margin), tmp_path / "toy", group, epochs=2)
    assert_same_tensors(tensors(tmp_path / "toy"), seen[kept])
    assert manifest["best"] == values[kept]
    guard = manifest["guard"]
    assert (guard["kept"], guard["parent"], guard["best"]) == ("policy" if kept else "parent", 0.5, best)
    assert guard["why"] if best is None else f"{best:.4f}" in guard["why"]


def test_parts_and_what_is_served() -> None:
    config = policy_config()
    assert parts(config) == ["retriever", "policy", "ranker"]
    assert (served_part(config, "retriever"), served_part(config, "ranker")) == ("policy", "ranker")
    assert served_part(config.model_copy(update={"policy": None}), "retriever") == "retriever"
    assert set(KINDS) <= {"retriever", "generator"}
