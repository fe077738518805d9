"""Ablations of generators and policies: what they begin from is trained once, shared, and made anew only where it changes."""

import json
import shutil
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import Cli
from planted_data import planted_config

from pipelines.ablation import ablate
from pipelines.ablation import run as ablation_run
from pipelines.ablation.ablate import Runs, run_variants
from pipelines.ablation.report import result
from pipelines.ablation.run import VALUES_FILE
from pipelines.ablation.table import markdown
from pipelines.ablation.values import ALL
from pipelines.ablation.variants import BASE, Plan
from pipelines.evaluate import evaluate_run
from pipelines.parents import begins_from, lenders, start_of
from pipelines.workspace import Workspace
from recsys import track
from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SEEDS = [1, 2]
FROZEN = {"learning_rate": 1e-9, "embedding_learning_rate": 1e-9, "epochs": 1, "batch_size": 32}
GENERATOR = {
    "ids": {"quantizer": {"kind": "balanced_kmeans", "codes": 4, "levels": 2}, "limits": {"max_collision_rate": 1.0}},
    "fit": {"epochs": 1, "batch_size": 32, "warmup_steps": 0, "embedding_learning_rate": 0.1},
    "beam": 10,
}
POLICY = {
    "parent": "generator", "proposals": {"count": 4},
    "fit": {"epochs": 1, "batch_size": 32, "warmup_steps": 0, "embedding_learning_rate": 0.05},
}  # fmt: skip


def config_with(*changes: tuple[str, Any]) -> RunConfig:
    """The config with values at dotted keys."""
    tree = planted_config({"epochs": 2, "batch_size": 32}).model_dump(mode="json", exclude_unset=True)
    tree |= json.loads(json.dumps({"generator": GENERATOR, "policy": POLICY, "serving": {"candidates": "generator"}}))
    for key, value in changes:
        *way, last = key.split(".")
        here = tree
        for name in way:
            here = here[name]
        here[last] = value
    return RunConfig.model_validate(tree)


VARIANTS = {
    BASE: config_with(),
    "no rank reward": config_with(("policy.rewards", [{"kind": "hit"}])),
    "frozen": config_with(("policy.fit", FROZEN)),
    "five codes": config_with(("generator.ids.quantizer.codes", 5)),
}


def run(variants: dict[str, RunConfig], data: Dataset, root: Path, device: torch.device, **options: Any) -> Runs:
    settings = {"stage": "policy", "seeds": SEEDS, "experiment": None, **options}
    return run_variants(variants, data, folder=lambda name: root / name, device=device, **settings)


@pytest.fixture(scope="module")
def policies(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, Path, set[str]]:
    """The runs, where they lie, and what was trained, each once."""
    root, counted = tmp_path_factory.mktemp("policies"), Counter[str]()
    with pytest.MonkeyPatch.context() as patch:
        for stage, trainer in list(ablation_run.TRAINERS.items()):

            def train(config: RunConfig, data: Dataset, out: Path, trainer: Any = trainer, **options: Any) -> dict[str, Any]:
                counted[str(out.relative_to(root))] += 1
                return trainer(config, data, out, **options)

            patch.setitem(ablation_run.TRAINERS, stage, train)
        runs = run(VARIANTS, planted, root, group)
    assert set(counted.values()) == {1}
    return runs, root, set(counted)


class TestPolicy:
    @pytest.fixture
    def found(self, policies: tuple[Runs, Path, set[str]]) -> dict[str, Any]:
        return result(Plan("policy", "policy.test", VARIANTS), policies[0], SEEDS, VARIANTS[BASE], "planted")

    def test_what_variants_begin_from_is_trained_once_for_each_seed_and_by_whom_it_differs(
        self, policies: tuple[Runs, Path, set[str]]
    ) -> None:
        wanted = {f"{name}/policy" for name in VARIANTS} | {"base/retriever", "base/generator", "five codes/generator"}
        assert policies[2] == {each.replace("/", f"/seed-{seed}/") for each in wanted for seed in SEEDS}
        own, other = (policies[1] / name / "seed-2" for name in (BASE, "five codes"))
        assert not (other / "retriever").exists()
        assert read_manifest(other / "semantic_ids", "semantic_ids")["sizes"][:2] == [5, 5]
        starts = {name: read_manifest(folder / "policy", "checkpoint")["identity"]["start"] for name, folder in
                  (("own", own), ("other", other), ("frozen", policies[1] / "frozen" / "seed-2"))}  # fmt: skip
        fingerprints = [read_manifest(folder / "generator", "checkpoint")["fingerprint"] for folder in (own, other)]
        assert [starts["own"], starts["other"], starts["frozen"]] == [*fingerprints, fingerprints[0]]

    def test_a_policy_whose_parent_was_kept_says_so_and_has_its_values(
        self, policies: tuple[Runs, Path, set[str]], found: dict[str, Any]
    ) -> None:
        assert [each["kept"] for each in found["variants"]["frozen"]["guard"]] == ["parent", "parent"]
        page = markdown(found)
        assert "parent kept: frozen, seed 2: the best valid/NDCG@5 is " in page
        assert "| 0 of 2 seeds |" in page
        runs, root, _ = policies
        for seed, kept in zip(SEEDS, runs.trained["frozen"], strict=True):
            parent = pl.read_parquet(root / BASE / f"seed-{seed}" / "generator-values" / VALUES_FILE)
            assert kept.values.equals(parent)
        begun = found["variants"]["frozen"]["begins_from"]
        assert begun["part"] == "generator"
        assert begun["NDCG@5"] == pytest.approx(found["variants"]["frozen"]["slices"][ALL]["NDCG@5"]["mean"])
        assert f"the generator, NDCG@5 {begun['NDCG@5']:.4f}, HR@5 " in page
        assert "nan" not in page

    def test_the_means_are_those_of_evaluation(self, planted: Dataset, policies: tuple[Runs, Path, set[str]]) -> None:
        runs, root, _ = policies
        plain = {"events": {"path": "-", "user": "u", "item": "i"}}  # without labels there is no ranker to judge
        config = RunConfig.model_validate(VARIANTS[BASE].model_dump(mode="json") | {"data": plain, "seed": 1})
        judged = evaluate_run(config, planted, Workspace(root / BASE / "seed-1"))["retrieval"]
        assert judged["served"] == "policy"
        facts = runs.trained[BASE][0].facts
        for tested, means in ((facts["test"], judged["model"]), (facts["start"]["test"], judged["parts"]["generator"])):
            assert {"NDCG@5", "coverage@5"} < set(tested)
            assert tested == pytest.approx({name: means[name] for name in tested})  # and no health of vectors

    def test_slices_and_settings_are_told(self, found: dict[str, Any]) -> None:
        assert {"cold", "warm"} < set(found["variants"]["five codes"]["slices"])
        assert found["variants"]["no rank reward"]["settings"] == {"policy.rewards": [{"kind": "hit", "weight": 1.0}]}
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    def test_what_is_finished_is_not_trained_again_nor_by_the_ablation_of_another_stage(
        self, planted: Dataset, group: torch.device, policies: tuple[Runs, Path, set[str]], trainings: Counter[str]
    ) -> None:
        before, root, _ = policies
        again = run(VARIANTS, planted, root, group)
        assert not trainings
        for name, runs in before.trained.items():
            assert [each.facts for each in runs] == [each.facts for each in again.trained[name]]
            assert all(old.values.equals(new.values) for old, new in zip(runs, again.trained[name], strict=True))
        over = {BASE: VARIANTS[BASE], "all": config_with(("generator.decoder", {"softmax": "all"}))}
        generators = run(over, planted, root, group, stage="generator")
        assert set(trainings) == {f"all/seed-{seed}/generator" for seed in SEEDS}
        assert generators.trained[BASE][0].facts["step_ms"] > 0
        assert generators.trained["all"][0].facts["start"]["part"] == "retriever"

    def test_of_a_changed_parent_all_that_begins_from_it_is_trained_anew(
        self, planted: Dataset, group: torch.device, policies: tuple[Runs, Path, set[str]], tmp_path: Path,
        trainings: Counter[str],
    ) -> None:  # fmt: skip
        shutil.copytree(policies[1], tmp_path / "copy")
        sharper = config_with(("generator.decoder", {"temperature": 0.05}))
        changed = {BASE: sharper, "frozen": sharper.model_copy(update={"policy": VARIANTS["frozen"].policy})}
        run(changed, planted, tmp_path / "copy", group, seeds=[1])
        assert set(trainings) == {"base/seed-1/generator", "base/seed-1/policy", "frozen/seed-1/policy"}


def test_a_run_that_was_stopped_before_its_policy_does_not_train_the_parents_again(
    planted: Dataset, group: torch.device, tmp_path: Path, trainings: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    variants = {name: config.model_copy(update={"policy": config.policy.model_copy(update={"parent": "retriever"})})
                for name, config in VARIANTS.items() if config.policy and name in (BASE, "frozen")}  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setitem(ablation_run.TRAINERS, "policy", stop)
        with pytest.raises(KeyboardInterrupt):
            run(variants, planted, tmp_path, group, seeds=[1])
    assert set(trainings) == {"base/seed-1/retriever"}
    runs = run(variants, planted, tmp_path, group, seeds=[1])
    assert trainings == {f"{name}/policy": 1 for name in ("base/seed-1", "frozen/seed-1")} | {"base/seed-1/retriever": 1}
    assert runs.trained[BASE][0].facts["test"]["rankme"] >= 1  # a policy of a retriever has vectors


def test_ids_that_are_refused_leave_their_variant_out_and_not_the_others(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    bad = config_with(("generator.ids.limits", {"max_collision_rate": 0.0}))
    other = config_with(("generator.beam", 12))
    runs = run({BASE: config_with(), "strict": bad, "wide beam": other}, planted, tmp_path, group, stage="generator", seeds=[1])
    assert set(runs.trained) == {BASE, "wide beam"}
    assert "above limits.max_collision_rate 0" in runs.refused["strict"]
    with pytest.raises(InputError, match=r"above limits\.max_collision_rate 0"):
        run({BASE: bad, "wide beam": other}, planted, tmp_path / "other", group, stage="generator", seeds=[1])


RANDOM = (("generator.begin", "random"),)
COLLABORATIVE = (("generator.ids.vectors", {"kind": "collaborative"}),)
ASKED = (*RANDOM, ("policy.rewards", [{"kind": "recommender"}]))


@pytest.mark.parametrize(
    ("changes", "part", "reads", "start"),
    [
        ((), "retriever", (), None),
        ((), "ranker", (), None),
        ((), "semantic_ids", (), None),
        (COLLABORATIVE, "semantic_ids", ("retriever",), None),
        ((), "generator", ("retriever", "semantic_ids"), "retriever"),
        (RANDOM, "generator", ("semantic_ids",), None),
        ((*RANDOM, *COLLABORATIVE), "generator", ("retriever", "semantic_ids"), None),
        ((), "policy", ("retriever", "semantic_ids", "generator"), "generator"),
        (RANDOM, "policy", ("semantic_ids", "generator"), "generator"),
        (ASKED, "policy", ("retriever", "semantic_ids", "generator"), "generator"),
        ((("policy.parent", "retriever"),), "policy", ("retriever",), "retriever"),
        ((("generator", None), ("policy.parent", "retriever"), ("serving", {})), "policy", ("retriever",), "retriever"),
        ((("policy", None),), "policy", (), None),
    ],
)
def test_what_a_part_begins_from(
    changes: tuple[tuple[str, Any], ...], part: str, reads: tuple[str, ...], start: str | None
) -> None:
    config = config_with(*changes)
    assert (begins_from(config, part), start_of(config, part)) == (reads, start)


def test_a_parent_lies_with_the_first_variant_that_has_the_same() -> None:
    variants = {
        BASE: config_with(), "ids": VARIANTS["five codes"], "same ids": config_with(
            ("generator.ids.quantizer.codes", 5), ("policy.proposals.count", 8)
        ),
        "wide": config_with(("retriever.encoder.heads", 4)), "random": config_with(*RANDOM),
    }  # fmt: skip
    found = {name: lenders(variants, name, "policy") for name in variants}
    base = {"retriever": BASE, "semantic_ids": BASE, "generator": BASE}
    assert found == {
        BASE: base, "ids": base | {"semantic_ids": "ids", "generator": "ids"},
        "same ids": base | {"semantic_ids": "ids", "generator": "ids"},
        "wide": base | {"retriever": "wide", "generator": "wide"},
        "random": {"semantic_ids": BASE, "generator": "random"},
    }  # fmt: skip
    assert lenders(variants, "ids", "retriever") == {}


def test_a_policy_that_asks_the_retriever_is_trained_anew_where_that_is_another_one(
    planted: Dataset, group: torch.device, tmp_path: Path, trainings: Counter[str]
) -> None:
    variants = {BASE: config_with(*ASKED), "hits": config_with(*RANDOM)}
    run(variants, planted, tmp_path, group, seeds=[1])
    parts = [f"base/seed-1/{part}" for part in ("retriever", "generator", "policy")]
    assert set(trainings) == {*parts, "hits/seed-1/policy"}
    trainings.clear()
    run(variants, planted, tmp_path, group, seeds=[1])
    assert not trainings
    loss = ("retriever.loss", {"kind": "bpr"})
    run({BASE: config_with(*ASKED, loss), "hits": config_with(*RANDOM, loss)}, planted, tmp_path, group, seeds=[1])
    assert set(trainings) == {"base/seed-1/retriever", "base/seed-1/policy"}


SMALL = (
    *("--set", "retriever.fit.epochs=1", "--set", "retriever.encoder.dim=8", "--set", "retriever.fit.batch_size=16"),
    *("--set", "policy={proposals: {count: 4}, fit: {epochs: 1, batch_size: 32}}"),
)


def test_the_command_compares_policies_and_tracks_their_parent(
    cli: Cli, trainings: Counter[str], group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablate, "process_group", lambda: nullcontext(group))  # a process can join one only
    for words in (["simulate", "--users", "80", "--items", "40", "--events", "6000"], ["prepare"]):
        assert not cli(*words).failed
    sampled = "sampled: {policy.proposals.kind: sample, policy.rewards: [{kind: hit}]}"
    done = cli("ablate", "--stage", "policy", "--variant", "no rank reward: {policy.rewards: [{kind: hit}]}",
               "--variant", sampled, "--seeds", "1", *SMALL, "--json")  # fmt: skip
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert list(found["variants"]) == [BASE, "no rank reward", "sampled"]
    assert "first the retriever of base" in done.said
    assert sorted(trainings) == ["base/seed-1/policy", "base/seed-1/retriever", "no rank reward/seed-1/policy",
                                 "sampled/seed-1/policy"]  # fmt: skip
    trained = [run for run in track.list_runs(ablate.EXPERIMENT) if "variant" in run.tags]
    assert Counter(run.tags["stage"] for run in trained) == {"policy": 3, "retriever": 1}
    for each in trained:
        kept = [guard["kept"] for guard in found["variants"][each.tags["variant"]]["guard"]]
        assert each.tags.get("policy/kept", "none").split(":")[0] == (kept[0] if each.tags["stage"] == "policy" else "none")
    assert all("test/NDCG@10" in run.metrics for run in trained)
    refused = cli("ablate", "--stage", "policy", "--over", "policy.objective", *SMALL[:-2])
    assert (refused.code, "needs policy, which this config leaves empty" in refused.said) == (2, True)
