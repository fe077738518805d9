"""Who belongs to the canary: uniform, sticky, and another draw for another salt."""

from itertools import pairwise

import numpy as np
import pytest

from serving.models.split import in_canary

USERS = [f"user-{number}" for number in range(20_000)]
# With one degree of freedom, a fair split exceeds this once in a million draws.
CHI_SQUARE_LIMIT = 23.9


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.93])
def test_the_share_is_kept(share: float) -> None:
    chosen = sum(in_canary(user, "a", share) for user in USERS)
    counts, expected = np.array([chosen, len(USERS) - chosen]), len(USERS) * np.array([share, 1 - share])
    assert chi_square(counts, expected) < CHI_SQUARE_LIMIT


def test_two_salts_are_independent() -> None:
    """Of the 2 x 2 table of two draws at 0.5 each, every cell has a quarter (3 degrees of freedom)."""
    cells = np.bincount([2 * in_canary(user, "a", 0.5) + in_canary(user, "b", 0.5) for user in USERS], minlength=4)
    assert chi_square(cells, np.full(4, len(USERS) / 4)) < 31.0  # once in a million


def test_users_spread_evenly_over_the_whole_range() -> None:
    edges = np.arange(1, 21) / 20
    below = [0, *(sum(in_canary(user, "a", edge) for user in USERS) for edge in edges[:-1]), len(USERS)]
    counts = np.diff(below)
    assert chi_square(counts, np.full(20, len(USERS) / 20)) < 65.0  # 19 degrees of freedom, once in a million


def test_a_user_stays_and_a_larger_share_keeps_those_of_a_smaller_one() -> None:
    draws = [{user for user in USERS[:2000] if in_canary(user, "a", share)} for share in (0.05, 0.05, 0.2, 0.6)]
    assert draws[0] == draws[1]
    assert all(small <= large for small, large in pairwise(draws))


def test_any_text_is_a_user() -> None:
    for user in ("", "ü" * 1000, "\ud800", "a\x00b"):
        assert in_canary(user, "s" * 200, 1.0)
