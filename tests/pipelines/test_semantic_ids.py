"""The semantic ids of a run: made, kept, extended, refused; and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import Cli
from planted_data import planted_config, write_dataset

from pipelines import semantic_ids as stage
from pipelines.semantic_ids import build_ids, semantic_ids
from pipelines.train import train_retriever
from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.columns import FIRST_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.generate import stored

CONTENT = {"vectors": {"kind": "content"}, "quantizer": {"kind": "balanced_kmeans", "levels": 2, "codes": 4}}
JOINT = CONTENT | {"vectors": {"kind": "joint"}}
OPEN = {"limits": {"max_collision_rate": 1.0}}


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def planted(folder: Path, items: int, tags_seed: int = 0) -> Dataset:
    """Items with three tags each; the first ones have the same tags whatever the number of items."""
    rng = np.random.default_rng(tags_seed)
    tags = [[1]] * FIRST_ID + [rng.choice(np.arange(FIRST_ID, 30), 3, replace=False).tolist() for _ in range(items)]
    timelines = [[FIRST_ID + (user + step) % 20 for step in range(6)] for user in range(20)]
    return write_dataset(folder, timelines, num_items=items + FIRST_ID, features={"tags": ("item", tags)})


def config(ids: dict[str, Any], **fit: Any) -> RunConfig:
    return planted_config({"epochs": 1, "batch_size": 8, **fit}, generator={"ids": ids | OPEN})


def test_ids_are_read_as_they_were_made(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), config(CONTENT)
    data = planted(workspace.dataset, 40)
    manifest = build_ids(settings, data, workspace)
    ids = semantic_ids(settings, data, workspace)
    assert list(ids.sizes) == manifest["sizes"]
    table = pl.read_ipc(workspace.semantic_ids / stored.CODES_FILE)
    assert table["item_id"].to_list() == data.item_ids
    assert table.drop("item_id").to_numpy().tolist() == ids.code_IT.tolist()
    assert read_manifest(workspace.semantic_ids, "semantic_ids", verify=True)["fingerprint"] == manifest["fingerprint"]
    again = Workspace(tmp_path / "again")
    assert build_ids(settings, data, again)["fingerprint"] == manifest["fingerprint"], "the same bytes"


def test_ids_that_fit_are_kept_and_extended_for_new_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, settings = Workspace(tmp_path), config(CONTENT)
    data = planted(workspace.dataset, 40)
    first = build_ids(settings, data, workspace)
    old = semantic_ids(settings, data, workspace)
    with monkeypatch.context() as patch:
        patch.setattr(stage.assign, "assign", None)  # nothing may be fitted again
        assert build_ids(settings, data, workspace)["fingerprint"] == first["fingerprint"]
        grown = planted(tmp_path / "grown", 47)
        in_memory = semantic_ids(settings, grown, workspace)
        second = build_ids(settings, grown, workspace)
    assert second["built"] == "extended by 7 items"
    assert second["quality"]["items"] == 47
    stored_ids = semantic_ids(settings, grown, workspace)
    assert (stored_ids.code_IT == in_memory.code_IT).all()
    assert (stored_ids.code_IT[: old.num_items] == old.code_IT).all()
    assert build_ids(settings, grown, workspace, anew=True)["built"] == "fitted"


def test_ids_of_other_settings_or_items_are_refused_and_made_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    data = planted(workspace.dataset, 40)
    with pytest.raises(InputError, match="holds no semantic_ids: make it with `recsys ids`"):
        semantic_ids(config(CONTENT), data, workspace)
    build_ids(config(CONTENT), data, workspace)
    with pytest.raises(InputError, match=r"was made with other settings \(generator.ids\).*: run `recsys ids --anew`"):
        semantic_ids(config(CONTENT | {"spare": 9}), data, workspace)
    fewer = planted(tmp_path / "fewer", 30)
    with pytest.raises(InputError, match="has ids of other items than those of"):
        semantic_ids(config(CONTENT), fewer, workspace)
    assert build_ids(config(CONTENT), fewer, workspace)["built"] == "fitted"
    assert semantic_ids(config(CONTENT), fewer, workspace).num_items == 30 + FIRST_ID
    with pytest.raises(InputError, match="has no `generator` section"):
        semantic_ids(planted_config(), data, workspace)


def test_refused_ids_leave_those_that_were_there(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    data = planted(workspace.dataset, 40)
    kept = build_ids(config(CONTENT), data, workspace)["fingerprint"]
    strict = planted_config(generator={"ids": CONTENT | {"limits": {"max_collision_rate": 0.0}}})
    with pytest.raises(InputError, match=r"above limits\.max_collision_rate 0\.0"):
        build_ids(strict, data, workspace)
    assert read_manifest(workspace.semantic_ids, "semantic_ids")["fingerprint"] == kept


@pytest.mark.filterwarnings("ignore:Please use DTensor")
def test_joint_ids_follow_the_retriever_they_were_made_from(group: torch.device, tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), config(JOINT)
    data = planted(workspace.dataset, 40)
    with pytest.raises(InputError, match="retriever holds no checkpoint"):
        build_ids(settings, data, workspace)

    def train(**fit: Any) -> str:
        out = train_retriever(config(JOINT, **fit), data, workspace.checkpoint("retriever"), device=group, progress=Silent())
        return str(out["fingerprint"])

    first = train()
    manifest = build_ids(settings, data, workspace)
    assert manifest["retriever"] == first
    grown = planted(tmp_path / "grown", 44)
    extended = semantic_ids(settings, grown, workspace)
    assert extended.num_items == 44 + FIRST_ID

    second = train(epochs=2)
    assert second != first
    assert semantic_ids(settings, data, workspace).num_items == 40 + FIRST_ID, "ids of old items stay valid"
    with pytest.raises(InputError, match=r"was made from another retriever than .*run `recsys ids --anew`"):
        semantic_ids(settings, grown, workspace)
    assert build_ids(settings, data, workspace)["retriever"] == second, "made again, since the retriever is another"


def test_the_command_makes_shows_and_tracks_ids(cli: Cli, tmp_path: Path) -> None:
    from recsys import track

    raw = tmp_path / "raw"
    raw.mkdir()
    words = ("garden", "ink", "espresso", "running", "violin")
    items = [{"item": f"i{n}", "title": f"{words[n % 5]} thing {n * 7919}"} for n in range(40)]
    events = [
        {"user": f"u{u}", "item": f"i{(4 * u + n) % 40}", "time": 1_700_000_000 + n} for u in range(10) for n in range(12)
    ]
    pl.DataFrame(items).write_csv(raw / "items.csv")
    pl.DataFrame(events).write_csv(raw / "events.csv")
    settings = {
        "name": "tiny",
        "data": {
            "events": {"path": "events.csv", "user": "\"user\"", "item": "item", "time": "time"},
            "items": {"path": "items.csv", "id": "item", "title": "title"}, "split": {"kind": "leave_one_out"},
        },
        "generator": {"ids": {"quantizer": {"kind": "balanced_kmeans", "levels": 2, "codes": 5}} | OPEN},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings))
    assert not cli("prepare", "--config", "tiny.yaml", "--data", "raw").failed
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with track.start_run("recsys", "tiny", data="-", uri=store) as run:
        Workspace(tmp_path / "runs" / "tiny").remember_run(run.run_id)
    done = cli("ids", "--config", "tiny.yaml", "--store", store, "--json")
    assert not done.failed, done.said
    shown = json.loads(done.out)
    assert shown["sizes"][:2] == [5, 5]
    assert "Semantic ids of 40 items" in done.said
    assert "next: recsys train --config tiny.yaml" in done.said
    found = track.get_run(run.run_id, uri=store)
    assert found.metrics["ids/usage/1"] == 1.0
    assert found.metrics["ids/collision_rate"] == pytest.approx(shown["quality"]["collision_rate"])
    assert found.tags["semantic_ids"] == shown["fingerprint"]
    assert len(list(tmp_path.rglob("semantic_ids.png"))) == 1
    refused = cli("ids", "--config", "tiny.yaml", "--store", store, "--set", "generator.ids.limits.max_collisions=1")
    assert refused.code == 2
    assert "items share all codes (such as" in refused.said
