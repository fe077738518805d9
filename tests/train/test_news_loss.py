"""Events that are read and not predicted: no loss of theirs counts. Shapes: N = events."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from planted_data import planted_config
from torch import Generator, Tensor, nn

from pipelines import models
from pipelines.train import retriever_job
from recsys.config import RetrieverConfig
from recsys.dataset import Dataset
from recsys.loader import SequenceLoader
from recsys.train.distributed import place

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
SAMPLED = {"loss": {"kind": "sampled_softmax"}, "negatives": {"kind": "uniform", "count": 16}}
MATRYOSHKA = {"matryoshka": {"dims": [4]}}
WEIGHED = {"debias": {"kind": "ips", "propensity": {"kind": "popularity"}}}


@pytest.mark.parametrize("change", [{}, SAMPLED, MATRYOSHKA, WEIGHED], ids=["full", "sampled", "matryoshka", "weighed"])
def test_the_losses_of_two_halves_add_up_to_the_whole(change: dict[str, Any], planted: Dataset, group: torch.device) -> None:
    config = planted_config()
    settings = config.retriever.model_dump() | {"encoder": {"kind": "sasrec", "dim": 16, "blocks": 1, "dropout": 0.0}} | change
    config = config.model_copy(update={"retriever": RetrieverConfig.model_validate(settings)})
    torch.manual_seed(0)
    model = place(models.retriever(config, planted), group)
    assert isinstance(model, nn.Module)
    learner = retriever_job(config, planted, group).learner
    batch = next(iter(SequenceLoader(planted, 6, 48, 1).epoch(0)))

    def total(target_N: Tensor) -> tuple[float, float]:
        """The sum of losses, and of how many events."""
        part = replace(batch, target_N=target_N)
        drawn = learner.draw(part, Generator().manual_seed(3))
        leaf = {name: vector.detach().requires_grad_() for name, vector in model.embeddings(drawn.ids).items()}
        count_T = learner.counts(part)
        return float(learner.losses(model, leaf, part, drawn, count_T, 1).loss_T.detach()[0] * count_T[0]), float(count_T[0])

    events = len(batch.ids["history"].value_N)
    first_N = torch.arange(events) % 3 == 0
    whole, first, rest = total(torch.empty(0, dtype=torch.bool)), total(first_N), total(~first_N)
    assert (whole[1], first[1], rest[1]) == (events, int(first_N.sum()), int((~first_N).sum()))
    assert first[0] > 0
    assert first[0] + rest[0] == pytest.approx(whole[0], rel=1e-5)
