"""Promotion and rollback over real runs in a real store: what moves, what is written, and what bad input says."""

import io
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from promotion_world import METRIC, World, values
from rich.console import Console

from pipelines.promotion import promote, rollback
from pipelines.promotion.decision import Decision
from pipelines.promotion.record import render, sentence
from recsys import track
from recsys.errors import InputError
from recsys.promotion_config import PromotionConfig

CONFIG = "name: {name}\ndata: {{events: {{path: log.csv, user: u, item: i, time: t, columns: {{t: int}}}}}}\n"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('promote') / 'mlflow.db'}"


@pytest.fixture
def world(uri: str, request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(uri, re.sub(r"[^a-z0-9]+", "-", request.node.name).strip("-"), tmp_path / "files")


@pytest.fixture
def go(world: World) -> Callable[..., Decision]:
    def run(*, dry_run: bool = False, version: int | None = None, **rules: Any) -> Decision:
        return promote.promote(
            world.model, PromotionConfig.model_validate(rules), first_k=10, version=version, dry_run=dry_run, uri=world.uri
        )

    return run


def back(world: World, to: int | None = None) -> rollback.Rollback:
    return rollback.rollback(world.model, to=to, uri=world.uri)


def text(decision: Decision) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(decision))
    return console.file.getvalue()  # type: ignore[attr-defined]


def everything(world: World) -> Any:
    """All that the registry says of the model."""
    client = MlflowClient(world.uri, registry_uri=world.uri)
    versions = client.search_model_versions(f"name = '{world.model}'")
    model = client.get_registered_model(world.model)
    return dict(model.aliases), {each.version: (dict(each.tags), each.description) for each in versions}


def test_the_first_good_candidate_becomes_champion_and_a_better_one_replaces_it(
    world: World, go: Callable[..., Decision]
) -> None:
    world.add(values(0.2))
    first = go()
    assert (first.outcome, first.champion, first.refused) == ("promoted", None, False)
    assert world.aliases() == {"champion": 1, "previous": None}
    world.add(values(0.25))
    second = go()
    assert (second.promoted, second.champion) == (True, 1)
    assert world.aliases() == {"champion": 2, "previous": 1}
    assert "Promoted: version 2 is the champion; version 1 is kept as previous." in text(second)
    before = everything(world)
    again = go()
    assert (again.outcome, again.refused) == ("already", False)
    assert everything(world) == before
    assert "Version 2 is the champion already; nothing was changed." in text(again)


def test_every_number_is_written_to_the_version(world: World, go: Callable[..., Decision]) -> None:
    world.add()
    MlflowClient(world.uri).update_model_version(world.model, "1", "Trained by hand.\n")
    go()
    tags = world.tags(1)
    assert tags["promotion/decision"] == "promoted"
    assert tags["promotion/champion_before"] == "none"
    assert tags["promotion/parity"].startswith("pass: value 1e-06, limit 0.0001;")
    assert tags["promotion/size"].startswith("off: value 2, limit -;")
    stored = json.loads(tags["promotion/json"])
    assert {gate["name"]: gate["value"] for gate in stored["gates"]}["latency"] == 5.0
    said = MlflowClient(world.uri).get_model_version(world.model, "1").description
    assert said.startswith("Trained by hand.\n## Promotion\n\nPromoted: version 1 is the champion.")
    assert "| parity | pass | 1e-06 | 0.0001 |" in said
    assert "Off: calibration, coverage, popularity_lift, latency, size." in said


def test_a_refusal_changes_no_alias_is_written_and_gives_way_to_the_next_decision(
    world: World, go: Callable[..., Decision]
) -> None:
    world.add(change={"export/parity_max_error": 1.0, "test/coverage@10": float("nan")})
    refused = go(coverage=0.1)
    assert (refused.outcome, refused.refused) == ("refused", True)
    assert world.aliases() == {"champion": None, "previous": None}
    tags = world.tags(1)
    assert (tags["promotion/decision"], tags["promotion/parity"][:4]) == ("refused", "fail")
    assert {gate["name"]: gate["value"] for gate in json.loads(tags["promotion/json"])["gates"]}["coverage"] is None
    assert "Not promoted: parity, coverage failed." in text(refused)
    assert go(parity=None, slices={}).promoted
    assert "promotion/slice/tail" in tags
    assert "promotion/slice/tail" not in world.tags(1)
    said = MlflowClient(world.uri).get_model_version(world.model, "1").description
    assert said.count("## Promotion") == 1


def test_a_worse_candidate_leaves_the_champion(world: World, go: Callable[..., Decision]) -> None:
    world.add(values(0.2))
    go()
    world.add(values(0.18))
    assert [gate.name for gate in go().gates if not gate.passed] == ["champion"]
    assert world.aliases() == {"champion": 1, "previous": None}


def test_a_dry_run_writes_nothing(world: World, go: Callable[..., Decision]) -> None:
    world.add()
    go()
    world.add(values(0.3))
    before = everything(world)
    decision = go(dry_run=True)
    assert (decision.passed, decision.promoted, decision.refused) == (True, False, False)
    assert everything(world) == before
    assert sentence(decision) == "All gates pass; nothing was changed (dry run)."


def test_a_version_can_be_named(world: World, go: Callable[..., Decision]) -> None:
    world.add(values(0.2))
    world.add(values(0.3))
    assert go(version=1).promoted
    assert world.aliases()["champion"] == 1
    with pytest.raises(InputError, match=r"has no version 7: choose from \[1, 2\]"):
        go(version=7)


def test_a_description_stays_within_what_a_store_takes(world: World, go: Callable[..., Decision]) -> None:
    world.add()
    MlflowClient(world.uri).update_model_version(world.model, "1", "x" * 4500)
    go()
    said = MlflowClient(world.uri).get_model_version(world.model, "1").description
    assert 4500 < len(said) <= 5000
    assert said.endswith("\n...")


def test_what_is_gone_is_named(world: World, go: Callable[..., Decision]) -> None:
    with pytest.raises(InputError, match=r"has no version with the alias 'candidate': export a run"):
        go()
    with pytest.raises(InputError, match=f"has no model '{world.model}': export a run"):
        go(version=1)
    world.add()
    world.add(values(0.3), per_user=False)
    lacking = {gate.name: gate for gate in go().gates}
    assert "no NDCG@10 by user" in lacking["floor"].note
    client = MlflowClient(world.uri)
    client.delete_run(world.run_id(2))
    with pytest.raises(InputError, match=r"The run \w+ of version 2 of .* was deleted: restore it with `mlflow runs restore"):
        go()
    shutil.rmtree(Path(client.get_run(world.run_id(1)).info.artifact_uri) / "bundle")
    lost = {gate.name: gate for gate in go(version=1).gates if not gate.passed}
    assert lost["bundle"].note == f"the store has lost manifest.json of runs:/{world.run_id(1)}/bundle: export the run again"


def test_a_run_without_metrics_fails_each_gate_with_its_mend(world: World, go: Callable[..., Decision]) -> None:
    world.add(change=dict.fromkeys(world.good()))
    failed = {gate.name: gate for gate in go(coverage=0.1, size_mib=10).gates if not gate.passed}
    assert set(failed) >= {"parity", "floor", "coverage", "size", "slice/tail"}
    assert all("was not logged" in gate.note for gate in failed.values())


def test_a_deleted_champion_run_blocks_and_a_deleted_champion_version_does_not(
    world: World, go: Callable[..., Decision]
) -> None:
    for mean in (0.2, 0.2):
        world.add(values(mean))
        go()
    world.add(values(0.3))
    MlflowClient(world.uri).delete_run(world.run_id(2))
    assert [gate.name for gate in go().gates if not gate.passed] == ["champion"]
    with sqlite3.connect(world.uri.removeprefix("sqlite:///")) as store:  # the alias stays, as in a store mended by hand
        store.execute(
            "UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE name = ? AND version = 2", [world.model]
        )
    store.close()
    assert world.aliases() == {"champion": None, "previous": 1}
    assert go().promoted
    assert world.aliases()["champion"] == 3


def test_a_store_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The MLflow store http://127.0.0.1:9 cannot be opened"):
        promote.promote("m", PromotionConfig(), first_k=10, uri="http://127.0.0.1:9")


def test_rollback_swaps_once_and_a_second_time_changes_nothing(world: World, go: Callable[..., Decision]) -> None:
    for mean in (0.2, 0.25):
        world.add(values(mean))
        go()
    done = back(world)
    assert (done.changed, done.champion, done.previous) == (True, 1, 2)
    assert world.aliases() == {"champion": 1, "previous": 2}
    assert "promotion/rolled_back" in world.tags(2)
    assert world.tags(2)["promotion/replaced_by"] == "1"
    assert world.tags(1)["promotion/rolled_back_from"] == "2"
    before = everything(world)
    again = back(world)
    assert not again.changed
    assert again.says.startswith("Rolled back already: version 1 came back for version 2; nothing was changed.")
    assert everything(world) == before


def test_what_was_rolled_back_comes_back_only_by_its_number(world: World, go: Callable[..., Decision]) -> None:
    for mean in (0.2, 0.25):
        world.add(values(mean))
        go()
    back(world)
    refused = go()
    assert [gate.name for gate in refused.gates if not gate.passed] == ["standing"]
    assert "insist with --version 2" in sentence(refused) + text(refused)
    assert go(version=2).promoted
    assert world.aliases() == {"champion": 2, "previous": 1}
    assert not {"promotion/rolled_back", "promotion/rolled_back_from"} & set(world.tags(2))
    assert back(world).changed  # and it can be taken back anew
    assert back(world, to=2).changed
    assert world.aliases() == {"champion": 2, "previous": 1}
    assert back(world, to=2).says == "Version 2 is the champion already; nothing was changed."


def test_rollback_refuses_without_somewhere_to_go(world: World, go: Callable[..., Decision]) -> None:
    with pytest.raises(InputError, match="has no champion that could be rolled back"):
        back(world)
    world.add()
    go()
    with pytest.raises(InputError, match="has no version before its champion, version 1: name one --to"):
        back(world)
    with pytest.raises(InputError, match=r"has no version 9: choose from \[1\]"):
        back(world, to=9)


def test_rollback_refuses_what_cannot_be_served(world: World, go: Callable[..., Decision]) -> None:
    world.add(change={"export/parity_max_error": 0.01})
    go(parity=None)
    world.add(values(0.25))
    go()
    with pytest.raises(InputError, match=r"export/parity_max_error is 0.01, the limit is 0.0001"):
        back(world)
    client = MlflowClient(world.uri)
    (Path(client.get_run(world.run_id(1)).info.artifact_uri) / "bundle" / "retrieval.onnx").unlink()
    with pytest.raises(InputError, match=r"has lost retrieval.onnx of its bundle .*: name another version with --to"):
        back(world)
    assert world.aliases() == {"champion": 2, "previous": 1}


@pytest.mark.parametrize("moved", ["previous", "champion"])
def test_a_promotion_or_rollback_that_was_killed_half_way_leaves_a_state_to_go_on_from(
    world: World, go: Callable[..., Decision], monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """Kill after the alias `moved`: before the champion's, the promotion did not happen; a rollback always can be completed."""
    for mean in (0.2, 0.25):
        world.add(values(mean))
        go()
    world.add(values(0.3))
    real = track.set_alias

    def die(name: str, alias: str, version: int, *, uri: str | None = None) -> None:
        real(name, alias, version, uri=uri)
        if alias == moved:
            raise KeyboardInterrupt

    def killed(command: Callable[[], Any]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(track, "set_alias", die)
            with pytest.raises(KeyboardInterrupt):
                command()

    killed(go)
    assert world.aliases() == {"champion": 2 if moved == "previous" else 3, "previous": 2}
    if moved == "previous":
        assert back(world).champion == 1  # the champion's tag still knows who was before
    else:
        killed(lambda: back(world))
        assert world.aliases() == {"champion": 2, "previous": 2}
        assert not back(world).changed
        assert world.aliases() == {"champion": 2, "previous": 3}


def test_the_commands(world: World, cli: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(name=world.model))
    words = ("--config", str(config), "--store", world.uri)
    assert "has no version with the alias 'candidate'" in cli("promote", *words).said
    world.add()
    dry = cli("promote", *words, "--dry-run", "--json")
    assert (dry.code, json.loads(dry.out)["outcome"], world.aliases()["champion"]) == (0, "judged", None)
    refused = cli("promote", *words, "--set", "promotion.size_mib=0.001")
    assert (refused.code, "Not promoted: size failed." in refused.said) == (1, True)
    assert cli("promote", *words).code == 0
    world.add(values(0.3))
    promoted = cli("promote", *words, "--version", "2", "--json")
    assert json.loads(promoted.out)["says"] == "Promoted: version 2 is the champion; version 1 is kept as previous."
    done = cli("rollback", *words, "--json")
    assert (done.code, json.loads(done.out)["champion"], world.aliases()) == (0, 1, {"champion": 1, "previous": 2})
    assert "Rolled back already" in cli("rollback", *words).said
    assert cli("rollback", *words, "--to", "7").code == 2
    assert f"'{METRIC}'" in cli("promote", *words, "--set", f"promotion.metric={METRIC}", "--set", "evaluation.ks=[5]").said
