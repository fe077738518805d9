"""Yesterday's model in today's larger tables: what is kept, what is new, and what is refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.batch import Ids
from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings, TableShape
from recsys.models.managed_collision import ManagedCollision, folded, remapped
from recsys.models.sasrec import SASRec
from recsys.train.checkpoint import FUSED
from recsys.train.distributed import dense_parameters, place
from recsys.train.grow import NewRows, grow, load_training_state, training_state

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
DIM, HISTORY, USERS = 8, 6, 50
OLD, NEW = 30, 44  # rows of the item table yesterday and today
ITEM = "items.collection.embeddings.item.weight"
USER_MAP = ManagedCollision(rows=9, eviction="lfu", interval=1)


def genre_of(item_I: Tensor) -> Tensor:
    """An old item's genre stays; genres that yesterday did not know are of new items."""
    return item_I % torch.where(item_I < OLD, OLD // 4, NEW // 4)


class Tables(nn.Module):
    """As a retriever's and a ranker's in one: items, users with an id map, and a feature of the items."""

    def __init__(self, num_items: int, users: ManagedCollision):
        super().__init__()
        self.items = SequenceEmbeddings([TableShape("item", num_items, DIM, ("item",))], 0.5)
        shapes = [TableShape("user", USERS, DIM, ("user",), users), TableShape("genre", num_items // 4, DIM, ("genre",))]
        self.pooled = PooledEmbeddings(shapes, 0.5)

    def forward(self, ids: dict[str, Ids]) -> dict[str, Tensor]:
        pooled = {name: ids[name] for name in ("genre", "user")}
        return self.items({"item": ids["item"]}) | self.pooled(pooled)


class Model(nn.Module):
    def __init__(self, num_items: int, users: ManagedCollision):
        super().__init__()
        self.num_items = num_items
        self.embeddings = Tables(num_items, users)
        self.encoder = SASRec(dim=DIM, blocks=1, heads=2, dropout=0.0).build(HISTORY)

    def forward(self, history: Ids, user_B: Tensor) -> Tensor:
        """The scores of every item after every event and after the start token; the user's vector is part of each."""
        everything = Ids(torch.arange(self.num_items), torch.ones(self.num_items, dtype=torch.int64))
        genre = Ids(genre_of(everything.value_N), everything.length_B)
        length_I = torch.zeros(self.num_items, dtype=torch.int64)
        length_I[: len(user_B)] = 1  # one batch for all features of a collection: items, and users in its first rows
        found = self.embeddings({"item": everything, "genre": genre, "user": Ids(user_B, length_I)})
        item_ID = found["item"]
        hidden_MD = self.encoder(item_ID[history.value_N], history.length_B)
        user_M = torch.repeat_interleave(torch.arange(len(user_B)), history.length_B + 1)
        query_MD = hidden_MD + found["user"][user_M]
        return (query_MD[:, None] * (item_ID + found["genre"])).sum(-1)  # a product of matrices may sum in another order


def model_of(group: torch.device, num_items: int, *, users: ManagedCollision = USER_MAP, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return place(Model(num_items, users), group, learning_rate=0.1)


def batch_of(seed: int, num_items: int) -> tuple[Ids, Tensor, Tensor]:
    """Histories, their users and the item after each of their tokens: item i follows item i - 1."""
    generator = torch.Generator().manual_seed(seed)
    first_B = torch.randint(FIRST_ID, num_items - 4, (4,), generator=generator)
    target_BL = first_B[:, None] + torch.arange(4)
    history = Ids(target_BL[:, :-1].flatten(), torch.full((4,), 3))
    return history, torch.randint(USERS, (4,), generator=generator), target_BL.flatten()


def train(model: nn.Module, seeds: range, num_items: int) -> list[float]:
    optimizer, losses = torch.optim.SGD(dense_parameters(model), lr=0.05), []
    for seed in seeds:
        torch.manual_seed(seed)
        history, user_B, target_M = batch_of(seed, num_items)
        loss = functional.cross_entropy(model(history, user_B), target_M)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def scores(model: nn.Module) -> Tensor:
    """What evaluation sees of the old items, for old histories."""
    history, user_B, _ = batch_of(99, OLD)
    with torch.no_grad():
        found = model.eval()(history, user_B)[:, :OLD]
    model.train()
    return found


def at(state: dict[str, Tensor], end: str) -> Tensor:
    (name,) = [name for name in state if name.endswith(end)]
    return state[name]


@pytest.mark.parametrize("new_rows", ["fresh", "mean"])
def test_a_grown_model_goes_on_where_the_old_one_stopped(group: torch.device, new_rows: NewRows) -> None:
    yesterday, today = model_of(group, OLD), model_of(group, NEW, seed=1)
    train(yesterday, range(30), OLD)
    old, fresh = training_state(yesterday), training_state(today)
    grown = grow(old, fresh, new_rows=new_rows)
    load_training_state(today, grown)

    tables = {f"{FUSED}{ITEM}/item.momentum1": OLD, f"{ITEM}": OLD, "genre.weight": OLD // 4, "genre.momentum1": OLD // 4}
    for end, rows in tables.items():
        assert torch.equal(at(grown, end)[:rows], at(old, end)), end
        assert at(old, end).abs().sum() > 0, end
    for name, tensor in grown.items():
        assert torch.equal(tensor[: len(old[name])], old[name]), name
    added = at(grown, ITEM)[OLD:]
    expected = at(fresh, ITEM)[OLD:] if new_rows == "fresh" else at(old, ITEM)[FIRST_ID:].mean(0).expand_as(added)
    assert torch.equal(added, expected)
    assert at(grown, f"{ITEM}/item.momentum1")[OLD:].sum() == 0

    assert at(grown, ITEM).shape == (NEW, DIM)
    before = at(training_state(today), ITEM)
    losses = train(today, range(100, 160), NEW)
    after = at(training_state(today), ITEM)
    assert sum(losses[-10:]) < sum(losses[:10])
    assert (after - before).abs().sum(1)[FIRST_ID:].min() > 0, "a new item learned nothing"


def test_old_items_score_the_same_bit_for_bit(group: torch.device) -> None:
    yesterday, today = model_of(group, OLD), model_of(group, NEW, seed=1)
    train(yesterday, range(30), OLD)
    grown = grow(training_state(yesterday), training_state(today))
    load_training_state(today, grown)
    expected = scores(yesterday)
    assert expected.std() > 0.1
    found = scores(today)
    assert torch.equal(found, expected)
    train(today, range(100, 101), NEW)
    assert not torch.equal(scores(today), expected)


def test_a_model_that_did_not_grow_goes_on_as_if_never_stopped(group: torch.device) -> None:
    undisturbed, first, second = (model_of(group, OLD, seed=seed) for seed in (0, 0, 7))
    train(undisturbed, range(20), OLD)
    train(first, range(12), OLD)
    load_training_state(second, grow(training_state(first), training_state(second)))
    train(second, range(12, 20), OLD)
    expected, found = training_state(undisturbed), training_state(second)
    assert not [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]


def test_rows_by_hand() -> None:
    name = f"embeddings.{ITEM}"
    accumulator = f"{FUSED}{ITEM}/item.momentum1"
    old = {
        name: torch.tensor([[0.0, 0.0], [9.0, 9.0], [1.0, 2.0], [5.0, 4.0]]),
        accumulator: torch.tensor([0.0, 1.0, 2.0, 3.0]),
    }
    fresh = {name: torch.full((6, 2), -1.0), accumulator: torch.zeros(6)}
    first = grow(old, fresh)
    assert first[name].tolist() == [[0, 0], [9, 9], [1, 2], [5, 4], [-1, -1], [-1, -1]]
    assert first[accumulator].tolist() == [0, 1, 2, 3, 0, 0]
    mean = grow(old, fresh, new_rows="mean")
    assert mean[name][4:].tolist() == [[3, 3], [3, 3]], "rows 0 and 1 are no items"
    assert mean[accumulator].tolist() == [0, 1, 2, 3, 0, 0]
    assert fresh[name].tolist() == [[-1, -1]] * 6, "what was given is changed"


def test_what_did_not_grow_but_change_is_named() -> None:
    name, dense = f"embeddings.{ITEM}", "encoder.place"
    old = {name: torch.zeros(4, 2), dense: torch.zeros(7, 2)}
    refused = {
        r"table '.*item\.weight' has 3 rows, 4 in the checkpoint": {name: torch.zeros(3, 2), dense: torch.zeros(7, 2)},
        r"table '.*item\.weight' is 5 wide, 2 in the checkpoint": {name: torch.zeros(6, 5), dense: torch.zeros(7, 2)},
        r"'encoder\.place' has shape \(9, 2\), \(7, 2\) in the checkpoint": {name: torch.zeros(4, 2), dense: torch.zeros(9, 2)},
        r"the new model has no 'encoder\.place'": {name: torch.zeros(4, 2)},
        r"the checkpoint has no 'encoder\.more'": {
            name: torch.zeros(4, 2),
            dense: torch.zeros(7, 2),
            "encoder.more": torch.zeros(1),
        },
    }
    for message, fresh in refused.items():
        with pytest.raises(InputError, match=message):
            grow(old, fresh)


@pytest.mark.parametrize("rows", [5, 9, 14])
def test_a_table_with_an_id_map_may_have_any_new_number_of_rows(group: torch.device, rows: int) -> None:
    yesterday = model_of(group, OLD)
    train(yesterday, range(30), OLD)
    today = model_of(group, NEW, users=USER_MAP.model_copy(update={"rows": rows}), seed=1)
    old = training_state(yesterday)
    grown = grow(old, training_state(today))
    row_I, grown_I = remapped(old, "user", USERS), remapped(grown, "user", USERS)
    live, kept = row_I != 8, grown_I != rows - 1
    assert kept.sum() == min(8, rows - 1) == (live & kept).sum()
    was, now = folded(old, "user", USERS), folded(grown, "user", USERS)
    assert torch.equal(now[kept], was[kept])
    assert torch.equal(at(grown, "user.momentum1")[grown_I[kept]], at(old, "user.momentum1")[row_I[kept]])
    counts = at(old, "_mch_counts")[torch.isin(at(old, "_mch_sorted_raw_ids"), torch.arange(USERS)[live & ~kept])]
    assert not len(counts) or counts.max() <= at(grown, "_mch_counts")[: rows - 1].min(), "a more frequent id lost its row"
    assert torch.equal(now[~kept & ~live], was[~kept & ~live]), "the fallback vector changed"
    load_training_state(today, grown)
    losses = train(today, range(100, 110), NEW)
    assert all(loss < 100 for loss in losses)
