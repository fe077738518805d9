"""Vectors of pooled tables, by name. Shapes: B = rows, D = width."""

import pytest
import torch

from recsys.batch import Ids
from recsys.models.embeddings import PooledEmbeddings, TableShape
from recsys.train.distributed import shard

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


def test_every_feature_gets_the_vectors_of_its_table_whatever_the_order(group: torch.device) -> None:
    """Tables of different widths and one shared by two features: no other order of the names gives these shapes and numbers."""
    shapes = [TableShape("wide", 5, 8, ("a", "c")), TableShape("narrow", 5, 4, ("b",))]
    model = shard(PooledEmbeddings(shapes, init_std=1.0), group, optimizer="rowwise_adagrad", learning_rate=0.0)
    tables = {name.split(".")[-2]: t.local_shards()[0].tensor for name, t in model.state_dict().items()}
    ids = {
        "c": Ids(torch.tensor([4, 2]), torch.tensor([2, 0])),
        "b": Ids(torch.tensor([3, 1]), torch.tensor([1, 1])),
        "a": Ids(torch.tensor([1, 0]), torch.tensor([1, 1])),
    }
    found = model(ids)
    assert list(found) == ["c", "b", "a"]
    torch.testing.assert_close(found["c"], torch.stack([tables["wide"][[4, 2]].mean(0), torch.zeros(8)]))
    torch.testing.assert_close(found["b"], tables["narrow"][[3, 1]])
    torch.testing.assert_close(found["a"], tables["wide"][[1, 0]])


def test_a_feature_without_a_gradient_leaves_its_table_as_it_is(group: torch.device) -> None:
    shapes = [TableShape("used", 3, 4, ("used",)), TableShape("unused", 3, 4, ("unused",))]
    model = shard(PooledEmbeddings(shapes, init_std=1.0), group, optimizer="rowwise_adagrad", learning_rate=0.5)
    tables = {name.split(".")[-2]: t.local_shards()[0].tensor for name, t in model.state_dict().items()}
    before = {name: table.clone() for name, table in tables.items()}
    ids = Ids(torch.tensor([1]), torch.tensor([1]))
    model({"used": ids, "unused": ids})["used"].sum().backward()
    # Row-wise Adagrad's first step is the rate times the gradient over its own root mean square: 0.5 * 1 / 1.
    torch.testing.assert_close(tables["used"][1], before["used"][1] - 0.5)
    torch.testing.assert_close(tables["used"][[0, 2]], before["used"][[0, 2]])
    torch.testing.assert_close(tables["unused"], before["unused"])
