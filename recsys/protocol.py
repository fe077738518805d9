"""How a result was measured, as data: only results of one protocol and one dataset may stand in one ranking."""

from functools import cached_property
from typing import Any, Literal, Self

from recsys.artefact import fingerprint
from recsys.config import RunConfig
from recsys.metrics.slices import RULES
from recsys.spec import Spec


class Protocol(Spec):
    """Every rule that changes a figure. Two results are comparable where `hash` is equal and the dataset is the same.

    Rules that are part of the dataset (filters, labels) are not repeated: its fingerprint stands beside the protocol.
    """

    split: dict[str, Any]
    time_ties: str
    candidates: Literal["every item of the log"] = "every item of the log"
    request_time: str
    seen_items: Literal["removed", "kept"]
    score_ties: Literal["lower id first"] = "lower id first"
    ks: tuple[int, ...]
    slices: dict[str, str]  # name -> its rule, in words or as the SQL expression of the config
    category: str | None = None  # the item feature that diversity and calibration read
    ece_bins: int  # equal widths, of the expected calibration error
    floor_counts: Literal["training split"] = "training split"

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """The protocol by which this config is evaluated."""
        rules = config.evaluation
        return cls(
            split=config.data.split.model_dump(mode="json"),
            time_ties=config.data.events.ties,
            request_time=rules.request_time,
            seen_items="removed" if rules.filter_seen else "kept",
            ks=rules.ks,
            ece_bins=rules.ece_bins,
            slices={**RULES, **rules.user_slices, **rules.item_slices},
            category=config.category,
        )

    @cached_property
    def hash(self) -> str:
        return fingerprint(self.model_dump(mode="json"))

    @property
    def line(self) -> str:
        """In a few words and the hash, as the tag by which runs are held comparable."""
        return f"{self.split['kind']} split, seen items {self.seen_items}, ties by {self.time_ties} [{self.hash}]"

    def document(self) -> dict[str, Any]:
        """As it is stored with a result."""
        return {**self.model_dump(mode="json"), "hash": self.hash}

    def differences(self, other: "Protocol") -> dict[str, tuple[Any, Any]]:
        """Rule -> what it is here and there, of the rules that differ."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}
