"""How a policy stands: what its proposals are worth as it is served, and how far it has gone from its parent.

Shapes: B = prompts, G = candidates, R = rewards, P = distinct prompts, X = all that tells prompts apart.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.columns import FIRST_ID
from recsys.policy.group import Group
from recsys.policy.measures import observed
from recsys.policy.rewards.total import total
from recsys.train.proposing import Rewarder, excluded, proposal, served

SHOWN = ("reward", "hit_share", "kl_to_parent")


@torch.no_grad()
def standing(graph: Any, parent: Any, rewarder: Rewarder, batches: Iterable[Batch], count: int) -> dict[str, float]:
    """Of the `count` most probable items of each prompt: the mean reward, how often the logged item is among them, and the
    divergence from the parent. `graph`, `parent`: serving forms. NaN without prompts."""
    sums, rows = {name: 0.0 for name in SHOWN if name != "reward" or rewarder.rewards}, 0
    for batch in batches:
        history_BL, length_B, time_BM = served(batch)
        times = () if time_BM is None else (time_BM,)
        item_BK, score_BK = graph(history_BL, length_B, excluded(batch), *times)
        item_BG = item_BK.where(torch.isfinite(score_BK), 0)[:, :count]
        log_prob_BGT, parent_BGT = (each.log_probs(history_BL, length_B, item_BG, time_BM) for each in (graph, parent))
        reward_BG = torch.zeros_like(log_prob_BGT[..., 0])
        if rewarder.rewards:
            reward_BG = total(rewarder.rewards, rewarder.each(item_BG, batch))
        group = Group(log_prob_BGT, parent_BGT, reward_BG, item_BG >= FIRST_ID, proposal(item_BG, batch).column_B)
        means = observed(group, torch.zeros(len(item_BG), device=item_BG.device))
        rows += batch.rows
        for name in sums:
            sums[name] += float(means[name]) * batch.rows
    return {name: value / rows if rows else float("nan") for name, value in sums.items()}


@torch.no_grad()
def logged_value(graph: Any, parent: Any, rewarder: Rewarder, batches: Iterable[Batch]) -> float:
    """The reward that the policy would have earned on rows of the log, self-normalised: sum(w r) / sum(w) with w the policy's
    probability of what was shown over the logging policy's or, where the log has none, the parent's. NaN without rows."""
    value, weight = 0.0, 0.0
    for batch in batches:
        item_BG = batch.ids["item"].value_N[:, None]
        log_prob_B = _log_prob(graph, batch)
        shown_B = batch.propensity_B.double().log() if len(batch.propensity_B) else _log_prob(parent, batch)
        weight_B = (log_prob_B - shown_B).exp().where(shown_B > -torch.inf, 0.0)  # what was never shown weighs nothing
        value += float((weight_B * total(rewarder.rewards, rewarder.each(item_BG, batch))[:, 0]).sum())
        weight += float(weight_B.sum())
    return value / weight if weight > 0 else float("nan")


def _log_prob(graph: Any, batch: Batch) -> Tensor:
    """log_prob_B of what the log has next. Rows of one page stand together and have one prompt, which is read once."""
    history_BL, length_B, time_BM = served(batch)
    told_BX = torch.cat([length_B[:, None], history_BL, *([] if time_BM is None else [time_BM])], dim=1)
    _, prompt_B, count_P = told_BX.unique_consecutive(dim=0, return_inverse=True, return_counts=True)
    first_P = count_P.cumsum(0) - count_P
    column_B = torch.arange(batch.rows, device=prompt_B.device) - first_P[prompt_B]
    item_PG = prompt_B.new_zeros(len(count_P), int(count_P.max()))
    item_PG[prompt_B, column_B] = batch.ids["item"].value_N
    time_PM = None if time_BM is None else time_BM[first_P]
    log_prob_PGT: Tensor = graph.log_probs(history_BL[first_P], length_B[first_P], item_PG, time_PM)
    return log_prob_PGT[prompt_B, column_B].sum(1).double()
