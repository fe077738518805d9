"""A state that is laid out once answers as one that is read for every query."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features import FEATURES, ROWS, bits, frame

from recsys.features import Frame, Standing, compute, entities, look_up


@settings(max_examples=30, deadline=None)
@given(ROWS, st.lists(ROWS, min_size=1, max_size=3), st.integers(0, 40))
def test_it_gives_the_bits_of_a_look_up_every_time(rows: list[Any], asked: list[list[Any]], pause: int) -> None:
    log, none = frame(rows), frame([])
    for some in entities(FEATURES).values():
        _, state = compute(some, log, log)
        standing = Standing(some, state)
        for step, each in enumerate(asked):  # one after the other, what was remembered included
            queries = frame([(*row[:3], 30 + pause * step, *row[4:]) for row in each])
            assert bits(standing(queries)) == bits(look_up(some, none, queries, state))


def test_a_state_of_some_features_gives_their_values() -> None:
    log = frame([(2, 4, 2, hour, hour % 2, 1) for hour in range(30)])
    later = Frame(log.keys, log.time_ms + 30 * 3_600_000, log.flags)
    _, state = compute(FEATURES, log, log)
    for name, feature in FEATURES.items():
        part = state.only({name: feature})
        assert len(part.tail) <= len(state.tail)
        assert len(part.summaries) == len(feature.tallies)
        np.testing.assert_array_equal(
            look_up({name: feature}, frame([]), later, part)[name], look_up(FEATURES, frame([]), later, state)[name]
        )
