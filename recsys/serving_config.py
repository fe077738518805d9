"""What is served, and how: the `serving` section of a config. The bundle carries it to the endpoint."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.error_memory import ErrorMemorySpec
from recsys.rerank import Reranker, check_chain
from recsys.spec import Spec
from recsys.value_formula import ValueFormula, tasks_of


class ServingConfig(Spec):
    candidates: Literal["retriever", "generator"] = Field(
        "retriever",
        description="who finds the items that the ranker orders; the retriever fills up where a generator finds few",
    )
    dim: int | None = Field(
        None, ge=1, description="numbers of the vectors that retrieval scores; one of retriever.matryoshka.dims"
    )
    num_candidates: int = Field(
        200,
        ge=1,
        description="items the retriever hands to the ranker (a generator: generator.beam); the largest k of a request",
    )
    ranked: int | None = Field(
        None, ge=1, description="how many of the candidates the ranker scores, the best ones; the others follow. Default: all"
    )
    value: dict[str, float] | str = Field(
        default_factory=dict,
        description="task -> weight in the final score, or a formula such as click * (1 + 4 * purchase); empty: all tasks, "
        "weight 1",
    )
    rerank: tuple[Reranker, ...] = Field((), description="what changes the order after the ranker, one after the other")
    history: tuple[str, ...] = Field(
        (),
        description="kinds of posted events that become an entry of the history; the others say what was done with the newest "
        "entry of their item. Default: all kinds become entries",
    )
    segment: str | None = Field(
        None, description="the user feature by whose values popularity is kept for users of little history; default: the first"
    )
    error_memory: ErrorMemorySpec | None = Field(
        None, description="what the ranker was wrong about lately corrects it, such as {tasks: [click]}; default: off"
    )
    table: Literal["float32", "float16", "int8"] = Field("float32", description="numbers of the item table in the bundle")
    min_recall: float = Field(
        0.95,
        gt=0,
        le=1,
        description="least share of the exact candidates that an index, or retrieval from a smaller table, must find at export",
    )
    index: Literal["auto", "exact", "faiss"] = Field(
        "auto", description="how retrieval searches; auto: exactly up to a million items, by a faiss index above"
    )

    @model_validator(mode="after")
    def _rerankers_fit(self) -> Self:
        check_chain(self.rerank)
        return self

    @field_validator("value")
    @classmethod
    def _is_a_formula(cls, value: dict[str, float] | str) -> dict[str, float] | str:
        ValueFormula(value, tasks_of(value))
        return value
