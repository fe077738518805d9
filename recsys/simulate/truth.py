"""What policies are truly worth in the simulated world, summed over all that they could show.

Shapes: R requests, I items, C categories, D latent dimensions.
"""

import numpy as np

from recsys.simulate.behaviour import FOCUS_AFFINITY, task_chance
from recsys.simulate.log import category_chance
from recsys.simulate.settings import Simulation
from recsys.simulate.world import CLICK, Floats, Ints, World


def relevance(world: World, taste_RD: Floats, user_R: Ints, focus_R: Ints) -> Floats:
    """relevance_RI: the chance that the user of a request, who looks at an item, means to click it."""
    affinity_RI = np.einsum("rd,id->ri", taste_RD, world.latent_ID) / np.float32(world.latent_ID.shape[1] ** 0.5)
    affinity_RI += np.float32(FOCUS_AFFINITY) * (world.category_I == focus_R[:, None])
    return task_chance(CLICK, affinity_RI, world.bias_UK[user_R, CLICK][:, None] + world.bias_IK[:, CLICK])


def logging_policy(spec: Simulation, world: World, taste_RD: Floats, focus_R: Ints) -> Floats:
    """prob_RI of the policy that wrote the log."""
    chance_RI = category_chance(world, taste_RD, focus_R)[:, world.category_I] * world.within_I
    return spec.explore_share / spec.items + (1 - spec.explore_share) * chance_RI


def true_value(prob_RI: Floats, relevance_RI: Floats) -> Floats:
    """value_R: a policy's chance of a click that is meant, if it fills the first place (slot 0) of each of these pages.

    The first place is always looked at. Further down, a click is as much rarer as the place is looked at more rarely, whatever
    the policy, so that the order of policies that fill places independently is the same for every place. Clicks by accident do
    not count.
    """
    if not np.allclose(prob_RI.sum(1), 1, atol=1e-3):
        raise ValueError(f"the policy's probabilities add up to {prob_RI.sum(1).min():.4f} and not to 1 for some requests")
    return np.einsum("ri,ri->r", prob_RI, relevance_RI)
