"""`recsys daily`: days in a row, done twice, late, changed, refused; with the real stages and a real MLflow store."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from daily_world import World, day
from safetensors.torch import load_file

from pipelines.daily.dataset import link_dataset
from pipelines.daily.steps import ACTIONS
from pipelines.daily.today import Today
from pipelines.per_user import served
from pipelines.promotion.facts import CHAMPION, PREVIOUS, facts, on_other_data
from recsys import track
from recsys.artefact import file_hash, read_manifest
from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.data.before import RECENT_FILE
from recsys.data.build import build
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.loop import MODEL_FILE

pytestmark = [pytest.mark.filterwarnings("ignore:Please use DTensor"), pytest.mark.usefixtures("joined")]


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory, joined: None) -> World:
    """Days 4, 5 and 6 were run; the first took the days before it, too."""
    world = World.make(tmp_path_factory.mktemp("daily"))
    world.arrive(1, 2, 3, 4)
    for number in (4, 5, 6):
        world.arrive(*([number] if number > 4 else []))
        world.run(number)
    return world


@pytest.fixture
def world(three_days: World, tmp_path: Path) -> World:
    """A copy to change. Its runs are those of the original store, of which it has a copy."""
    shutil.copytree(three_days.folder, tmp_path / "w")
    return World(tmp_path / "w")


class TestDaysInARow:
    def test_the_first_trains_from_scratch_and_the_next_ones_go_on(self, three_days: World) -> None:
        states = [three_days.state(number) for number in (4, 5, 6)]
        assert [state.status for state in states] == ["done"] * 3
        assert [state.mode for state in states] == ["first", "warm", "warm"]
        assert [state.start for state in states] == [None, "2026-01-04", "2026-01-05"]
        built = [state.detail("prepare")["built"] for state in states]
        assert built[0].startswith("built from scratch")
        assert all(each.startswith("appended 1 new file") for each in built[1:])

    def test_a_day_appended_has_the_rows_of_one_built_from_scratch(self, three_days: World, tmp_path: Path) -> None:
        scratch = build(three_days.config().data, three_days.raw, tmp_path / "dataset", until=day(6))
        assert read_manifest(three_days.layout.workspace(day(6)).dataset, "dataset")["content"] == scratch["content"]

    def test_candidate_and_champion_are_compared_user_by_user_on_the_same_data(self, three_days: World) -> None:
        state = three_days.state(6)
        gates = {gate["name"]: gate for gate in state.decision["gates"]}
        assert "not_worse" in gates["champion"]["note"]
        assert gates["champion"]["limit"] is not None
        today, champion = three_days.layout.workspace(day(6)).metrics, three_days.layout.champion(day(6)).metrics
        assert served(today)["user"].to_list() == served(champion)["user"].to_list()
        k = 10
        difference = (served(today)[f"NDCG@{k}"] - served(champion)[f"NDCG@{k}"]).mean()
        assert state.detail("evaluate")["metrics"][f"NDCG@{k}"] - state.detail("evaluate")["champion"]["metrics"][
            f"NDCG@{k}"
        ] == pytest.approx(difference, abs=1e-6)

    def test_the_champions_rows_of_old_ids_are_its_own_and_those_of_new_ids_are_the_unknown_one(
        self, three_days: World
    ) -> None:
        name = "embeddings.items.collection.embeddings.item.weight"
        champion = three_days.state(6).detail("evaluate")["champion"]["day"]
        old = load_file(three_days.layout.root / "days" / champion / "retriever" / MODEL_FILE)
        grown = load_file(three_days.layout.champion(day(6)).checkpoint("retriever") / MODEL_FILE)
        size = len(old[name])
        assert set(old) == set(grown)
        assert torch.equal(grown[name][:size], old[name])
        assert torch.equal(grown[name][size:], old[name][UNKNOWN_ID].expand(len(grown[name]) - size, -1))

    def test_what_the_champion_reaches_stands_in_its_run_below_the_datas_fingerprint(self, three_days: World) -> None:
        state = three_days.state(6)
        version = track.get_version("small", state.detail("evaluate")["champion"]["champion"], uri=three_days.uri)
        run = track.get_run(version.run_id, uri=three_days.uri)
        data = state.detail("prepare")["data_fingerprint"]
        folder = track.artefact(run.id, on_other_data(data), uri=three_days.uri)
        assert folder is not None
        assert (folder / "per_user.parquet").is_file()
        assert run.metrics["later/NDCG@10"] == pytest.approx(state.detail("evaluate")["champion"]["metrics"]["NDCG@10"])
        assert run.tags[track.DATA] != data, "its own data stay what they were"

    def test_the_report_says_what_came_of_it(self, three_days: World) -> None:
        text = (three_days.layout.folder(day(6)) / "report.md").read_text()
        assert text.startswith("# small 2026-01-06: ")
        assert three_days.state(6).decision["says"] in text
        assert "**warm**, goes on from 2026-01-05" in text

    def test_a_run_of_a_finished_day_changes_nothing(self, three_days: World) -> None:
        before = three_days.files()
        version = track.get_alias("small", "candidate", uri=three_days.uri).number
        assert three_days.run(6).status == "done"
        assert three_days.files() == before
        assert track.get_alias("small", "candidate", uri=three_days.uri).number == version


def test_a_day_whose_files_changed_is_done_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "recsys.daily")
    rows = Dataset(world.layout.workspace(day(6)).dataset).manifest["report"]["rows_read"]
    world.change(6)
    state = world.run(6)
    assert state.status == "done"
    assert Dataset(world.layout.workspace(day(6)).dataset).manifest["report"]["rows_read"] == rows - 10
    assert "its raw files changed" in caplog.text
    assert (world.layout.root / "days/2026-01-06.1/day.json").is_file(), "the champion may have come from it"


def test_a_late_day_goes_in_with_the_next_one_and_that_trains_from_scratch(world: World) -> None:
    held = world.partition(3).rename(world.folder / "held")
    for each in (4, 5, 6):
        shutil.rmtree(world.layout.folder(day(each)))
    assert world.run_until(4, "train").mode == "first"
    held.rename(world.partition(3))
    state = world.run_until(5, "train")
    assert (state.mode, state.start) == ("full", None)
    assert "built from scratch: files it was made from changed, or new ones sort before them" in state.why


def test_an_older_day_than_one_that_is_done_is_prepared_and_not_promoted(world: World) -> None:
    before = track.get_alias("small", CHAMPION, uri=world.uri).number
    shutil.rmtree(world.layout.folder(day(5)))
    state = world.run(5)
    assert state.status == "done"
    assert state.decision["outcome"] == "skipped"
    assert "2026-01-06 is newer" in state.decision["says"]
    assert track.get_alias("small", CHAMPION, uri=world.uri).number == before


def test_a_missing_day_stops_before_anything_is_trained(world: World) -> None:
    before = track.get_alias("small", CHAMPION, uri=world.uri).number
    with pytest.raises(InputError, match="2026-01-07"):
        world.run(7)
    state = world.state(7)
    assert (state.status, list(state.steps)) == ("stopped", ["arrive"])
    assert "2026-01-07" in state.error
    assert "stopped" in (world.layout.folder(day(7)) / "report.md").read_text()
    assert track.get_alias("small", CHAMPION, uri=world.uri).number == before
    world.arrive(7)
    state = world.run(7, step="arrive")
    assert (state.status, state.error, state.is_done("arrive")) == ("running", None, True)


def test_a_damaged_artefact_is_made_again_and_equals_the_old_one(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "recsys.daily")
    checkpoint = world.layout.workspace(day(6)).checkpoint("retriever")
    before = read_manifest(checkpoint, "checkpoint")["files"][MODEL_FILE]
    damage(checkpoint / MODEL_FILE)
    state = world.run(6, step="train")
    assert list(state.steps) == ["arrive", "prepare", "train"], "the steps after it are to be done again, too"
    assert "train is done again" in caplog.text
    assert read_manifest(checkpoint, "checkpoint", verify=True)["files"][MODEL_FILE] == before


def damage(path: Path) -> None:
    """Turn over a bit where it lies, under all names that the file has."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_dataset_that_days_share_is_made_again_for_each_and_the_next_day_goes_on(world: World) -> None:
    world.arrive(7)
    datasets = [world.layout.workspace(day(number)).dataset for number in (4, 5, 6)]
    before = [read_manifest(dataset, "dataset")["fingerprint"] for dataset in datasets]
    file = min((datasets[0] / "timeline").iterdir())
    for dataset in datasets[1:]:  # the fixture is a copy, which has the file once for each day
        (dataset / file.relative_to(datasets[0])).unlink()
        (dataset / file.relative_to(datasets[0])).hardlink_to(file)
    damage(file)
    state = world.run(7)
    assert (state.mode, state.start) == ("warm", "2026-01-06")
    assert state.detail("prepare")["built"].startswith("appended 1 new file")
    after = [read_manifest(dataset, "dataset", verify=True)["fingerprint"] for dataset in datasets]
    assert after == before
    assert [path.name for path in world.layout.root.rglob(".again.tmp")] == []


def test_a_linked_dataset_that_is_damaged_before_rows_are_appended_is_linked_again(world: World) -> None:
    world.arrive(7)
    world.run(7, step="arrive")
    link_dataset(world.layout.workspace(day(6)), world.layout.workspace(day(7)))  # as a run leaves it that is killed then
    damage(world.layout.workspace(day(7)).dataset / RECENT_FILE)
    state = world.run(7, step="prepare")
    assert state.detail("prepare")["built"].startswith("appended 1 new file")
    read_manifest(world.layout.workspace(day(6)).dataset, "dataset", verify=True)


def test_the_dataset_that_replay_reads_is_made_again_before_training(world: World) -> None:
    world.arrive(7)
    for step in ("arrive", "prepare"):
        world.run(7, step=step)
    damage(world.layout.workspace(day(6)).dataset / RECENT_FILE)
    state = world.run(7, step="train")
    assert (state.mode, state.start) == ("warm", "2026-01-06")
    read_manifest(world.layout.workspace(day(6)).dataset, "dataset", verify=True)


def test_a_dataset_that_cannot_be_made_as_it_was_is_built_from_scratch(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "recsys.daily")
    world.arrive(7)
    for number in (4, 5, 6):
        damage(min((world.layout.workspace(day(number)).dataset / "timeline").iterdir()))
    world.change(2)
    world.run(7, step="arrive")
    state = world.run(7, step="prepare")
    assert "its dataset comes out as another one now" in caplog.text
    assert state.detail("prepare")["built"].startswith("built from scratch")
    read_manifest(world.layout.workspace(day(7)).dataset, "dataset", verify=True)


def test_a_damaged_champion_is_not_judged(world: World) -> None:
    world.arrive(7)
    run_id = track.get_alias("small", CHAMPION, uri=world.uri).run_id
    home = next(each for each in world.layout.workspaces() if each.run_id == run_id)
    damage(home.checkpoint("retriever") / MODEL_FILE)
    half_made = world.layout.champion(day(7)).root / ".metrics.1.tmp"  # as a run leaves it that is killed while it judges
    half_made.mkdir(parents=True)
    world.run(7)
    assert not half_made.exists()
    found = world.state(7).detail("evaluate")["champion"]
    assert "metrics" not in found
    assert f"{home.checkpoint('retriever') / MODEL_FILE} is missing or differs" in found["why_not"]


def test_raw_files_that_change_while_they_are_read_leave_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.arrive(7)
    world.run(7, step="arrive")
    (file,), prepare = world.partition(7).iterdir(), ACTIONS["prepare"]
    whole = file.read_bytes()

    def meanwhile(today: Today) -> dict[str, Any]:
        world.change(7)
        return prepare(today)

    with monkeypatch.context() as patch:
        patch.setitem(ACTIONS, "prepare", meanwhile)
        with pytest.raises(InputError, match="changed while they were read"):
            world.run(7, step="prepare")
    file.write_bytes(whole)
    state = world.run(7, step="prepare")
    assert state.detail("prepare")["built"].startswith("appended 1 new file")
    inputs = read_manifest(world.layout.workspace(day(7)).dataset, "dataset")["inputs"]
    assert file_hash(file) in str(inputs)


@pytest.mark.parametrize("what", ["bundle", "metrics", "retriever"])
def test_what_is_damaged_after_a_promotion_leaves_champion_and_previous_as_they_were(world: World, what: str) -> None:
    def registry() -> list[str]:
        found = [track.get_alias("small", alias, uri=world.uri) for alias in (CHAMPION, PREVIOUS)]
        return [version.folder for version in found]

    world.arrive(7)
    settings = ("promotion.champion=null",)
    first = world.run(7, *settings)
    before = registry()
    assert len(set(before)) == 2
    folder = world.layout.folder(day(7)) / what
    damage(folder / min(read_manifest(folder, {"retriever": "checkpoint"}.get(what, what))["files"]))
    again = world.run(7, *settings)
    assert registry() == before
    assert (first.decision["outcome"], again.decision["outcome"]) == ("promoted", "promoted")
    champion = track.get_alias("small", CHAMPION, uri=world.uri)
    assert champion.run_id == world.layout.workspace(day(7)).run_id, "or it could not be judged tomorrow"


def test_a_registered_bundle_that_is_damaged_is_sent_again_before_it_is_promoted(world: World) -> None:
    world.arrive(7)
    for step in ("arrive", "prepare", "train", "evaluate", "export"):
        state = world.run(7, step=step)
    version = track.get_version("small", state.detail("export")["version"], uri=world.uri)
    copy = track.artefact(version.run_id, f"{version.folder}/items.arrow", uri=world.uri)
    damage(copy)
    assert world.run(7, step="promote").decision["outcome"] == "promoted"
    read_manifest(copy.parent, "bundle", verify=True)


def test_a_start_that_is_damaged_after_it_was_chosen_is_not_gone_on_from(world: World) -> None:
    world.arrive(7)
    for step in ("arrive", "prepare"):
        world.run(7, step=step)
    state = world.state(7)
    state.mode, state.start = "warm", "2026-01-06"  # as a run leaves it that is killed in training
    state.save(world.layout.state(day(7)))
    damage(world.layout.workspace(day(6)).checkpoint("retriever") / MODEL_FILE)
    assert world.run(7, step="train").start == "2026-01-05"


def test_users_that_are_forgotten_do_not_come_back_with_a_new_day(world: World) -> None:
    world.arrive(7)
    there = set(pl.read_parquet(world.partition(7))["user_id"])
    known = set(Dataset(world.layout.workspace(day(6)).dataset).user_ids)
    new = sorted(there - known)[:1] or sorted(there)[:1]
    world.layout.forgotten.write_text(f'{{"users": ["{new[0]}"]}}')
    shutil.rmtree(world.layout.root / "days")
    world.run_until(7, "prepare")
    assert new[0] not in Dataset(world.layout.workspace(day(7)).dataset).user_ids
    assert len(Dataset(world.layout.workspace(day(7)).dataset).user_ids) > FIRST_ID + 50


def test_a_step_alone_comes_after_the_ones_before_it(world: World) -> None:
    world.arrive(7)
    with pytest.raises(InputError, match="comes after arrive, prepare"):
        world.run(7, step="train")
    with pytest.raises(InputError, match="'trian' is unknown"):
        world.run(7, step="trian")
    assert world.run_until(7, "report").status == "done"


def test_asked_for_a_warm_day_is_trained_from_scratch(world: World) -> None:
    state = world.run(6, full=True, step="train")
    assert (state.mode, state.why, state.start) == ("full", "asked for", None)
    began = state.steps["train"].began
    assert world.run(6, full=True, step="train").steps["train"].began == began, "asked for twice it is done once"


def test_old_days_lose_their_artefacts_but_not_the_champions(world: World) -> None:
    world.run(6, "daily.keep_days=1")
    used = {track.get_alias("small", name, uri=world.uri).run_id for name in ("champion", "previous")}
    kept = {path.parent.name for path in (world.layout.root / "days").glob("*/bundle")}
    expected = {each.root.name for each in world.layout.workspaces() if each.run_id in used} | {"2026-01-06"}
    assert kept == expected
    assert len(kept) < 3
    gone = next(day(each) for each in (4, 5, 6) if day(each).isoformat() not in kept)
    before = world.files()
    assert world.run(gone.day).pruned
    assert world.files() == before


def test_facts_take_the_metrics_of_the_same_data(three_days: World) -> None:
    known = facts("small", three_days.state(6).detail("export")["version"], uri=three_days.uri)
    champion = three_days.state(6).detail("evaluate")["champion"]
    if known.champion.number == champion["champion"]:  # else this day became the champion itself
        assert known.differs(track.DATA) is None
        assert known.champion.metric("test/NDCG@10") == pytest.approx(champion["metrics"]["NDCG@10"])
    first = facts("small", 1, uri=three_days.uri)
    assert first.candidate.metric("test/NDCG@10") == pytest.approx(three_days.state(4).detail("evaluate")["metrics"]["NDCG@10"])
    assert np.isfinite(first.candidate.metric("test/NDCG@10"))
