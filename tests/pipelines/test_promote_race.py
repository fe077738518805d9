"""Several promotions at once, in processes of their own: exactly one wins each round, and a killed one is stepped over."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow_server import Server
from promotion_world import World, values

from pipelines.promotion.promote import judge, settle
from recsys import track
from recsys.promotion_config import PromotionConfig

RACERS, ROUNDS = 4, 2
# Judges its version when told to, settles when told to, and says what came of it. "die" kills it between the two aliases.
RACER = """
import os, signal, sys
from pipelines.promotion.promote import judge, settle
from recsys import track
from recsys.promotion_config import PromotionConfig
uri, model, version = sys.argv[1], sys.argv[2], int(sys.argv[3])
for line in sys.stdin:
    if line == "judge\\n":
        decision = judge(model, PromotionConfig(), first_k=10, version=version, uri=uri)
        print("passed" if decision.passed else "failed", flush=True)
    if line == "settle\\n":
        print(settle(decision, uri=uri).outcome, flush=True)
    if line == "die\\n":
        real = track.set_alias
        def die(*words, **options):
            real(*words, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        track.set_alias = die
        settle(decision, uri=uri)
"""


class Racer:
    def __init__(self, world: World, version: int) -> None:
        words = [sys.executable, "-c", RACER, world.uri, world.model, str(version)]
        self.version = version
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(params=["sqlite", "server"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "sqlite":
        yield World(f"sqlite:///{tmp_path / 'mlflow.db'}", "racing", tmp_path / "files")
        return
    server = Server(tmp_path / "server")
    try:
        server.start()
        yield World(server.uri, "racing", tmp_path / "files")
    finally:
        server.kill()


def test_exactly_one_of_several_promotions_wins(world: World) -> None:
    for number in range(RACERS):
        world.add(values(0.2, seed=0), slice_users={}, change={"loss": number})
    racers = [Racer(world, number + 1) for number in range(RACERS)]
    champion: int | None = None
    for _ in range(ROUNDS):
        for word, expected in (("judge", {"passed"}), ("settle", {"promoted", "lost", "already"})):
            for racer in racers:
                racer.tell(word)
            said = {racer.version: racer.hear() for racer in racers}
            assert set(said.values()) <= expected
        winners = [version for version, outcome in said.items() if outcome == "promoted"]
        assert len(winners) == 1, said
        assert [version for version, outcome in said.items() if outcome == "already"] == ([champion] if champion else [])
        assert world.aliases() == {"champion": winners[0], "previous": champion}
        for version, outcome in said.items():
            assert world.tags(version)["promotion/decision"] == ("promoted" if outcome == "already" else outcome)
        (loser,) = [version for version, outcome in said.items() if outcome == "lost"][:1]
        client = track.store.open_store(world.uri)
        assert (
            f"version {winners[0]} became champion while this was judged"
            in client.get_model_version("racing", str(loser)).description
        )
        champion = winners[0]
    for racer in racers:
        racer.stop()


@pytest.mark.parametrize("world", ["sqlite"], indirect=True)
def test_a_promotion_that_is_killed_is_waited_for_and_stepped_over(world: World) -> None:
    for mean in (0.2, 0.25, 0.3):
        world.add(values(mean))
    assert settle(judge(world.model, PromotionConfig(), first_k=10, version=1, uri=world.uri), uri=world.uri).promoted
    killed = Racer(world, 2)
    killed.tell("judge")
    assert killed.hear() == "passed"
    killed.tell("die")
    assert killed.process.wait(timeout=60) == -signal.SIGKILL
    killed.stop()
    assert world.aliases() == {"champion": 1, "previous": 1}  # the champion is whole; the promotion of 2 did not happen
    waiting = Racer(world, 3)
    waiting.tell("judge")
    assert waiting.hear() == "passed"
    waiting.tell("settle")
    time.sleep(2)
    assert world.aliases()["champion"] == 1  # it waits for the lease of the dead
    with closing(sqlite3.connect(world.uri.removeprefix("sqlite:///"))) as store, store:
        store.execute("UPDATE experiments SET creation_time = creation_time - 61000 WHERE name LIKE 'recsys claim/%'")
    assert waiting.hear() == "promoted"
    waiting.stop()
    assert world.aliases() == {"champion": 3, "previous": 1}
