"""What a day of a loop was like: by what happened, and by the truth that only the world knows.

Shapes: R requests (pages), S slots, I items, U users, K tasks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.loop.pages import Pages
from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics.beyond import gini
from recsys.metrics.categories import categories_of, intra_list_diversity
from recsys.simulate.behaviour import Flags
from recsys.simulate.loop import EMPTY, Audience, Judged
from recsys.simulate.world import TASKS, Floats, Ints, World

HEAD_SHARE = 0.1  # of the items: the most shown before the loop


@dataclass(frozen=True, eq=False)
class DayValues:
    """One value for each page of a day, to compare policies page by page."""

    user_R: Ints
    value_R: Floats
    best_R: Floats
    ndcg_R: Floats


def head(count_I: Ints) -> Flags:
    """head_I, whether an item is of the tenth that was shown most often before the loop."""
    top = np.argsort(-count_I, kind="stable")[: max(1, round(HEAD_SHARE * len(count_I)))]
    return np.isin(np.arange(len(count_I)), top)


def measure(parts: Sequence[tuple[Audience, Pages]], head_I: Flags) -> tuple[dict[str, Any], DayValues]:
    """The numbers of one day, and its values by page.

    regret: the share of the best list's true value that was not had, 1 - sum(value) / sum(best). value: clicks a page that are
    meant, expected over all luck. `logging_*`: of the world's own policy at the same requests with the same luck.
    """
    world, spec = parts[0][0].world, parts[0][0].spec
    item_RS = np.concatenate([pages.item_RS for _, pages in parts])
    judged = Judged(*map(np.concatenate, zip(*(_fields(part.judged(pages.item_RS)) for part, pages in parts), strict=True)))
    user_R = np.concatenate([part.visits.user_R for part, _ in parts])
    done_KR, logged_KR = (np.concatenate(each, axis=1) for each in zip(*map(_clicks, parts), strict=True))
    lines = [line for _, pages in parts for line in pages.lines]
    places, real_RS = int((item_RS != EMPTY).sum()), item_RS != EMPTY
    took_ms = np.array([line["ms"] for line in lines])
    dense_RS = np.where(real_RS, item_RS + FIRST_ID, 0)
    found: dict[str, Any] = {
        "pages": len(lines), "impressions": places, "users": len(np.unique(user_R)),
        **{f"{task}_rate": float(done_KR[k].sum() / max(places, 1)) for k, task in enumerate(TASKS)},
        "logging_click_rate": float(logged_KR[0].sum() / (len(lines) * spec.slots)),
        "value": float(judged.value_R.mean()), "best": float(judged.best_R.mean()),
        "regret": float(1 - judged.value_R.sum() / judged.best_R.sum()),
        "logging_regret": float(1 - judged.logging_R.sum() / judged.best_R.sum()),
        "uniform_regret": float(1 - judged.uniform_R.sum() / judged.best_R.sum()),
        "true_ndcg": float(judged.ndcg_R.mean()),
        "diversity": float(np.nanmean(intra_list_diversity(dense_RS, _categories(world)))),
        "gini": gini(dense_RS, spec.items + FIRST_ID),
        "head_share": float(head_I[item_RS[real_RS]].mean()) if places else float("nan"),
        "coverage": len(np.unique(item_RS[real_RS])) / spec.items,
        "explored": float(np.mean([chance is not None and chance < 1 for line in lines for chance in line["propensity"]])),
        "fallbacks": sum(line["fallback"] is not None for line in lines),
        "flags": dict(Counter(flag for line in lines for flag in line["flags"])),
        "answer_p50_ms": float(np.median(took_ms)), "answer_p99_ms": float(np.quantile(took_ms, 0.99)),
        "versions": list(dict.fromkeys(line["version"] for line in lines)),
    }  # fmt: skip
    return found, DayValues(user_R, judged.value_R, judged.best_R, judged.ndcg_R)


def _fields(judged: Judged) -> tuple[Floats, ...]:
    return judged.value_R, judged.best_R, judged.logging_R, judged.uniform_R, judged.ndcg_R


def _clicks(part: tuple[Audience, Pages]) -> tuple[Ints, Ints]:
    """done_KR of what was shown, and of what the logging policy would have shown."""
    audience, pages = part
    row_R, spec = np.arange(len(pages.item_RS)), audience.spec
    shape = (len(TASKS), len(row_R), spec.slots)
    done, logged = (audience.answer(row_R, item_RS).label_KN for item_RS in (pages.item_RS, audience.logged_RS))
    return done.reshape(shape).sum(axis=2), logged.reshape(shape).sum(axis=2)


def _categories(world: World) -> Any:
    """has_IC, the reserved ids first."""
    return categories_of(
        Jagged.from_lists([*([] for _ in range(FIRST_ID)), *([category] for category in world.category_I.tolist())])
    )
