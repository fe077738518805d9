"""How good ids are, before any model learns them.

Shapes: N = items, D = width, L = levels before the last, Q = items that are asked for their neighbours, I = candidates.
"""

from typing import Any

import numpy as np

from recsys.errors import InputError
from recsys.generate.assign import Assigned, numbers
from recsys.generate.ids_config import IdsConfig
from recsys.generate.residual import distances

NEIGHBOURS = 10
ASKED = 1000  # items whose neighbours are compared, evenly spread over the catalogue


def quality(config: IdsConfig, assigned: Assigned) -> dict[str, Any]:
    """Use of each level, collisions before the last one and, where there are vectors, what the codes keep of them."""
    code_NL, known_N, vector_ND = assigned.code_NL, assigned.known_N, assigned.vector_ND
    sizes = config.quantizer.sizes(assigned.codebook.quantizer)
    levels = [usage(code_NL[:, level], size) | leaves(code_NL[:, : level + 1]) for level, size in enumerate(sizes)]
    found: dict[str, Any] = {
        "items": len(code_NL),
        "without_content": int((~known_N).sum()),
        "levels": levels,
        "collision_rate": collision_rate(code_NL),
        "largest_group": int(numbers(code_NL).max()) + 1,
        "last_level": assigned.ids.sizes[-1] if assigned.ids.levels > len(sizes) else 0,
    }
    if vector_ND.shape[1]:
        told_ND = vector_ND[known_N]
        found["same_vector_rate"] = collision_rate(told_ND.round(5))
        guess_ND = None
        steps = config.quantizer.reconstruct(code_NL[known_N], assigned.codebook.quantizer)
        for level, guess_ND in zip(levels, steps, strict=False):
            level["error"] = float(((told_ND - guess_ND) ** 2).sum(1).mean())
        if guess_ND is not None and len(told_ND) > NEIGHBOURS:
            found[f"overlap@{NEIGHBOURS}"] = overlap(told_ND, guess_ND)
    return found


def usage(code_N: np.ndarray, size: int) -> dict[str, Any]:
    """Of `size` codes: how many are used, how evenly, and how many items the most used one has.

    Shares are of as many codes as there can be: no more than items. Perplexity is exp(entropy).
    """
    count_K = np.bincount(code_N, minlength=size)
    share = count_K[count_K > 0] / len(code_N)
    entropy, possible = float(-(share * np.log(share)).sum()), min(size, len(code_N))
    return {
        "size": size,
        "used": len(share),
        "usage": len(share) / possible,
        "entropy": float(entropy / np.log(possible)) if possible > 1 else 1.0,
        "perplexity": float(np.exp(entropy)),
        "largest": int(count_K.max()),
    }


def leaves(prefix_NL: np.ndarray) -> dict[str, Any]:
    """How many prefixes there are, and the share of them that one item has alone."""
    count = np.unique(prefix_NL, axis=0, return_counts=True)[1]
    return {"prefixes": len(count), "one_leaf": float((count == 1).mean())}


def collision_rate(row_NL: np.ndarray) -> float:
    """(rows - distinct rows) / rows."""
    return 1 - len(np.unique(row_NL, axis=0)) / len(row_NL)


def overlap(vector_ND: np.ndarray, guess_ND: np.ndarray) -> float:
    """The share of an item's nearest neighbours by vector that are among its nearest by what the codes keep."""
    asked_Q = np.unique(np.linspace(0, len(vector_ND) - 1, min(ASKED, len(vector_ND))).astype(int))
    found = [_neighbours(each, asked_Q) for each in (vector_ND, guess_ND)]
    shared = [len(np.intersect1d(*pair)) for pair in zip(*found, strict=True)]
    return float(np.mean(shared)) / NEIGHBOURS


def check(config: IdsConfig, found: dict[str, Any]) -> None:
    """Refuse ids beyond a limit, with what to change."""
    limits, kind = config.limits, config.quantizer.kind
    for place, level in enumerate(found["levels"], 1):
        for name, least in (("usage", limits.min_usage), ("entropy", limits.min_entropy)):
            if level[name] < least:
                raise InputError(
                    f"level {place} of the {kind} ids has {name} {level[name]:.3f} ({level['used']} of {level['size']} codes "
                    f"are used, the largest by {level['largest']} items), below limits.min_{name} {least}: the codes have "
                    "collapsed, so choose quantizer.kind balanced_kmeans, fewer codes or other vectors, or lower the limit"
                )
    if found["collision_rate"] > limits.max_collision_rate:
        same = found.get("same_vector_rate")
        why = "" if same is None else f" (that of the vectors themselves is {same:.3f})"
        raise InputError(
            f"the {kind} ids have collision rate {found['collision_rate']:.3f}{why}, above "
            f"limits.max_collision_rate {limits.max_collision_rate}: give vectors that tell items apart (vectors.kind joint), "
            "more levels or codes, or raise the limit"
        )


def flat(found: dict[str, Any]) -> dict[str, float]:
    """The numbers by name, those of a level as `entropy/2`, the first level being 1."""
    named = {name: float(value) for name, value in found.items() if name != "levels"}
    for place, level in enumerate(found["levels"], 1):
        named |= {f"{name}/{place}": float(value) for name, value in level.items()}
    return named


def _neighbours(vector_ND: np.ndarray, asked_Q: np.ndarray) -> np.ndarray:
    """The nearest of all other items; of equally near ones the first."""
    distance_QI = distances(vector_ND[asked_Q], vector_ND).round(6)
    distance_QI[np.arange(len(asked_Q)), asked_Q] = np.inf
    return np.argsort(distance_QI, axis=1, kind="stable")[:, :NEIGHBOURS]
