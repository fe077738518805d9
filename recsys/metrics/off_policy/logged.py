"""What a log says of another policy. Shapes: N = logged actions, C = clusters."""

from dataclasses import dataclass, field

import numpy as np

from recsys.errors import InputError


@dataclass(frozen=True)
class Logged:
    """Actions of a logging policy, their rewards, and how likely another policy would have been to take them.

    `propensity_N` is the logging policy's chance of the action, `target_N` that of the policy in question. With an outcome
    model, `predicted_N` is its reward of the action and `direct_N` its mean reward over the actions of that policy; it must not
    have seen the row's own cluster. Rows of one cluster, as a user's, are dependent; by default each row is its own.
    """

    reward_N: np.ndarray
    propensity_N: np.ndarray
    target_N: np.ndarray
    cluster_N: np.ndarray = field(default_factory=lambda: np.empty(0))
    predicted_N: np.ndarray | None = None
    direct_N: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises InputError where a number can be no probability or no reward."""
        if not len(self.reward_N):
            raise InputError("the log has no action to estimate a value from: name a split that has examples")
        for name, value_N in vars(self).items():
            if name != "cluster_N" and value_N is not None:
                object.__setattr__(self, name, _checked(name.removesuffix("_N"), value_N, len(self.reward_N)))
        if bad := np.count_nonzero((self.propensity_N <= 0) | (self.propensity_N > 1)):
            raise InputError(
                f"propensity is not above 0 and at most 1 for {bad} of {len(self.reward_N)} logged actions: leave out what was "
                "not drawn by chance, or log the chance with which it was"
            )
        if bad := np.count_nonzero((self.target_N < 0) | (self.target_N > 1 + 1e-6)):
            raise InputError(f"the policy's probability is not between 0 and 1 for {bad} of {len(self.reward_N)} actions")
        named_N = self.cluster_N if len(self.cluster_N) else np.arange(len(self.reward_N))
        object.__setattr__(self, "cluster_N", np.unique(named_N, return_inverse=True)[1])
        assert len(self.cluster_N) == len(self.reward_N), "one cluster for each row"

    @property
    def weight_N(self) -> np.ndarray:
        return self.target_N / self.propensity_N

    @property
    def modelled(self) -> tuple[np.ndarray, np.ndarray]:
        """(predicted_N, direct_N)."""
        if self.predicted_N is None or self.direct_N is None:
            raise ValueError("this estimator needs an outcome model: give predicted_N and direct_N, or choose ips or snips")
        return self.predicted_N, self.direct_N


def _checked(name: str, value_N: np.ndarray, rows: int) -> np.ndarray:
    value_N = np.asarray(value_N, np.float64)
    assert value_N.shape == (rows,), f"{name}: one value for each row, not shape {value_N.shape}"
    if bad := np.count_nonzero(~np.isfinite(value_N)):
        raise InputError(f"{name} is unknown or not finite for {bad} of {rows} logged actions: leave these rows out first")
    return value_N
