"""One chunk of the log: who comes when and for what, what the policy shows, what the user does.

Shapes: Q sessions, R requests (pages), S slots of a page, N = R * S impressions, U users, I items, C categories,
D latent dimensions, K tasks.
"""

import numpy as np
import polars as pl

from recsys.simulate.behaviour import DrawnLuck, Impressions, Reaction, attention, react, seen, slip_rate
from recsys.simulate.settings import Simulation
from recsys.simulate.world import TASKS, Floats, Ints, World

MAX_SESSION_REQUESTS = 12
SESSION_GAP_MS = 40_000  # mean time between two pages of a session
POLICY_TASTE, POLICY_FOCUS = 2.0, 2.0  # the policy knows tastes and the session's focus, as a tuned recommender would
FOCUS_STAY, FOCUS_MOVE = 0.6, 0.25  # next page: same focus, the category that follows it, otherwise drawn again from taste


def visits(
    spec: Simulation, world: World, taste_UD: Floats, requests: int, window_ms: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """(user_R, focus_R, time_R) in order of time: who asks for a page, for which category, how many ms into the window.

    A session keeps to the window. No two requests of the window share a time.
    """
    request_R = np.arange(requests)
    length_Q = np.minimum(rng.geometric(1 / spec.session_requests, requests), MAX_SESSION_REQUESTS)
    end_Q = np.cumsum(length_Q)
    session_R = np.searchsorted(end_Q, request_R, side="right")
    end_Q = np.minimum(end_Q[: session_R[-1] + 1], requests)
    first_Q = np.concatenate([[0], end_Q[:-1]])
    step_R = request_R - first_Q[session_R]
    drawn_Q = np.searchsorted(world.activity_U, rng.random(len(end_Q)), side="right")
    user_R = np.minimum(drawn_Q, spec.users - 1)[session_R]

    room_ms = window_ms - requests  # what is left moves requests apart that fall on the same millisecond
    elapsed_R = np.cumsum(rng.exponential(SESSION_GAP_MS, requests))
    elapsed_R = np.minimum(elapsed_R - elapsed_R[first_Q][session_R], room_ms // 2)
    start_Q = rng.random(len(end_Q)) * (room_ms - elapsed_R[end_Q - 1])
    time_R = (start_Q[session_R] + elapsed_R).astype(np.int64)

    fresh_R = _draw(_softmax(_affinity(taste_UD[user_R], world.centroid_CD)), rng.random((requests, 1)))[:, 0]
    change_R = rng.random(requests)
    focus_R = fresh_R.copy()
    for step in range(1, int(step_R.max()) + 1):
        here = np.flatnonzero(step_R == step)
        before = focus_R[here - 1]
        focus_R[here] = np.select(
            [change_R[here] < FOCUS_STAY, change_R[here] < FOCUS_STAY + FOCUS_MOVE],
            [before, world.successor_C[before]],
            fresh_R[here],
        )

    order_R = np.argsort(time_R, kind="stable")
    time_R = np.maximum.accumulate(time_R[order_R] - request_R) + request_R
    return user_R[order_R], focus_R[order_R], time_R


def impressions(
    spec: Simulation, world: World, taste_UD: Floats, user_R: Ints, focus_R: Ints, time_R: Ints, rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(log, truth) of these pages, a row per impression; `user` and `item` are rows of their tables.

    Policy: each slot by itself, uniform over the items with probability `explore_share`, otherwise a category by
    popularity * exp(taste and focus), then an item of it by popularity. The propensity is exactly that mixture's mass.
    """
    item_RS, propensity_RS = choose(spec, world, taste_UD[user_R], focus_R, rng)
    shown = seen(world, taste_UD[user_R], user_R, focus_R, item_RS)
    attention_N = np.tile(attention(spec), len(user_R))
    slip = slip_rate(spec, attention_N, shown.relevance_N)
    done = react(world, shown, attention_N, slip, DrawnLuck(rng, len(attention_N)))
    events = event_rows(shown, done, propensity_RS.ravel(), time_R, spec.slots)
    truth = {"accidental": done.accidental_N, "relevance": shown.relevance_N, "examined": done.examined_N}
    return events, pl.DataFrame(truth)


def choose(
    spec: Simulation, world: World, taste_RD: Floats, focus_R: Ints, rng: np.random.Generator
) -> tuple[Ints, Floats]:  # fmt: skip
    """(item_RS, propensity_RS) that the logging policy shows."""
    R, S = len(focus_R), spec.slots
    chance_RC = category_chance(world, taste_RD, focus_R)
    item_RS = _draw_items(world, _draw(chance_RC, rng.random((R, S))), rng.random((R, S)))
    explore_RS = rng.random((R, S)) < spec.explore_share
    item_RS[explore_RS] = rng.integers(spec.items, size=int(explore_RS.sum()))
    chance_RS = chance_RC[np.arange(R)[:, None], world.category_I[item_RS]] * world.within_I[item_RS]
    return item_RS, spec.explore_share / spec.items + (1 - spec.explore_share) * chance_RS


def event_rows(shown: Impressions, done: Reaction, propensity_N: Floats, time_R: Ints, slots: int) -> pl.DataFrame:
    """The log's rows of pages of `slots` items; users, items and pages by number, times as in `time_R`."""
    return pl.DataFrame(
        {
            "user": shown.user_N,
            "item": shown.item_N,
            "time_ms": np.repeat(time_R, slots),
            "request_id": np.repeat(np.arange(len(time_R)), slots),
            "slot": np.tile(np.arange(slots, dtype=np.int8), len(time_R)),
            "propensity": propensity_N.astype(np.float32),
            **dict(zip(TASKS, done.label_KN, strict=True)),
            "dwell_ms": done.dwell_N,
        }
    ).with_columns(pl.when(pl.col("click") == 1).then("dwell_ms"))


def category_chance(world: World, taste_RD: Floats, focus_R: Ints) -> Floats:
    """chance_RC of the policy where it does not explore; an item of the category then comes by its popularity within it."""
    logit_RC = POLICY_TASTE * _affinity(taste_RD, world.centroid_CD) + np.log(world.mass_C)
    logit_RC[np.arange(len(focus_R)), focus_R] += POLICY_FOCUS
    return _softmax(logit_RC)


def _affinity(taste_RD: Floats, centroid_CD: Floats) -> Floats:
    # Not a matrix product: BLAS rounds differently with another number of threads, and then the bytes of the log differ.
    return np.einsum("rd,cd->rc", taste_RD, centroid_CD).astype(np.float64) / centroid_CD.shape[1] ** 0.5


def _softmax(logit_RC: Floats) -> Floats:
    weight_RC = np.exp(logit_RC - logit_RC.max(axis=1, keepdims=True))
    return weight_RC / weight_RC.sum(axis=1, keepdims=True)


def _draw(chance_RC: Floats, uniform_RS: Floats) -> Ints:
    """index_RS drawn from chance_RC by one search over all rows: the cumulative sum of row r runs from r to r + 1."""
    R, C = chance_RC.shape
    row_R = np.arange(R)[:, None]
    cumulative_RC = np.cumsum(chance_RC, axis=1)
    cumulative_RC = cumulative_RC / cumulative_RC[:, -1:] + row_R
    found_RS = np.searchsorted(cumulative_RC.ravel(), uniform_RS + row_R, side="right") - row_R * C
    return np.clip(found_RS, 0, C - 1)  # rounding at the end of a row


def _draw_items(world: World, category_RS: Ints, uniform_RS: Floats) -> Ints:
    """item_RS of the given categories, by popularity."""
    ends_C = np.concatenate([[0.0], world.cumulative_I[world.first_C[1:] - 1]])
    low_RS, high_RS = ends_C[category_RS], ends_C[category_RS + 1]
    place_RS = np.searchsorted(world.cumulative_I, low_RS + uniform_RS * (high_RS - low_RS), side="right")
    return world.by_category_I[np.clip(place_RS, world.first_C[category_RS], world.first_C[category_RS + 1] - 1)]
