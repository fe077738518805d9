"""The models of benchmarks/policy_world.py: a retriever, and policies that go on from it by the log's clicks."""

from pathlib import Path
from typing import Any

CLICKS = ("policy.rewards=[{kind: task, task: click}]", "policy.judged_by=reward")
# Visitors click again what they clicked before, so nothing is taken out. A taste is what the mean of many clicks says.
BASE = (
    "evaluation.filter_seen=false",
    "max_history=50",
    "retriever.encoder={kind: mean_pooling, dim: 64, dropout: 0.2}",
    "retriever.fit.epochs=8",
)
FIT = "policy.fit={batch_size: 256, epochs: 2, learning_rate: 2.0e-3, embedding_learning_rate: 0.05}"
OBJECTIVES = {
    "top_k_reinforce": (*CLICKS, "policy.objective={kind: top_k_reinforce, k: 1}", FIT),
    "top_k_reinforce_k16": (*CLICKS, "policy.objective={kind: top_k_reinforce, k: 16}", FIT),
    "without_propensities": (*CLICKS, "policy.objective={kind: top_k_reinforce, k: 1, behaviour: none}", FIT),
    "a_lol": (*CLICKS, "policy.objective={kind: a_lol}", FIT, "policy.fit.epochs=1"),
}


def trained(seed: int, data: Any, workspace: Any, objectives: list[str], overrides: list[str]) -> dict[str, Any]:
    """The serving form of the retriever and of a policy of each objective, trained where it is not there yet."""
    from safetensors.torch import load_file

    from benchmarks.debias import Quiet
    from pipelines.models import retrieval_graph
    from pipelines.policy import train_policy
    from pipelines.train import train_retriever
    from pipelines.workspace import check_lineage
    from recsys.artefact import read_manifest
    from recsys.errors import InputError
    from recsys.train.distributed import process_group
    from recsys.train.loop import MODEL_FILE

    def graph(config: Any, folder: Path) -> Any:
        return retrieval_graph(config, data, load_file(folder / MODEL_FILE))

    base, found = settings(seed, *overrides), {}
    with process_group() as device:
        if not workspace.checkpoint("retriever").exists():
            train_retriever(base, data, workspace.checkpoint("retriever"), device=device, progress=Quiet())
        parent = check_lineage(workspace, "retriever", data, base)
        found["retriever"] = graph(base, workspace.checkpoint("retriever"))
        for name in objectives:
            config, folder = settings(seed, *OBJECTIVES[name], *overrides), workspace.root / f"policy-{name}"
            if not folder.exists():
                train_policy(config, data, folder, workspace=workspace, device=device, progress=Quiet())
            known = read_manifest(folder, "checkpoint")["identity"]
            wanted = config.policy.model_dump(mode="json", exclude={"fit"}), parent["fingerprint"]
            if (known["model"], known["parent"]) != wanted:
                raise InputError(f"{folder} is of other settings or another retriever: remove it")
            found[name] = graph(config, folder)
    return found


def settings(seed: int, *overrides: str) -> Any:
    """The demo's config as this world asks for it."""
    from pipelines.workspace import config_path
    from recsys.config import load

    return load(config_path("demo"), f"seed={seed}", *BASE, *overrides)
