"""The serving forms of the models that find candidates, read from a workspace."""

from safetensors.torch import load_file

from pipelines import models
from pipelines.semantic_ids import semantic_ids
from pipelines.workspace import Workspace, served_part
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.evaluate import Graph
from recsys.train.loop import MODEL_FILE


def kind_of(config: RunConfig, part: str) -> str:
    """Whether a part has the form of a retriever or of a generator: a policy has its parent's."""
    return config.policy.parent if part == "policy" and config.policy else part


def candidate_parts(config: RunConfig) -> list[str]:
    """The parts that find candidates, the one that is served first."""
    there = ["retriever", *(part for part in ("generator", "policy") if getattr(config, part) is not None)]
    served = served_part(config, config.serving.candidates)
    return [served, *(part for part in there if part != served)]


def candidate_graph(
    config: RunConfig, data: Dataset, workspace: Workspace, part: str, *, score_dim: int | None = None
) -> Graph:
    """The serving form of a trained part. `score_dim`: of a retriever, numbers of the vectors that are scored."""
    state = load_file(workspace.checkpoint(part) / MODEL_FILE)
    if kind_of(config, part) == "retriever":
        return models.retrieval_graph(config, data, state, score_dim=score_dim)
    return models.generation_graph(config, data, semantic_ids(config, data, workspace), state)
