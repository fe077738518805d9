"""The last step of a day, with the server that `recsys serve --model` starts and that follows the champion."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from daily_world import World, day

from pipelines.daily.steps import reload
from pipelines.daily.today import Today
from pipelines.promotion.facts import CHAMPION
from recsys import track
from recsys.errors import InputError
from serving.client import Client
from serving.models.deployment import Placed, edit, read
from serving.run import free_port, stop, wait_ready

pytestmark = [pytest.mark.filterwarnings("ignore:Please use DTensor"), pytest.mark.usefixtures("joined")]
ALWAYS = "promotion.champion=null"  # what is looked at here comes after the gates


@dataclass(frozen=True)
class Live:
    """Day 4 was run, and its champion is served; day 5 has arrived."""

    world: World
    url: str

    @property
    def folder(self) -> Path:
        return self.world.folder / "live"

    def today(self, seconds: float, **changes: str) -> Today:
        config = self.world.config(ALWAYS, f"daily.reload_seconds={seconds}")
        return Today(config, self.world.raw, self.world.layout, day(5), self.world.state(5), endpoint=self.url, **changes)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, joined: None) -> Iterator[Live]:
    world, port = World.make(tmp_path_factory.mktemp("live")), free_port()
    world.arrive(1, 2, 3, 4)
    assert world.run(4, ALWAYS).decision["outcome"] == "promoted"
    world.arrive(5)
    words = ["--model", "small", "--store", world.uri, "--live", str(world.folder / "live"), "--port", str(port)]
    command = [sys.executable, "-m", "pipelines.cli", "serve", *words, "--every", "0.2", "--no-page"]
    with (world.folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=process, log=world.folder / "log")
        yield Live(world, f"http://127.0.0.1:{port}")
    finally:
        stop(process)


def test_a_day_is_done_when_the_endpoint_answers_with_it(live: Live) -> None:
    world = live.world
    with pytest.raises(InputError, match="does not serve"):
        world.run(5, ALWAYS, "daily.reload_seconds=0.3", endpoint=f"http://127.0.0.1:{free_port()}")
    failed = world.state(5)
    assert (failed.status, failed.error.partition(":")[0]) == ("failed", "reload")
    assert track.get_alias("small", CHAMPION, uri=world.uri).number == failed.champion["after"], "it was promoted before"

    state = world.run(5, ALWAYS, endpoint=live.url)
    assert state.status == "done"
    assert state.steps["promote"] == failed.steps["promote"], "what was done before is not done again"
    with closing(Client(live.url)) as client:
        found = client.recommend(history=[], k=3)
    assert found.version == state.detail("reload")["version"] == state.detail("export")["bundle"]
    assert world.run(5, ALWAYS, endpoint=live.url) == state


def test_a_deployment_that_no_server_takes_in_is_not_live(live: Live) -> None:
    world, wanted = live.world, "0" * 16
    if not world.state(5).is_done("reload"):
        world.run(5, ALWAYS, endpoint=live.url)
    today = live.today(1.5)
    today.state.steps["export"] = today.state.steps["export"].model_copy(update={"detail": {"bundle": wanted}})
    before, damaged = read(live.folder), live.folder / "models" / wanted
    shutil.copytree(before.live.folder, damaged)
    (damaged / "retrieval.onnx").write_text("not a graph")
    try:
        edit(live.folder, lambda now: now.model_copy(update={"live": Placed(folder=damaged, version=wanted)}))
        with pytest.raises(InputError, match=rf"does not serve {wanted} after 2 s \({before.live.version}; "):
            reload(today)
        with closing(Client(live.url)) as client:
            assert client.info().deployment.live == wanted, "the file says what is to answer"
    finally:
        edit(live.folder, lambda now: before)
        shutil.rmtree(damaged)


def test_a_champion_that_stays_is_not_waited_for(live: Live) -> None:
    today = replace(live.today(60), endpoint="http://127.0.0.1:1")
    today.state.steps["promote"] = today.state.steps["arrive"].model_copy(update={"detail": {"outcome": "refused"}})
    assert reload(today)["why_not"] == "the champion stays"
