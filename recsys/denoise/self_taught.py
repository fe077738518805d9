"""A small net that learns how much each loss should count, from noisy data alone.

Shapes: B = examples or events, G = forward passes, F = features of an example.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.denoise.denoiser import DenoiserSpec, Learned
from recsys.weighing import Context

NUM_FEATURES = 19
MIN_STD = 1e-6


class SelfTaught(DenoiserSpec):
    """Weights by a net that reads how the model behaves on an example: loss and probability over several passes.

    STORM, Heck et al. 2025, https://arxiv.org/abs/2412.12955 (self-taught on-the-fly meta loss rescaling): no clean data; the
    net is judged by a step of the model with its weights, on a noisy batch that it weighs itself. Differs from the paper: the
    judging batch is a random half of the batch at hand, the other half being the one judged (both are random rows of the log),
    so nothing is loaded or looked up twice; the step is taken to first order, its slope by two more forward passes in place
    of second derivatives; the two parts of the net's loss are scaled to unit spread, so that the model's learning rate does
    not choose between them; the probability is the label's, and groups are by label and by whether it is above the label's
    median, since a softmax over items seldom agrees with anyone; statistics are those of the batch, without a memory.
    Costs `passes` + 1 more forward passes and one more backward pass a step.
    """

    kind: Literal["self_taught"] = "self_taught"
    passes: int = Field(3, ge=2, le=10, description="forward passes with other dropout, the training one among them")
    learning_rate: float = Field(1e-2, gt=0, description="of the net, AdamW")
    start_step: int = Field(200, ge=0, description="training steps with equal weights, in which the net learns already")

    @classmethod
    def neutral(cls) -> "SelfTaught":
        return cls(start_step=2**62)

    def build(self) -> "_SelfTaught":
        return _SelfTaught(self)


class _SelfTaught(Learned):
    def __init__(self, spec: SelfTaught):
        super().__init__()
        self.spec, self.learning_rate = spec, spec.learning_rate
        self.first = nn.ModuleList(nn.Linear(NUM_FEATURES, NUM_FEATURES) for _ in range(2))  # by label
        self.second = nn.ModuleList(nn.Linear(NUM_FEATURES, 2) for _ in range(2))

    def forward(self, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """weight_B in (0, 1), 1 where a label does not exist; all of them 1 at first, but with the net's gradient."""
        loss_B = loss_B.detach().float()
        loss_GB = torch.stack([loss_B, *(context.again(number) for number in range(1, self.spec.passes))])
        weight_B = torch.ones_like(loss_B)
        with torch.autocast(loss_B.device.type, enabled=False):  # the passes are the model's, the net is not
            for label, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
                of_label_B = label_B == label
                if int(of_label_B.sum()) < 4:  # statistics of next to nothing
                    continue
                feature_BF = _standard(features(loss_GB[:, of_label_B]))
                logit_B2 = _standard(second(_standard(first(feature_BF)).relu()))
                weight_B = weight_B.masked_scatter(of_label_B, logit_B2.softmax(1)[:, 0])
        return weight_B

    def trusted(self, weight_B: Tensor, context: Context) -> Tensor:
        return weight_B if context.step >= self.spec.start_step else torch.ones_like(weight_B)

    def own_loss(self, weight_B: Tensor, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """Low where weight goes to losses that a step for the judges lowers, and the judges' weight to low losses."""
        exists_B = ~torch.isnan(label_B)
        judge_B = exists_B & (torch.rand(len(loss_B), generator=context.generator()) < 0.5).to(loss_B.device)
        judged_B = exists_B & ~judge_B
        slope_B = context.slope(weight_B.detach() * judge_B)
        gain = (weight_B * _standard_of(slope_B, judged_B)).sum() / judged_B.sum().clamp(min=1)
        pain = (weight_B * _standard_of(loss_B.float(), judge_B)).sum() / judge_B.sum().clamp(min=1)
        return pain - gain


def features(loss_GB: Tensor) -> Tensor:
    """feature_BF of examples of one label: what the passes say of each, and of the group it falls into."""
    group_B = (loss_GB.mean(0) > loss_GB.mean(0).median()).long()
    columns = []
    for value_GB in (loss_GB, torch.exp(-loss_GB)):
        mean_B, std_B = value_GB.mean(0), value_GB.std(0)
        group = [_of_group(value_B, group_B) for value_B in (mean_B, std_B)]
        columns += [mean_B, std_B, *group[0], *group[1]]
    mean_B, std_B = loss_GB.mean(0), loss_GB.std(0)
    (center_B, spread_B), _ = _of_group(mean_B, group_B), None
    for value_B in (_divergence(mean_B, std_B, center_B, spread_B), _overlap(mean_B, std_B, center_B, spread_B)):
        columns += [value_B, *_of_group(value_B, group_B)]
    return torch.stack([*columns, group_B.to(mean_B.dtype)], dim=1)


def _of_group(value_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the example's group; 0 for a group of one."""
    count_2 = torch.bincount(group_B, minlength=2).to(value_B.dtype).clamp(min=1)
    mean_2 = torch.zeros_like(count_2).index_add_(0, group_B, value_B) / count_2
    square_2 = torch.zeros_like(count_2).index_add_(0, group_B, (value_B - mean_2[group_B]) ** 2) / count_2
    return mean_2[group_B], square_2.sqrt()[group_B]


def _divergence(mean_B: Tensor, std_B: Tensor, center_B: Tensor, spread_B: Tensor) -> Tensor:
    """log(1 + KL(N(mean, std) || N(center, spread))): the divergence itself has outliers of many magnitudes."""
    std_B, spread_B = std_B.clamp(min=MIN_STD), spread_B.clamp(min=MIN_STD)
    kl_B = (spread_B / std_B).log() + (std_B**2 + (mean_B - center_B) ** 2) / (2 * spread_B**2) - 0.5
    return kl_B.clamp(min=0).log1p()


def _overlap(mean_B: Tensor, std_B: Tensor, center_B: Tensor, spread_B: Tensor) -> Tensor:
    """Bhattacharyya coefficient of the two normal distributions, in (0, 1]."""
    sum_B = std_B.clamp(min=MIN_STD) ** 2 + spread_B.clamp(min=MIN_STD) ** 2
    scale_B = (2 * std_B.clamp(min=MIN_STD) * spread_B.clamp(min=MIN_STD) / sum_B).sqrt()
    return scale_B * torch.exp(-((mean_B - center_B) ** 2) / (4 * sum_B))


def _standard(value_BF: Tensor) -> Tensor:
    """Batch normalisation without scale, shift or memory: it keeps the weights from all going to 0."""
    return nn.functional.batch_norm(value_BF, None, None, training=True)


def _standard_of(value_B: Tensor, chosen_B: Tensor) -> Tensor:
    """Zero mean and unit spread over the chosen, 0 elsewhere."""
    count = chosen_B.sum().clamp(min=1)
    center_B = (value_B - (value_B * chosen_B).sum() / count) * chosen_B
    return center_B / (center_B.square().sum() / count).sqrt().clamp(min=1e-12)
