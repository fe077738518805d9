"""What a warm day trains on: the news, and a share of what the model was trained on before, drawn anew in every epoch.

Shapes: U = users, X = examples of the dataset, W = windows, O = older windows or rows.
"""

from dataclasses import dataclass

import numpy as np

from recsys.columns import EXAMPLES, SPLIT, TIMELINE, TRAIN, examples_file, timeline_file
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.loader import Windows, cut_windows, rng_of


@dataclass(frozen=True, eq=False)
class Replay:
    """News is what trains now and did not train the model that is begun from. `share` of what an epoch is trained on is older.

    Ibrahim et al. 2024, https://arxiv.org/abs/2403.08763. Differs from the paper: news is never left out for the older, so an
    epoch grows by news * share / (1 - share), as far as there is so much; the older is drawn evenly from all days before, and
    another draw in every epoch. Of a window of news the events that are no news are read, and not predicted; `share` counts
    predicted events, and labelled examples for the ranker.
    """

    known_length_U: np.ndarray  # the first events of each timeline that trained the model before
    known_X: np.ndarray  # whether an example did
    share: float
    seed: int

    def windows(self, start_U: np.ndarray, length_U: np.ndarray, size: int, epoch: int) -> Windows:
        """Windows of an epoch: those that end in news, and whole ones of older events. `size`: events of a window at most."""
        known_U = np.minimum(self.known_length_U, length_U)
        news = news_windows(start_U, known_U, length_U, size)
        rng = rng_of(self.seed, epoch, 5)
        old = cut_windows(start_U, known_U, size, rng)
        row_O = drawn(old.length_W, older_beside(int((length_U - known_U).sum()), self.share), rng)
        return Windows(*(np.concatenate([a, b[row_O]]) for a, b in zip(news, old, strict=True)))

    def rows(self, row_X: np.ndarray, epoch: int) -> np.ndarray:
        """Of the examples that train now those of an epoch, in ascending order."""
        known_X = self.known_X[row_X]
        old_O = row_X[known_X]
        rng = rng_of(self.seed, epoch, 6)
        wanted = older_beside(len(row_X) - len(old_O), self.share)
        return np.sort(np.concatenate([row_X[~known_X], old_O[drawn(np.ones_like(old_O), wanted, rng)]]))


def older_beside(news: int, share: float) -> int:
    """How much older there is beside the news, so that it is `share` of both: news * share / (1 - share)."""
    return round(news * share / (1 - share))


def drawn(cost_O: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers drawn without replacement until their cost comes to what is wanted, or as near to it as it gets."""
    order_O = rng.permutation(len(cost_O))
    total_O = cost_O[order_O].cumsum()
    count = int(np.searchsorted(total_O, wanted))
    if count < len(total_O) and total_O[count] - wanted <= wanted - (total_O[count - 1] if count else 0):
        count += 1
    return np.sort(order_O[:count])


def news_windows(start_U: np.ndarray, known_U: np.ndarray, length_U: np.ndarray, size: int) -> Windows:
    """Windows that together predict every event after the first `known_U` of a timeline once, each with what came before it.

    They are cut from the end, so that the newest events have the longest history.
    """
    count_U = -(-(length_U - known_U) // size)
    user_W = np.repeat(np.arange(len(count_U)), count_U)
    place_W = np.arange(len(user_W)) - np.repeat(count_U.cumsum() - count_U, count_U)  # 0: the last one
    end_W = length_U[user_W] - place_W * size
    begin_W = np.maximum(end_W - size, 0)
    return Windows(start_U[user_W] + begin_W, end_W - begin_W, np.maximum(known_U[user_W] - begin_W, 0))


def replay(old: Dataset, new: Dataset, *, share: float, seed: int, validation_too: bool = False) -> Replay:
    """`old`: the dataset that the earlier model was trained on, of which `new` is a continuation. `validation_too`: it was
    trained on the validation events, too. Raises InputError where `new` was not appended to `old`."""
    _check_appended(old, new)
    known_length_U = np.zeros(new.num_users, np.int64)
    known_length_U[: old.num_users] = old.train_length_U + (old.valid_length_U if validation_too else 0)
    known_X = np.zeros(len(new.examples[SPLIT]) if SPLIT in new.examples else 0, bool)
    known_X[old.example_rows(TRAIN)] = True
    return Replay(known_length_U, known_X, share, seed)


def _check_appended(old: Dataset, new: Dataset) -> None:
    """Places in timelines and numbers of examples stay what they are only where files are added and none is changed."""
    for table, file_of in ((TIMELINE, timeline_file), (EXAMPLES, examples_file)):
        before, now = ([file_of(name) for name in data.manifest["segments"][table]] for data in (old, new))
        same = all(old.manifest["files"][name] == new.manifest["files"].get(name) for name in before)
        if now[: len(before)] != before or not same:
            raise InputError(
                f"{new.folder} was not appended to {old.folder}, its {table} has other files, so that it cannot be told what "
                "is new: train from scratch"
            )
