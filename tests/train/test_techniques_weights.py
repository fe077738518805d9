"""What weights do to a loss: trust moves weight and neither adds nor takes any; other weights stay as they are.

Shapes: N = predictions, B = examples, I = rows of the item table.
"""

from typing import Any, get_args

import pytest
import torch
from planted_data import planted_config
from torch import Generator, Tensor, nn

from pipelines import models
from pipelines.techniques import denoisers
from recsys.dataset import Dataset
from recsys.denoise import Denoiser
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.linear_cross_entropy import linear_cross_entropy
from recsys.heads.similarity import Dot
from recsys.loader import SequenceLoader
from recsys.train.distributed import place
from recsys.train.retrieval_objective import RetrievalLearner

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
MEMBERS = get_args(get_args(Denoiser)[0])


class Ones(FullSoftmax):
    """Each event's loss is 1, so that the sum of losses is that of the weights; its gradient is the softmax's."""

    def __call__(self, hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, *, even: bool = True) -> Tensor:
        loss_N = linear_cross_entropy(hidden_ND, table_ID, target_N, first_item=2, even=even)
        return 1 + loss_N - loss_N.detach()


class TestRetriever:
    def total(self, data: Dataset, device: torch.device, denoise: Any, weight_I: Tensor | None) -> tuple[float, dict[str, Any]]:
        config = planted_config()
        torch.manual_seed(0)
        model = place(models.retriever(config, data), device)
        built = denoisers(denoise, 1, 1)
        learner = RetrievalLearner(
            Ones(), Dot(), models.item_codes(config, data, device), weight_I=weight_I, denoise=built[0] if built else None
        )
        assert isinstance(model, nn.Module)
        self.batch = next(iter(SequenceLoader(data, 6, 48, 1).epoch(0)))
        drawn = learner.draw(self.batch, Generator().manual_seed(3))
        leaf = {name: vector.detach().requires_grad_() for name, vector in model.embeddings(drawn.ids).items()}
        outcome = learner.losses(model, leaf, self.batch, drawn, learner.counts(self.batch), 10**6)
        return outcome.loss_T.item(), outcome.terms

    @pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
    @pytest.mark.parametrize("weighed", [False, True])
    def test_trust_neither_adds_nor_takes_weight(
        self, member: Any, weighed: bool, planted: Dataset, group: torch.device
    ) -> None:
        weight_I = torch.linspace(0.1, 4, planted.num_items) if weighed else None
        total, terms = self.total(planted, group, member(), weight_I)
        target_N = self.batch.ids["history"].value_N
        assert total == pytest.approx(1.0 if weight_I is None else weight_I[target_N].mean().item(), rel=1e-5)
        assert 0 < terms["trusted_effective_share"] <= 1.0001

    def test_weights_of_targets_alone_stay_as_they_are(self, planted: Dataset, group: torch.device) -> None:
        """Nothing divides them by their mean over the batch."""
        weight_I = torch.linspace(2, 5, planted.num_items)
        total, _ = self.total(planted, group, None, weight_I)
        assert total == pytest.approx(weight_I[self.batch.ids["history"].value_N].mean().item(), rel=1e-5)
