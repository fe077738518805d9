"""What the run configuration says of a policy that learns from rewards."""

from typing import Literal

from pydantic import Field, model_validator

from recsys.fit import Fit
from recsys.policy import PolicyObjective, Reward
from recsys.policy.group import Proposals
from recsys.policy.rere import ReRe
from recsys.policy.rewards.constrained import Constrained
from recsys.policy.rewards.hit import Hit
from recsys.policy.rewards.rank import Rank
from recsys.spec import Spec


class PolicyFit(Fit):
    """The policy's own defaults: it begins where a trained model stands, so that steps are small."""

    batch_size: int = Field(64, ge=1, description="prompts of a step, over all processes")
    epochs: int = Field(5, ge=1, description="at most this many passes over the users, each with one prompt")
    learning_rate: float = Field(1e-4, gt=0, description="dense parameters, AdamW")
    embedding_learning_rate: float = Field(1e-3, gt=0, description="tables")
    warmup_steps: int = Field(20, ge=0)
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the dense gradient")
    patience: int = Field(3, ge=1, description="validations without a better one before training stops")


class ProposalsConfig(Spec):
    kind: Proposals | None = Field(None, description="beam, sample or greedy_and_sample; null: what the objective is made for")
    count: int = Field(16, ge=2, description="candidates of each prompt")


class PolicyConfig(Spec):
    parent: Literal["retriever", "generator"] = Field(
        "retriever", description="the trained model that the policy begins at and is kept near; it takes its place when serving"
    )
    objective: PolicyObjective = ReRe()
    prompts: Literal["training", "validation"] = Field(
        "training",
        description="events to learn from: those of the training split, which the parent knows by heart, or the validation "
        "events of most users, while those of the others decide",
    )
    deciding_share: float = Field(
        0.2, gt=0, lt=1, description="of the users, whose validation events decide where prompts are those of the others"
    )
    proposals: ProposalsConfig = ProposalsConfig()
    rewards: tuple[Reward, ...] | None = Field(
        None, description="what is added up; null: hit and, for a beam, rank, where the objective reads rewards and proposes"
    )
    constrained: Constrained | None = Field(
        None,
        description="instead of the rewards' weights: multipliers that hold each at a threshold, as {at_least: [0.02, -0.01]}",
    )
    judged_by: Literal["ndcg", "reward"] = Field(
        "ndcg", description="what decides on the validation split whether the policy or its parent is kept"
    )
    margin: float = Field(0.0, ge=0, description="the policy is kept only where it is above its parent by more than this")
    fit: PolicyFit = PolicyFit()

    @property
    def rewarded(self) -> tuple[Reward, ...]:
        """The rewards, named or not."""
        if self.rewards is not None:
            return self.rewards
        if self.objective.logged or not self.objective.reads_reward:
            return ()
        return (Hit(), Rank()) if self.proposes == "beam" else (Hit(),)

    @property
    def proposes(self) -> Proposals:
        """Where the candidates come from."""
        return self.proposals.kind or self.objective.proposals[0]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks whose labels are rewards."""
        return tuple(dict.fromkeys(reward.reads_task for reward in self.rewarded if reward.reads_task is not None))

    @property
    def reads_propensity(self) -> bool:
        """Whether rows of the log without a propensity are of no use."""
        return self.objective.logged and getattr(self.objective, "behaviour", None) == "logged"

    @property
    def leaves_out_unrewarded(self) -> bool:
        """Whether rows of the log whose labels are all 0 would be read for nothing."""
        return not self.objective.reads_unrewarded and all(reward.reads_task is not None for reward in self.rewarded)

    @model_validator(mode="after")
    def _proposals_fit(self) -> "PolicyConfig":
        kind, objective, allowed = self.proposes, self.objective, self.objective.proposals
        if kind not in allowed:
            raise ValueError(
                f"objective {objective.kind} cannot learn from proposals.kind {kind}: choose {' or '.join(allowed)}"
            )
        for reward in self.rewarded:
            if reward.ordered and kind != "beam":
                raise ValueError(
                    f"reward {reward.kind} reads the order of the candidates, and {kind} has none: take proposals.kind beam, "
                    "or another reward"
                )
            if objective.logged and not reward.of_logged:
                raise ValueError(
                    f"reward {reward.kind} is the same for every logged action: objective {objective.kind} needs one such as "
                    "{kind: task}"
                )
            if reward.asks_score and self.parent == "retriever":
                raise ValueError(
                    f"reward {reward.kind} asks the trained retriever, and parent retriever would be asked about itself: take "
                    "parent generator, or another reward"
                )
        if objective.reads_reward and not any(reward.weight for reward in self.rewarded):
            such = "{kind: task, task: click}" if objective.logged else "{kind: hit}"
            raise ValueError(f"objective {objective.kind} learns from rewards, and there are none: name one, such as {such}")
        return self

    @model_validator(mode="after")
    def _prompts_fit(self) -> "PolicyConfig":
        if self.prompts == "validation" and self.objective.logged:
            raise ValueError(f"objective {self.objective.kind} learns from training rows of the log: set prompts to training")
        return self

    @model_validator(mode="after")
    def _constraints_fit(self) -> "PolicyConfig":
        if self.constrained is None:
            return self
        if self.objective.logged or not self.objective.reads_reward:
            raise ValueError(
                f"constrained compares the rewards of candidates, which objective {self.objective.kind} does not: take it out"
            )
        thresholds, kinds = len(self.constrained.at_least), [reward.kind for reward in self.rewarded]
        if thresholds != len(kinds):
            raise ValueError(
                f"constrained.at_least has {thresholds} thresholds for {len(kinds)} rewards {kinds}: give one for each"
            )
        return self

    @model_validator(mode="after")
    def _fit_fits(self) -> "PolicyConfig":
        if self.fit.keep == "last":
            raise ValueError("fit.keep last would keep a policy that is worse than its parent: leave it at best")
        if self.fit.precision != "float32":
            raise ValueError(
                f"fit.precision {self.fit.precision} rounds away how the policy differs from its parent: set it to float32"
            )
        if self.fit.batch_tokens is not None:
            raise ValueError("fit.batch_tokens is of windows, and a policy reads prompts: set batch_size")
        if self.judged_by == "reward" and not self.rewarded:
            raise ValueError("judged_by reward needs rewards: name one, such as {kind: hit}, or take ndcg")
        return self
