"""A warm day: an earlier run's models go on with what is new in the log and a replay of the rest."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.models import ranking_graph
from pipelines.train import ranker_job, retriever_job, train_ranker, train_retriever
from pipelines.warm import Warm, warm
from pipelines.workspace import Workspace, config_path, read_state
from recsys.artefact import read_manifest
from recsys.columns import TIME_MS, TRAIN
from recsys.config import RunConfig, load
from recsys.data.build import build
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.loader import Prefetched
from recsys.models.retriever import ITEM_TABLE
from recsys.simulate import Simulation, simulate
from recsys.train.grow import with_unknown_rows
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
TRAINERS: dict[str, Callable[..., dict[str, Any]]] = {"retriever": train_retriever, "ranker": train_ranker}
SMALL = (
    "data.events.arrives=by_folder", "data.split={kind: time, valid_days: 1, test_days: 1}",
    "retriever.encoder.dim=16", "retriever.fit={epochs: 3, batch_size: 16}",
    "ranker.dim=8", "ranker.fit={epochs: 1, batch_size: 256}",
)  # fmt: skip


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


class Days(NamedTuple):
    """Two days one after the other; the models of the first are trained."""

    before: Workspace
    today: Workspace
    raw: Path


def config_of(**continual: Any) -> RunConfig:
    config = load(config_path("demo"), *SMALL)
    return config.model_copy(update={"continual": type(config.continual).model_validate(continual)})


@pytest.fixture(scope="module")
def days(group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Days:
    root = tmp_path_factory.mktemp("days")
    simulate(Simulation(users=150, items=120, events=9000, days=7, zipf_exponent=1.5), root / "log")
    config, found = config_of(), Days(Workspace(root / "before"), Workspace(root / "today"), root / "raw")
    folders = sorted((root / "log" / "events").iterdir())
    for table in ("users.parquet", "items.parquet"):
        found.raw.mkdir(exist_ok=True)
        (found.raw / table).hardlink_to(root / "log" / table)
    for day in folders[:-1]:
        shutil.copytree(day, found.raw / "events" / day.name)
    build(config.data, found.raw, found.before.dataset)
    shutil.copytree(found.before.dataset, found.today.dataset, copy_function=os.link)
    shutil.copytree(folders[-1], found.raw / "events" / folders[-1].name)
    build(config.data, found.raw, found.today.dataset)
    data = Dataset(found.before.dataset)
    for part, train in TRAINERS.items():
        train(config, data, found.before.checkpoint(part), device=group, progress=Silent())
    return found


def run(part: str, days: Days, out: Path, device: torch.device, config: RunConfig, **options: Any) -> dict[str, Any]:
    return TRAINERS[part](
        config, Dataset(days.today.dataset), out, device=device, progress=Silent(),
        start=read_state(days.before, part, config, optimizer=True),
        warm=warm(config, days.before), **options,
    )  # fmt: skip


def parameters(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / MODEL_FILE)


def loader_of(job: Any) -> Any:
    assert isinstance(job.loader, Prefetched)
    return job.loader.loader


def test_news_are_the_rows_that_moved_into_the_training_split(days: Days, group: torch.device) -> None:
    config, old, new = config_of(replay=0.25), Dataset(days.before.dataset), Dataset(days.today.dataset)
    (begin_ms, _), (end_ms, _) = (data.manifest["cuts_ms"] for data in (old, new))
    chosen = warm(config, days.before)

    time_X = np.asarray(new.examples[TIME_MS])
    loader = loader_of(ranker_job(config, new, group, chosen))
    row_X = loader.selection.rows(loader.row_X, 0)
    news = np.flatnonzero((time_X >= begin_ms) & (time_X < end_ms))
    assert len(news) > 500
    assert set(news) <= set(row_X)
    assert (time_X[row_X] < end_ms).all(), "it trains on what is to judge it"
    assert len(row_X) == pytest.approx(len(news) / 0.75, abs=1)
    assert sum(batch.rows for batch in loader.epoch(0)) == len(row_X)

    windows = list(loader_of(retriever_job(config, new, group, chosen)).epoch(0))
    time_N = np.concatenate([batch.time_N[batch.target_N].numpy() for batch in windows])
    timeline_E = new.time_ms_E
    assert sorted(time_N[time_N >= begin_ms]) == sorted(timeline_E[(timeline_E >= begin_ms) & (timeline_E < end_ms)])
    assert 0.1 < (time_N < begin_ms).mean() < 0.4
    assert all(batch.predicted_N.sum() == batch.num_predictions for batch in windows)


@pytest.mark.parametrize("part", TRAINERS)
def test_stopped_and_resumed_equals_undisturbed(part: str, days: Days, group: torch.device, tmp_path: Path) -> None:
    config = config_of(distil={}, average=0.3, weight_align=True, epochs=3)
    steps = run(part, days, tmp_path / "whole", group, config)["steps"]
    assert steps > 3
    for stop in (1, steps // 2, steps):
        torch.manual_seed(stop)
        assert run(part, days, tmp_path / "parts", group, config, stop_after_steps=stop) == {}
    run(part, days, tmp_path / "parts", group, config)
    whole, parts = parameters(tmp_path / "whole"), parameters(tmp_path / "parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


@pytest.mark.parametrize(
    ("part", "change"),
    [
        *((part, change) for part in TRAINERS for change in ({"replay": 0.0}, {"rewarm": 0.1}, {"average": 0.5})),
        ("retriever", {"distil": {"weight": 1.0}}), ("retriever", {"weight_align": True}),
        ("ranker", {"distil": {"weight": 1.0}}),
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_model_and_what_resumes(
    part: str, change: dict[str, Any], days: Days, group: torch.device, tmp_path: Path
) -> None:
    manifests = [run(part, days, tmp_path / str(name), group, config_of(**name)) for name in ({}, change)]
    assert manifests[0]["identity"] != manifests[1]["identity"]
    plain, changed = (parameters(tmp_path / str(name)) for name in ({}, change))
    assert any(not torch.equal(plain[name], changed[name]) for name in plain)


def test_aligning_and_averaging_change_the_rows_that_they_are_about(days: Days, group: torch.device, tmp_path: Path) -> None:
    old, new = Dataset(days.before.dataset), Dataset(days.today.dataset)
    known_I = np.pad(old.train_count_I, (0, new.num_items - old.num_items)) > 0
    fresh = np.flatnonzero(~known_I & (new.train_count_I > 0))
    assert len(fresh), "no item is new"
    run("retriever", days, tmp_path / "plain", group, config_of())
    run("retriever", days, tmp_path / "aligned", group, config_of(weight_align=True))
    run("retriever", days, tmp_path / "averaged", group, config_of(average=0.5))
    plain, aligned, mean = (parameters(tmp_path / name)[ITEM_TABLE] for name in ("plain", "aligned", "averaged"))
    before = parameters(days.before.checkpoint("retriever"))[ITEM_TABLE]
    assert set(np.flatnonzero((plain != aligned).any(1).numpy())) <= set(fresh)
    assert torch.allclose(mean[: len(before)], (plain[: len(before)] + before) / 2, atol=1e-6)
    assert torch.equal(mean[len(before) :], plain[len(before) :])


@pytest.mark.parametrize("part", TRAINERS)
def test_a_distilled_model_stays_nearer_to_the_earlier_one(part: str, days: Days, group: torch.device, tmp_path: Path) -> None:
    before, apart = parameters(days.before.checkpoint(part)), []
    for number, change in enumerate(({}, {"distil": {"weight": 20.0, "temperature": 1.0}})):
        run(part, days, tmp_path / str(number), group, config_of(replay=0.0, epochs=6, rewarm=1.0, **change))
        after = parameters(tmp_path / str(number))
        apart.append(answers_apart(part, days, before, after))
    assert apart[1] < apart[0]


def answers_apart(part: str, days: Days, before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Mean distance of two models' answers: probabilities of the tasks, or of some items."""
    from pipelines.evaluate import judged_examples
    from pipelines.models import retrieval_graph
    from recsys import evaluate

    config, data = config_of(), Dataset(days.today.dataset)
    if part == "ranker":
        sizes = {"user": data.num_users, "item": data.num_items, **{f["name"]: f["size"] for f in data.features}}
        states = [with_unknown_rows(state, sizes) for state in (before, after)]
        loader = judged_examples(config, data)
        first, second = (evaluate.predict(ranking_graph(config, data, state), loader).probability_XT for state in states)
        return float(np.abs(first - second).mean())
    history_BL, length_B = torch.randint(2, 60, (40, 8)), torch.full((40,), 8)
    with torch.no_grad():
        graphs = [retrieval_graph(config, data, state) for state in (before, after)]
        first_BI, second_BI = (graph.scores(history_BL, length_B)[:, 2:60].softmax(1) for graph in graphs)
    return float((first_BI - second_BI).abs().mean())


def test_a_day_without_news_hands_the_model_on(days: Days, group: torch.device, tmp_path: Path) -> None:
    config, data = config_of(), Dataset(days.before.dataset)
    chosen = Warm(config, days.before, data)
    for part, train in TRAINERS.items():
        start = read_state(days.before, part, config)
        manifest = train(config, data, tmp_path / part, device=group, progress=Silent(), start=start, warm=chosen)
        assert manifest["steps"] == 0
        found = parameters(tmp_path / part)
        assert [name for name, tensor in start.state.items() if not torch.equal(tensor, found[name])] == []


def test_what_is_new_must_be_known(days: Days, group: torch.device, tmp_path: Path) -> None:
    config, gone = config_of(), Workspace(tmp_path / "gone")
    with pytest.raises(InputError, match="is not there, so that it cannot be told what is new since: train from scratch"):
        warm(config, gone)
    build(config.data, days.raw, tmp_path / "scratch", anew=True)
    assert (
        read_manifest(tmp_path / "scratch", "dataset")["segments"] != read_manifest(days.today.dataset, "dataset")["segments"]
    )
    with pytest.raises(InputError, match=r"was not appended to .*: train from scratch"):
        warm(config, days.before).selection(Dataset(tmp_path / "scratch"), "ranker")


def test_the_first_examples_keep_their_numbers(days: Days) -> None:
    """What the replay of examples rests on."""
    old, new = Dataset(days.before.dataset), Dataset(days.today.dataset)
    for column in ("user", "item", TIME_MS):
        before = np.asarray(old.examples[column])
        assert np.array_equal(np.asarray(new.examples[column])[: len(before)], before)
    assert set(old.example_rows(TRAIN)) < set(new.example_rows(TRAIN))
