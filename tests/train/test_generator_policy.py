"""A generator as a policy: every objective trains, rewards rise, the better is kept, nobody who decides is learned from.

Shapes: B = prompts, G = candidates, U = users, J = items.
"""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from generator_world import FIT, IDS, assert_pieces_are_the_whole, begun, generator_config
from generator_world import train as train_generator
from planted_data import NUM_ITEMS, leave_one_out, planted_timelines, write_dataset
from policy_world import EVENTS, write_bandit
from safetensors.torch import load_file
from torch import Tensor
from training_runs import Recorder, assert_same_tensors, history, resume_folder, tensors

from pipelines import models
from pipelines.policy import generator_kind, policy_job, retriever_scorer, train_policy
from pipelines.semantic_ids import semantic_ids
from pipelines.workspace import Workspace, check_lineage, parts, read_state, served_part
from recsys import evaluate
from recsys.artefact import read_manifest
from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID, VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.models.retriever import ITEM_TABLE
from recsys.policy import PolicyObjective
from recsys.prompts import Histories, PromptLoader
from recsys.train.distributed import place
from recsys.train.loop import MODEL_FILE
from recsys.train.proposing import excluded, served

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
OBJECTIVES = get_args(get_args(PolicyObjective)[0])
CLICK = [{"kind": "task", "task": "click"}]
STEPS = {"learning_rate": 1e-3, "embedding_learning_rate": 0.02, "epochs": 1, "batch_size": 32, "warmup_steps": 1}
BELOW = {"fit": {"epochs": 1, "learning_rate": 1e-4, "embedding_learning_rate": 1e-3}}  # a generator that has much to learn
HSTU = {"kind": "hstu", "dim": 16, "blocks": 1, "heads": 2}
LOGGED_DATA = {"data": {"events": EVENTS}}


def policy_config(policy: dict[str, Any] | None = None, generator: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    part = {"parent": "generator", "proposals": {"count": 8}, **(policy or {})}
    part["fit"] = {**STEPS, **part.get("fit", {})}
    return generator_config({**BELOW, **(generator or {})}, policy=part, **sections)


def world(config: RunConfig, data: Dataset, device: torch.device, root: Path) -> Workspace:
    """A workspace with a retriever, ids and a weak generator."""
    workspace = begun(config, data, device, root)
    train_generator(config, data, workspace.checkpoint("generator"), workspace, device)
    return workspace


@pytest.fixture(scope="module")
def walks(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return world(policy_config(), planted, group, tmp_path_factory.mktemp("walks"))


@pytest.fixture(scope="module")
def bandit(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_bandit(tmp_path_factory.mktemp("bandit") / "dataset", users=60, shown=16)


@pytest.fixture(scope="module")
def shown(bandit: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return world(policy_config(**LOGGED_DATA), bandit, group, tmp_path_factory.mktemp("shown"))


def train(config: RunConfig, data: Dataset, out: Path, workspace: Workspace, device: torch.device, **options: Any) -> Any:
    progress = options.pop("progress", Recorder())
    return train_policy(config, data, out, workspace=workspace, device=device, progress=progress, **options)


def job_of(config: RunConfig, data: Dataset, workspace: Workspace, device: torch.device) -> Any:
    scorer = retriever_scorer(config, data, workspace, device) if any(r.asks_score for r in config.policy.rewarded) else None
    ids = semantic_ids(config, data, workspace)
    return policy_job(config, data, device, read_state(workspace, "generator", config), scorer, ids)


class Terms(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.terms: list[dict[str, float]] = []

    def step(self, job: str, *, metrics: dict[str, float], **_: Any) -> None:
        self.terms.append(metrics)


@pytest.mark.parametrize("kind", [each().kind for each in OBJECTIVES])
def test_every_objective_trains_and_begins_at_its_parent(
    kind: str, bandit: Dataset, shown: Workspace, group: torch.device, tmp_path: Path
) -> None:
    logged = next(each for each in OBJECTIVES if each().kind == kind).logged
    about = {"rewards": CLICK, "judged_by": "reward"} if logged else {}
    seen = Terms()
    config = policy_config({"objective": {"kind": kind}, **about, "fit": {"batch_size": 150 if logged else 20}}, **LOGGED_DATA)
    manifest = train(config, bandit, tmp_path / "policy", shown, group, progress=seen)
    assert len(seen.terms) > 1
    assert all(np.isfinite(list(terms.values())).all() for terms in seen.terms)
    assert abs(seen.terms[0]["kl_to_parent"]) < 1e-5 < abs(seen.terms[-1]["kl_to_parent"])
    first, last = history(tmp_path / "policy")
    assert abs(first["valid/kl_to_parent"]) < 1e-5 < last["valid/kl_to_parent"]
    assert manifest["guard"]["parent"] == first[manifest["main_metric"]]
    assert "valid/NDCG@5" in first
    parent = load_file(shown.checkpoint("generator") / MODEL_FILE)
    assert {name: t.shape for name, t in tensors(tmp_path / "policy").items()} == {name: t.shape for name, t in parent.items()}


@pytest.mark.parametrize(
    "policy",
    [
        {"objective": {"kind": "rere"}}, {"objective": {"kind": "pg_rank"}},
        {"objective": {"kind": "rere"}, "proposals": {"kind": "sample", "count": 8}},
    ],
    ids=["rere", "pg_rank", "rere from samples"],
)  # fmt: skip
def test_rewards_rise_and_the_better_policy_is_kept(
    policy: dict[str, Any], planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = policy_config({**policy, "fit": {"epochs": 4, "batch_size": 16}})
    manifest = train(config, planted, tmp_path / "policy", walks, group)
    entries, guard = history(tmp_path / "policy"), manifest["guard"]
    assert entries[-1]["valid/reward"] > entries[0]["valid/reward"]
    assert guard["kept"] == "policy"
    assert guard["best"] == max(entry["valid/NDCG@5"] for entry in entries[1:]) > guard["parent"] + 0.02
    assert guard["parent"] == read_manifest(walks.checkpoint("generator"), "checkpoint")["best"]
    graph = models.generation_graph(config, planted, semantic_ids(config, planted, walks), tensors(tmp_path / "policy"))
    judged = evaluate.judged_users(planted, VALID, filter_seen=True)
    item_UK = evaluate.recommend(graph, judged, k=5, max_history=6, filter_seen=True)
    assert evaluate.retrieval_metrics(item_UK, judged, [5], NUM_ITEMS)[0]["NDCG@5"] == guard["best"]


def test_a_policy_that_is_destroyed_leaves_its_parent(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = policy_config({"fit": {"learning_rate": 0.1, "embedding_learning_rate": 1.0}})
    manifest = train(config, planted, tmp_path / "policy", walks, group)
    assert manifest["guard"]["kept"] == "parent"
    assert manifest["guard"]["best"] < manifest["guard"]["parent"]
    assert_same_tensors(tensors(tmp_path / "policy"), tensors(walks.checkpoint("generator")))


def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = policy_config({"proposals": {"kind": "sample", "count": 6}, "fit": {"batch_size": 40, "epochs": 2}})
    steps = job_of(config, planted, walks, group).loader.num_batches(0)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert_pieces_are_the_whole(
        lambda out, stop: train(config, planted, out, walks, group, stop_after_steps=stop), steps, whole, pieces
    )
    assert train(config, planted, whole, walks, group)["guard"] == train(config, planted, pieces, walks, group)["guard"]
    assert_same_tensors(tensors(whole), tensors(pieces))


def test_a_batch_in_parts_gives_the_same_policy(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    for accumulate in (1, 3):
        config = policy_config({"fit": {"accumulate": accumulate}})
        train(config, planted, tmp_path / f"{accumulate}", walks, group, stop_after_steps=3)
    one, three = (tensors(resume_folder(tmp_path / name)) for name in ("1", "3"))
    model = [name for name in one if name.startswith("model/")]
    assert not torch.equal(one["model/encoder.start"], tensors(walks.checkpoint("generator"))["encoder.start"])
    for name in model:
        torch.testing.assert_close(one[name], three[name], atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    "part", [{}, {"begin": "random", "encoder": HSTU}, {"own_row": False}], ids=["sasrec", "hstu", "codes"]
)
def test_what_the_actor_says_is_what_the_serving_form_says(
    part: dict[str, Any], planted: Dataset, walks: Workspace, group: torch.device
) -> None:
    config = policy_config(generator=part)
    ids, reads_time = semantic_ids(config, planted, walks), config.generator_encoder.reads_time
    kind, model = generator_kind(config, planted, ids, group), placed(config, planted, ids, group)
    graph = kind.graph(state_of(model))
    loader = PromptLoader(Histories(planted, 6, reads_time=reads_time), 40, seed=1)
    for batch in (*loader.epoch(0), nothing_before(loader)):
        if reads_time:  # a day between events
            batch.ids["time"] = Ids(batch.ids["time"].value_N * 86_400_000, batch.ids["time"].length_B)
        state = kind.actor.state(model, model.embeddings(kind.actor.look_ups(batch)), batch)
        item_BG = torch.randint(FIRST_ID, NUM_ITEMS, (batch.rows, 5), generator=torch.Generator().manual_seed(1))
        item_BG[0, 0] = 0  # no candidate
        history_BL, length_B, time_BM = served(batch)
        found_BGT = kind.actor.log_probs(model, state, item_BG)
        torch.testing.assert_close(found_BGT, graph.log_probs(history_BL, length_B, item_BG, time_BM), atol=1e-5, rtol=1e-5)
        assert found_BGT.requires_grad
        assert (found_BGT[0, 0] == 0).all()
        assert (found_BGT.sum(-1)[1:] < 0).all()
        best_BG = kind.actor.best(model, state, excluded(batch), graph.num_candidates)
        served_BG, _ = graph(history_BL, length_B, excluded(batch), time_BM)
        assert torch.equal(best_BG, served_BG)
        assert kind.actor.summary(state).shape == (batch.rows, 16)


def placed(config: RunConfig, data: Dataset, ids: Any, device: torch.device) -> Any:
    """A model with numbers at random, also where it begins with zeros."""
    torch.manual_seed(3)
    model = place(models.generator(config, data, ids), device).eval()
    for parameter in model.decoder.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


def state_of(model: Any) -> dict[str, Tensor]:
    from recsys.train.checkpoint import model_state

    return model_state(model)


def nothing_before(loader: PromptLoader) -> Batch:
    """Prompts of users of whom nothing is known."""
    return loader.batch(np.array([3, 4]), np.array([0, 0]))


def test_proposals_are_items_that_may_be_proposed(planted: Dataset, walks: Workspace, group: torch.device) -> None:
    """With all but some of the catalogue excluded, in every way of proposing; where nothing is left there is no candidate."""
    config = policy_config()
    ids = semantic_ids(config, planted, walks)
    kind, model = generator_kind(config, planted, ids, group), placed(config, planted, ids, group)
    batch = next(PromptLoader(Histories(planted, 6), 40, seed=1).epoch(0))
    state = kind.actor.state(model, model.embeddings(kind.actor.look_ups(batch)), batch)
    rng = np.random.default_rng(1)
    left_BJ = torch.from_numpy(rng.random((batch.rows, NUM_ITEMS)) < 0.15)
    left_BJ[:, :FIRST_ID], left_BJ[0] = False, False
    exclude_BE = torch.arange(NUM_ITEMS).where(~left_BJ, 0)
    drawn_BG = kind.actor.sample(model, state, exclude_BE, 200, torch.Generator().manual_seed(1))
    best_BG = kind.actor.best(model, state, exclude_BE, NUM_ITEMS)
    assert best_BG.shape == (batch.rows, NUM_ITEMS)
    assert not drawn_BG[0].any()
    assert not best_BG[0].any()
    for row in range(1, batch.rows):
        left = left_BJ[row].nonzero()[:, 0].tolist()
        assert set(drawn_BG[row].tolist()) <= set(left)
        assert best_BG[row].tolist() == [*sorted(left, key=best_BG[row].tolist().index), *[0] * (NUM_ITEMS - len(left))]
    again = kind.actor.sample(model, state, exclude_BE, 200, torch.Generator().manual_seed(1))
    other = kind.actor.sample(model, state, exclude_BE, 200, torch.Generator().manual_seed(2))
    assert torch.equal(drawn_BG, again)
    assert not torch.equal(drawn_BG, other)


def marked(folder: Path, deciding_U: np.ndarray) -> Dataset:
    """Planted walks; the validation event of a user who decides is of an item that nobody else ever has."""
    timelines = planted_timelines(160, np.random.default_rng(0))
    markers = range(NUM_ITEMS, NUM_ITEMS + 200)
    for user, timeline in enumerate(timelines, FIRST_ID):
        if deciding_U[user]:
            timeline[-2] = markers[user]
    splits = [leave_one_out(len(timeline)) for timeline in timelines]
    return write_dataset(folder, timelines, num_items=markers[-1] + 1, splits=splits)


def test_who_decides_is_never_learned_from(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    """Prompts are validation events of the other users; no vector of an item that the deciding ones alone have moves."""
    from pipelines.policy import _learning

    ids = {**IDS, "quantizer": {"kind": "balanced_kmeans", "levels": 2, "codes": 8}}
    config = policy_config({"prompts": "validation", "deciding_share": 0.3}, {"ids": ids})
    learning_U = _learning(config, planted)
    assert learning_U is not None
    deciding_U = ~learning_U
    assert 0.15 < deciding_U.mean() < 0.45
    data = marked(tmp_path / "dataset", deciding_U)
    workspace = world(config, data, group, tmp_path)
    job = job_of(config, data, workspace, group)
    prompted: set[int] = set()
    for epoch in range(3):
        for batch in job.loader.epoch(epoch):
            for name in ("item", "history", "seen"):
                assert not (batch.ids[name].value_N >= NUM_ITEMS).any(), name
            prompted |= set(batch.ids["user"].value_N.tolist())
            first_B = data.start_U[batch.ids["user"].value_N.numpy()] + batch.ids["seen"].length_B.numpy()
            assert np.array_equal(data.item_E[first_B], batch.ids["item"].value_N.numpy())
            assert (batch.ids["seen"].length_B.numpy() == data.train_length_U[batch.ids["user"].value_N.numpy()]).all()
    assert prompted == set(np.flatnonzero(learning_U & (data.valid_length_U > 0)).tolist())
    assert prompted

    train(config, data, tmp_path / "policy", workspace, group, stop_after_steps=2)
    before = tensors(workspace.checkpoint("generator"))[ITEM_TABLE]
    after = tensors(resume_folder(tmp_path / "policy"))[f"model/{ITEM_TABLE}"]
    assert torch.equal(before[NUM_ITEMS:], after[NUM_ITEMS:])
    assert not torch.equal(before[:NUM_ITEMS], after[:NUM_ITEMS])

    graph = generator_kind(config, data, semantic_ids(config, data, workspace), group)
    asked: list[int] = []

    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.within = graph.graph(tensors(workspace.checkpoint("generator")))

        def best(self, history_BL: Tensor, length_B: Tensor, *rest: Any) -> Any:
            asked.append(len(history_BL))
            return self.within.best(history_BL, length_B, *rest)

    found = graph.judge(Spy())
    assert sum(asked) == int((deciding_U & (data.valid_length_U > 0)).sum())
    assert found["NDCG@5"] == job.validate(tensors(workspace.checkpoint("generator")))["valid/NDCG@5"]


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (1e-9, r"policy\.deciding_share 1e-09 leaves none of the 160 users with validation events to decide: raise it"),
        (
            1 - 1e-9,
            r"no user of those whom deciding_share 1 leaves to learn from has a validation event .*lower policy\.deciding",
        ),
    ],
)
def test_a_share_that_leaves_nobody_is_refused(
    share: float, says: str, planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = policy_config({"prompts": "validation", "deciding_share": share})
    with pytest.raises(InputError, match=says):
        train(config, planted, tmp_path / "policy", walks, group)


def test_without_validation_events_there_are_no_prompts_of_them(
    walks: Workspace, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    timelines = planted_timelines(40, np.random.default_rng(0))
    data = write_dataset(tmp_path / "dataset", timelines, splits=[[0] * len(timeline) for timeline in timelines])
    config = policy_config({"prompts": "validation"})
    with pytest.raises(InputError, match=r"the split leaves no validation events: change data\.split"):
        job_of(config, data, walks, group)


def test_the_retriever_may_judge_what_a_generator_proposes(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    """The loop with a fixed recommender: what it finds good comes to be proposed more."""
    policy = {"rewards": [{"kind": "recommender", "normalise": False}], "proposals": {"kind": "sample", "count": 12}}
    fit = {"epochs": 3, "learning_rate": 3e-3, "embedding_learning_rate": 0.05}
    seen, retriever = Terms(), (walks.checkpoint("retriever") / MODEL_FILE).read_bytes()
    train(policy_config({**policy, "fit": fit}), planted, tmp_path / "policy", walks, group, progress=seen)
    assert (walks.checkpoint("retriever") / MODEL_FILE).read_bytes() == retriever
    reward = [terms["reward"] for terms in seen.terms]
    assert np.mean(reward[-4:]) > np.mean(reward[:4]) + 0.1


def test_a_policy_belongs_to_its_generator(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = policy_config({"fit": {"batch_size": 160}})
    assert parts(config) == ["retriever", "generator", "policy"]
    assert (served_part(config, "generator"), served_part(config, "retriever")) == ("policy", "retriever")
    workspace = begun(config, planted, group, tmp_path)
    with pytest.raises(InputError, match="generator holds no checkpoint: make it with `recsys train`"):
        train(config, planted, workspace.checkpoint("policy"), workspace, group)
    train_generator(config, planted, workspace.checkpoint("generator"), workspace, group)
    train(config, planted, workspace.checkpoint("policy"), workspace, group)
    check_lineage(workspace, "policy", planted, config)
    other = config.model_copy(update={"seed": 2})
    train_generator(other, planted, workspace.checkpoint("generator"), workspace, group)
    with pytest.raises(InputError, match=r"began from another generator than .*: run `recsys train --only policy` again"):
        check_lineage(workspace, "policy", planted, config)


def test_settings_that_do_not_go_together_are_refused() -> None:
    for policy, generator, says in (
        ({}, {"validation_too": True, "fit": {"keep": "last"}}, "and generator.validation_too trains on those events"),
        ({"proposals": {"count": 30}}, {}, "policy.proposals.count 30 is more than generator.beam 20, the most that is ever"),
        ({"fit": {"keep": "last"}}, {}, "fit.keep last would keep a policy that is worse than its parent"),
    ):
        with pytest.raises(ValueError, match=says):
            policy_config(policy, generator)
    with pytest.raises(ValueError, match=r"policy\.parent generator is not trained by this config: add a `generator` section"):
        policy_config(generator=None).model_validate(policy_config().model_dump(mode="json") | {"generator": None})
    trained_on = {"validation_too": True, "fit": {**FIT, "keep": "last"}}
    with pytest.raises(ValueError, match=r"which retriever\.validation_too trains on the events that would choose"):
        generator_config(retriever=trained_on)
    generator_config({"begin": "random"}, retriever=trained_on)
    generator_config({"validation_too": True, "fit": {"keep": "last"}}, retriever=trained_on)
