"""What came of judging a version: the gates, and what was done. The tags that say so on versions."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.promotion.gate import Gate

ROLLED_BACK = "promotion/rolled_back"  # tag: when the version was taken back
ROLLED_BACK_FROM = "promotion/rolled_back_from"  # tag of the version that came back: which one it replaced
CHAMPION_BEFORE = "promotion/champion_before"
DECISION = "promotion/decision"

# judged: nothing was written (yet). passed: all gates hold, the aliases did not move yet. lost: another promotion was faster.
Outcome = Literal["judged", "refused", "passed", "promoted", "already", "lost"]


@dataclass(frozen=True)
class Decision:
    model: str
    candidate: int
    champion: int | None  # before the decision
    gates: tuple[Gate, ...]
    outcome: Outcome = "judged"
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    @property
    def promoted(self) -> bool:
        """Whether the alias moved: not in a dry run, nor where the candidate is the champion already."""
        return self.outcome == "promoted"

    @property
    def refused(self) -> bool:
        """Whether the candidate is not the champion for a reason that someone should look at."""
        return not self.passed or self.outcome == "lost"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed, "promoted": self.promoted}
