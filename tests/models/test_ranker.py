"""The ranker's training and serving forms. Shapes: recsys/models/ranker.py."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from ranker_cases import designs, name
from torch import Tensor
from torch.nn import functional

from recsys.batch import Batch
from recsys.columns import FIRST_ID, TRAIN
from recsys.dataset import Dataset
from recsys.loader import ExampleLoader
from recsys.models.dtrn import DTRN
from recsys.models.mean_history import MeanHistory
from recsys.models.mmoe import MMoE
from recsys.models.ple import PLE
from recsys.models.ranker import Ranker, RankerDesign, RankingGraph
from recsys.models.shared_bottom import SharedBottom
from recsys.models.target_attention import TargetAttention
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
TASKS, DIM, HISTORY = ("click", "like"), 8, 4


def design(history: Any = None, sharing: Any = None, **settings: Any) -> RankerDesign:
    return RankerDesign(history or MeanHistory(), None, sharing or MMoE(experts=2, hidden=4), DIM, TASKS, **settings)


def pair(
    data: Dataset, device: torch.device, parts: RankerDesign, *, learning_rate: float = 0.1
) -> tuple[Ranker, RankingGraph]:
    torch.manual_seed(1)
    ranker = Ranker(parts, data.num_users, data.num_items, data.features)
    model = place(ranker, device, learning_rate=learning_rate).eval()
    codes = {f["name"]: data.codes(f["name"], f["owner"]) for f in data.features if f["owner"] != "context"}
    return model, RankingGraph(model_state(model), parts, data.features, codes, HISTORY)


def batches(data: Dataset) -> Iterator[Batch]:
    """Training examples, their events with masks of random behaviours."""
    loader = ExampleLoader(data, tasks=list(TASKS), split=TRAIN, max_history=HISTORY, batch_size=256, seed=1)
    generator = torch.Generator().manual_seed(0)
    for batch in loader.in_order():
        events = len(batch.ids["history"].value_N)
        yield replace(batch, behaviour_N=torch.randint(0, 2 ** len(TASKS), (events,), generator=generator))


def answer(model: Ranker, batch: Batch) -> Tensor:
    return model.design.answer(model(model.embeddings(model.look_ups(batch)), batch))


def served(graph: RankingGraph, batch: Batch) -> Tensor:
    ids = batch.ids
    history, context_BF = ids["history"], ids["hour"].value_N[:, None]
    behaviour_BL = replace(history, value_N=batch.behaviour_N).padded() if graph.reads_behaviours else None
    item_BC = ids["item"].value_N[:, None]
    return graph(ids["user"].value_N, history.padded(), history.length_B, item_BC, context_BF, behaviour_BL)[:, 0]


@pytest.mark.parametrize("parts", designs(tasks=TASKS, dropout=0.3), ids=name)
def test_the_graph_equals_the_ranker(planted: Dataset, group: torch.device, parts: RankerDesign) -> None:
    if getattr(parts.sharing, "given", None):
        parts = replace(parts, sharing=parts.sharing.model_copy(update={"given": {"like": "click"}}))
    model, graph = pair(planted, group, parts)
    lengths = set()
    with torch.no_grad():
        for batch in batches(planted):
            torch.testing.assert_close(served(graph, batch), answer(model, batch), atol=1e-6, rtol=1e-5)
            lengths |= set(batch.ids["history"].length_B.tolist())
    assert {0, 1, HISTORY} <= lengths


@pytest.mark.parametrize("parts", [design(), design(TargetAttention()), design(sharing=DTRN())], ids=name)
class TestGraph:
    def test_it_reads_the_most_recent_events_only(self, planted: Dataset, group: torch.device, parts: RankerDesign) -> None:
        _, graph = pair(planted, group, parts)
        user_B, item_BC, context_BF = torch.tensor([3]), torch.tensor([[5, 9]]), torch.tensor([[2]])
        recent = [7, 8, 9, 10]
        assert len(recent) == HISTORY

        def score(history: list[int], length: int) -> Tensor:
            behaviour_BL = torch.tensor([history]) % 4 if graph.reads_behaviours else None
            return graph(user_B, torch.tensor([history]), torch.tensor([length]), item_BC, context_BF, behaviour_BL)

        expected_BCT = score(recent, 4)
        torch.testing.assert_close(score([30, 31, *recent], 6), expected_BCT)  # older events do not count
        torch.testing.assert_close(score([*recent, 40, 41], 4), expected_BCT)  # nor does what lies in the padding
        assert not torch.equal(score([*recent, 40], 5), expected_BCT)

    def test_candidates_are_independent_and_unknown_context_is_no_error(
        self, planted: Dataset, group: torch.device, parts: RankerDesign
    ) -> None:
        _, graph = pair(planted, group, parts)
        history_BL, item_BC = torch.tensor([[7, 8], [9, 0]]), torch.tensor([[5, 9, 11], [2, 3, 4]])
        behaviour_BL = torch.tensor([[1, 3], [2, 0]]) if graph.reads_behaviours else None

        def score(item_BC: Tensor, hour: list[list[int]]) -> Tensor:
            user_B, length_B = torch.tensor([3, 4]), torch.tensor([2, 1])
            return graph(user_B, history_BL, length_B, item_BC, torch.tensor(hour), behaviour_BL)

        together_BCT = score(item_BC, [[2], [1]])
        for c in range(3):
            torch.testing.assert_close(score(item_BC[:, c : c + 1], [[2], [1]])[:, 0], together_BCT[:, c])
        torch.testing.assert_close(score(item_BC, [[999], [-5]]), score(item_BC, [[1], [1]]))

    def test_training_moves_every_table(self, planted: Dataset, group: torch.device, parts: RankerDesign) -> None:
        model, _ = pair(planted, group, parts)
        before = model_state(model)
        model.train()
        for batch in batches(planted):
            found = model.embeddings(model.look_ups(batch))
            leaf = {name: vector.detach().requires_grad_() for name, vector in found.items()}  # as the engine cuts them
            functional.binary_cross_entropy_with_logits(model(leaf, batch), batch.label_BT.nan_to_num()).backward()
            torch.autograd.backward(list(found.values()), [vector.grad for vector in leaf.values()])
        after = model_state(model)
        tables = [table for table in before if ".collection." in table]
        assert len(tables) == 7
        for table in tables:
            assert (after[table][FIRST_ID:] != before[table][FIRST_ID:]).any(), f"{table} was not trained"

    def test_dense_parameters_are_shared_or_of_a_task(self, planted: Dataset, group: torch.device, parts: RankerDesign) -> None:
        model, _ = pair(planted, group, parts)
        shared, own = ({id(p) for p in part} for part in (model.shared_parameters(), model.task_parameters()))
        assert shared
        assert own
        assert not shared & own
        assert shared | own == {id(p) for label, p in model.named_parameters() if not label.startswith("embeddings.")}


def test_the_history_comes_pooled_unless_something_reads_its_events(planted: Dataset, group: torch.device) -> None:
    batch = next(batches(planted))
    history = batch.ids["history"]
    for parts in (design(), design(TargetAttention()), design(sharing=DTRN())):
        model, _ = pair(planted, group, parts)
        found = model.embeddings(model.look_ups(batch))
        by_event = parts.reads_sequence
        assert by_event == (parts != design())
        assert found["history"].shape == (len(history.value_N) if by_event else len(history.length_B), DIM)
        assert found["item"].shape == (len(history.length_B), DIM)


def test_the_order_of_look_ups_does_not_matter(planted: Dataset, group: torch.device) -> None:
    batch = next(batches(planted))
    for parts in (design(), design(TargetAttention())):
        model, _ = pair(planted, group, parts)
        ids = model.look_ups(batch)
        first, second = (model(model.embeddings(given), batch) for given in (ids, dict(reversed(ids.items()))))
        assert torch.equal(first, second)


def test_accumulated_parts_are_the_rows_of_the_whole(planted: Dataset, group: torch.device) -> None:
    batch = next(batches(planted))
    rows = len(batch.label_BT)
    for parts in (design(), design(TargetAttention()), design(sharing=DTRN())):
        model, _ = pair(planted, group, parts)
        found = model.embeddings(model.look_ups(batch))
        split = [model(cut, part) for cut, part in model.parts(found, batch, [100, rows - 100])]
        torch.testing.assert_close(torch.cat(split), model(found, batch))


def test_a_number_is_no_probability(planted: Dataset, group: torch.device) -> None:
    parts = design(sharing=SharedBottom(hidden=6))
    _, graph = pair(planted, group, parts)
    _, numbers = pair(planted, group, replace(parts, regression=frozenset({"like"})))
    batch = next(batches(planted))
    with torch.no_grad():
        probability_BT, mixed_BT = served(graph, batch), served(numbers, batch)
    torch.testing.assert_close(mixed_BT[:, 0], probability_BT[:, 0])
    torch.testing.assert_close(mixed_BT[:, 1].sigmoid(), probability_BT[:, 1])
    assert (mixed_BT[:, 1] < 0).any()


def test_gate_entropies_are_named_by_task_and_layer(planted: Dataset, group: torch.device) -> None:
    model, _ = pair(planted, group, design(sharing=MMoE(experts=4)))
    batch = next(batches(planted))
    model.train()
    answer(model, batch)
    entropy = model.gate_entropy()
    assert list(entropy) == ["gate_entropy/click", "gate_entropy/like"]
    assert all(0 < value <= torch.log(torch.tensor(4.0)) for value in entropy.values())
    layered, _ = pair(planted, group, design(sharing=PLE(layers=2)))
    assert set(layered.gate_entropy()) == {
        "gate_entropy/layer1/click", "gate_entropy/layer1/like", "gate_entropy/layer1/shared", "gate_entropy/layer2/click",
        "gate_entropy/layer2/like",
    }  # fmt: skip
    assert pair(planted, group, design(sharing=SharedBottom()))[0].gate_entropy() == {}
