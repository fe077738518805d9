"""What of a policy does not go together is refused when the config is read."""

from typing import Any, get_args

import pytest
from planted_data import planted_config
from pydantic import ValidationError

from recsys.config import RunConfig
from recsys.policy import PolicyObjective, Reward
from recsys.policy_config import PolicyConfig
from recsys.retriever_config import RetrieverConfig

OBJECTIVES = get_args(get_args(PolicyObjective)[0])
REWARDS = get_args(get_args(Reward)[0])
CLICK = [{"kind": "task", "task": "click"}]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"objective": {"kind": "remax"}, "proposals": {"kind": "beam"}},
            "cannot learn from proposals.kind beam: choose greedy_and_sample",
        ),
        ({"objective": {"kind": "top_k_reinforce"}, "rewards": CLICK, "proposals": {"kind": "sample"}}, "choose none"),
        (
            {"proposals": {"kind": "sample"}, "rewards": [{"kind": "rank"}]},
            "reward rank reads the order of the candidates, and sample has none",
        ),
        (
            {"objective": {"kind": "a_lol"}},
            "learns from rewards, and there are none: name one, such as {kind: task, task: click}",
        ),
        ({"objective": {"kind": "a_lol"}, "rewards": [{"kind": "hit"}]}, "reward hit is the same for every logged action"),
        ({"rewards": []}, "objective rere learns from rewards, and there are none: name one, such as {kind: hit}"),
        ({"rewards": [{"kind": "hit", "weight": 0}]}, "and there are none"),
        ({"rewards": [{"kind": "recommender"}]}, "parent retriever would be asked about itself: take parent generator"),
        ({"proposals": {"count": 1}}, "greater than or equal to 2"),
        ({"constrained": {"at_least": [0.1]}}, r"has 1 thresholds for 2 rewards \['hit', 'rank'\]: give one for each"),
        ({"constrained": {"at_least": [0.1]}, "objective": {"kind": "dpo"}}, "which objective dpo does not: take it out"),
        ({"constrained": {"at_least": [0.1]}, "objective": {"kind": "a_lol"}, "rewards": CLICK}, "objective a_lol does not"),
        ({"fit": {"keep": "last"}}, "fit.keep last would keep a policy that is worse than its parent: leave it at best"),
        ({"fit": {"precision": "bfloat16"}}, "fit.precision bfloat16 rounds away how the policy differs from its parent"),
        ({"fit": {"batch_tokens": 100}}, "fit.batch_tokens is of windows, and a policy reads prompts: set batch_size"),
        ({"objective": {"kind": "dpo"}, "judged_by": "reward"}, "judged_by reward needs rewards"),
        ({"objective": {"kind": "ppo"}}, "'rere', 'remax'"),
        ({"margin": -0.1}, "greater than or equal to 0"),
        ({"parent": "ranker"}, "'retriever' or 'generator'"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PolicyConfig.model_validate(settings)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda each: each().kind)
def test_every_objective_works_with_its_defaults(objective: Any) -> None:
    """An objective that learns from the log needs to be told which label is the reward."""
    settings = {"objective": {"kind": objective().kind}, **({"rewards": CLICK} if objective.logged else {})}
    part = PolicyConfig.model_validate(settings)
    assert part.proposes == objective.proposals[0]
    assert bool(part.rewarded) == objective.reads_reward
    assert part.tasks == (("click",) if objective.logged else ())
    for kind in objective.proposals:
        assert PolicyConfig.model_validate({**settings, "proposals": {"kind": kind}}).proposes == kind


@pytest.mark.parametrize("reward", REWARDS, ids=lambda each: each.model_fields["kind"].default)
def test_every_reward_is_taken_by_some_policy(reward: Any) -> None:
    kind = reward.model_fields["kind"].default
    settings = {"rewards": [{"kind": kind, **({"task": "click"} if kind == "task" else {})}], "parent": "generator"}
    assert PolicyConfig.model_validate(settings).rewarded[0].kind == kind


def run(**settings: Any) -> RunConfig:
    return planted_config(**{"policy": settings.pop("policy", {}), **settings})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"policy": {"parent": "generator"}},
            "policy.parent generator is not trained by this config: add a `generator` section",
        ),
        (
            {"policy": {"rewards": [{"kind": "task", "task": "buy"}]}},
            r"name the unknown task 'buy': choose from \['click', 'like'\]",
        ),
        (
            {"policy": {"objective": {"kind": "top_k_reinforce"}, "rewards": CLICK}},
            "needs data.events.propensity, the chance with which the item was shown: name its column, or choose another",
        ),
        ({"policy": {"proposals": {"count": 21}}}, "policy.proposals.count 21 is more than serving.num_candidates 20"),
    ],
)
def test_a_run_that_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        run(**settings)


def test_a_parent_that_was_trained_on_what_judges_it_is_refused() -> None:
    retriever = RetrieverConfig.model_validate({"validation_too": True, "fit": {"keep": "last"}})
    with pytest.raises(ValidationError, match=r"retriever\.validation_too trains on those events: take one of them out"):
        run(retriever=retriever.model_dump())


def test_without_a_policy_there_is_none() -> None:
    assert planted_config().policy is None
    assert run().policy == PolicyConfig()
