"""What a loop is asked to play: policies that differ from a base, and what cannot be played."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipelines.loop.measures import DayValues, head
from pipelines.loop.pages import contexts
from pipelines.loop.plan import BASE, LoopConfig, policies, world_of
from pipelines.loop.report import beside
from pipelines.workspace import config_path
from recsys.config import RunConfig, load
from recsys.errors import InputError
from recsys.simulate.files import Files
from recsys.simulate.loop import audiences
from recsys.simulate.world import make_world

if TYPE_CHECKING:
    from conftest import Cli

LOOP = LoopConfig(days=2, warm_up=4)


def load_demo(*overrides: str) -> RunConfig:
    return load(config_path("demo"), "data.events.arrives=by_folder", *overrides)


def test_policies_differ_in_their_config_or_in_how_they_are_played() -> None:
    text = "frozen: {loop.train_every: 0}\nwide: {retriever.encoder.dim: 32, loop.ask: {filter_seen: true}}"
    base, frozen, wide = policies(LOOP, [text], load_demo)
    assert (base.name, frozen.name, wide.name) == (BASE, "frozen", "wide")
    assert frozen.config == base.config
    assert frozen.loop == LOOP.model_copy(update={"train_every": 0})
    assert wide.config.retriever.encoder.dim == 32
    assert wide.loop.ask == {"filter_seen": True}
    assert base.loop.ask == {"filter_seen": False}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {retriever.encoder.dim: 64}", "changes nothing"),
        ("base: {seed: 3}", "'base' twice"),
        ("a: {loop.days: 3}", "loop.days, which must be equal"),
        ("a: {loop.trane_every: 3}", "vary a: loop.trane_every"),
        ("a: {loop.ask: {user_id: u1}}", "loop.ask names user_id"),
        ("a: {loop.ask: {filter_sen: true}}", "filter_sen"),
        ("a: {retriever.fit.epocs: 3}", "vary a: .*epocs"),
        ("a: {data.events.history: like = 1}", "changes data.events"),
        ("a", "write 'NAME: {section.key: value}'"),
        ("a/b: {seed: 3}", "name of letters and digits"),
        ("a: {", "not valid YAML"),
    ],
)
def test_what_cannot_be_compared_is_said(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        policies(LOOP, [text], load_demo)


def test_a_log_that_arrives_at_once_is_refused() -> None:
    with pytest.raises(InputError, match="arrives is together"):
        policies(LOOP, [], lambda *more: load_demo("data.events.arrives=together", *more))


def test_the_log_before_the_loop_has_the_events_that_were_asked_for() -> None:
    world = world_of(LOOP, events=4000, users=50, items=40)
    assert (world.days, world.events) == (6, 6000)
    with pytest.raises(InputError, match="too few"):
        world_of(LOOP, events=300, users=50, items=40)


def test_context_is_read_as_prepare_reads_it() -> None:
    world = world_of(LOOP, events=4000, users=50, items=40)
    files = Files(world, make_world(world))
    part = next(iter(audiences(world, files.world, first_day=4)))
    known = contexts(files, part, {"hour": "FLOOR(time_ms / 3600000) % 24", "who": "user_id"})
    hours = (part.visits.time_R + part.visits.start_ms) // 3_600_000 % 24
    assert [each["hour"] for each in known] == [str(hour) for hour in hours]
    assert known[3]["who"] == f"u{part.visits.user_R[3]}"
    assert files.date(part.visits.day) == date(2026, 1, 5)
    with pytest.raises(InputError, match="device"):
        contexts(files, part, {"device": "device"})


def test_the_head_is_what_was_shown_most() -> None:
    assert np.flatnonzero(head(np.array([3, 9, 1, 4, 7, 0, 0, 0, 0, 0, 2, 8, 0, 0, 0, 0, 0, 0, 0, 0]))).tolist() == [1, 11]


def test_a_difference_by_hand() -> None:
    """Two users; the second has two pages, which count by what they are worth. NDCG is a mean over pages."""
    user_R, best_R = np.array([4, 7, 7]), np.array([2.0, 1.0, 3.0])
    ours, base = (
        DayValues(user_R, np.array(value_R), best_R, np.array(ndcg_R))
        for value_R, ndcg_R in (([1.0, 1.0, 1.0], [0.5, 0.9, 0.4]), ([0.5, 0.0, 1.0], [0.6, 0.3, 0.3]))
    )
    found = beside([ours], [base])
    assert found["mean"] == pytest.approx(((1 - 0.5) / 2 + (2 - 1) / 4) / 2)
    assert found["ndcg"]["mean"] == pytest.approx(1.8 / 1.2 - 1)
    assert found["ndcg"]["low"] == pytest.approx(0.5 / 0.6 - 1)  # the first user alone, or the second
    assert found["ndcg"]["high"] == pytest.approx(1.3 / 0.6 - 1)
    with pytest.raises(InputError, match="other users"):
        beside([ours], [DayValues(user_R[::-1], base.value_R, best_R, base.ndcg_R)])


def test_the_command_says_what_is_wrong_before_it_plays(cli: "Cli", tmp_path: Path) -> None:
    words: list[Any] = ["simulate", "--loop", "2", "--days", "4", "--events", "4000", "--users", "50", "--items", "40"]
    assert "changes nothing" in cli(*words, "--vary", "a: {seed: 1}", "--set", "seed=1").said
    assert "--loop 400" in cli("simulate", "--loop", "400").said
    assert not (tmp_path / "runs").exists()
