"""One chunk of the log: who comes when and for what, what the policy shows, what the user does.

Shapes: Q sessions, R requests (pages), S slots of a page, N = R * S impressions, U users, I items, C categories,
D latent dimensions, K tasks.
"""

import numpy as np
import polars as pl

from recsys.simulate.settings import Simulation
from recsys.simulate.world import TASKS, Floats, Ints, World

MAX_SESSION_REQUESTS = 12
SESSION_GAP_MS = 40_000  # mean time between two pages of a session
MAX_DWELL_MS = 3_600_000

# Logit of a task = intercept + slope * (affinity + FOCUS_AFFINITY if the item is in focus) + user's bias + item's bias.
# The values give about 18 % clicks, 50 % long views of clicks, 25 % likes of long views and 20 % purchases of likes.
INTERCEPT_K = np.array([-2.2, -1.3, -3.4, -4.3], np.float32)
SLOPE_K = np.array([1.0, 0.8, 0.9, 0.9], np.float32)
FOCUS_AFFINITY = 1.0
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
    R, S = len(user_R), spec.slots
    page_R = np.arange(R)
    taste_RD = taste_UD[user_R]
    chance_RC = category_chance(world, taste_RD, focus_R)
    item_RS = _draw_items(world, _draw(chance_RC, rng.random((R, S))), rng.random((R, S)))
    explore_RS = rng.random((R, S)) < spec.explore_share
    item_RS[explore_RS] = rng.integers(spec.items, size=int(explore_RS.sum()))
    category_RS = world.category_I[item_RS]
    chance_RS = chance_RC[page_R[:, None], category_RS] * world.within_I[item_RS]
    propensity_RS = spec.explore_share / spec.items + (1 - spec.explore_share) * chance_RS

    affinity_RS = np.einsum("rd,rsd->rs", taste_RD, world.latent_ID[item_RS]) / np.float32(spec.latent_dim**0.5)
    affinity_RS += np.float32(FOCUS_AFFINITY) * (category_RS == focus_R[:, None])
    user_N, item_N, affinity_N = np.repeat(user_R, S), item_RS.ravel(), affinity_RS.ravel()

    def chance(task: int, rows: Ints | slice) -> Floats:
        return task_chance(task, affinity_N[rows], world.bias_UK[user_N[rows], task] + world.bias_IK[item_N[rows], task])

    relevance_N = chance(0, slice(None))
    attention_N = np.tile(np.arange(1.0, S + 1) ** -spec.position_decay, R)
    examined_N = rng.random(R * S) < attention_N
    relevant_N = rng.random(R * S) < relevance_N
    # Of the examined but irrelevant impressions, the share clicked by accident that makes accidental_share of all clicks.
    odds = spec.accidental_share / (1 - spec.accidental_share)
    slip = odds * np.sum(attention_N * relevance_N, dtype=float) / np.sum(attention_N * (1 - relevance_N), dtype=float)
    accidental_N = examined_N & ~relevant_N & (rng.random(R * S) < slip)
    label_KN = np.zeros((len(TASKS), R * S), np.int8)
    label_KN[0] = examined_N & relevant_N
    for task in range(1, len(TASKS)):
        passed = np.flatnonzero(label_KN[task - 1])
        label_KN[task, passed] = rng.random(len(passed)) < chance(task, passed)
    label_KN[0] |= accidental_N

    clicked = np.flatnonzero(label_KN[0])
    typical_ms = np.where(label_KN[1, clicked], 60_000.0, np.where(accidental_N[clicked], 2_000.0, 8_000.0))
    dwell_N = np.zeros(R * S, np.int32)
    dwell_N[clicked] = np.minimum(typical_ms * rng.lognormal(0, 0.6, len(clicked)), MAX_DWELL_MS)
    events = pl.DataFrame(
        {
            "user": user_N,
            "item": item_N,
            "time_ms": np.repeat(time_R, S),
            "request_id": np.repeat(page_R, S),
            "slot": np.tile(np.arange(S, dtype=np.int8), R),
            "propensity": propensity_RS.ravel().astype(np.float32),
            **dict(zip(TASKS, label_KN, strict=True)),
            "dwell_ms": dwell_N,
        }
    ).with_columns(pl.when(pl.col("click") == 1).then("dwell_ms"))
    return events, pl.DataFrame({"accidental": accidental_N, "relevance": relevance_N, "examined": examined_N})


def category_chance(world: World, taste_RD: Floats, focus_R: Ints) -> Floats:
    """chance_RC of the policy where it does not explore; an item of the category then comes by its popularity within it."""
    logit_RC = POLICY_TASTE * _affinity(taste_RD, world.centroid_CD) + np.log(world.mass_C)
    logit_RC[np.arange(len(focus_R)), focus_R] += POLICY_FOCUS
    return _softmax(logit_RC)


def task_chance(task: int, affinity_N: Floats, bias_N: Floats) -> Floats:
    """chance_N that whoever looks at an item means to do this; of a later task, after the one before it."""
    return 1 / (1 + np.exp(-(INTERCEPT_K[task] + SLOPE_K[task] * affinity_N + bias_N)))


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
