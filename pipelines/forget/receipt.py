"""The receipt of forgetting: what was done, what was measured, what still has the users. As JSON and to be read.

It names users by the SHA-256 of their ids only: who has an id can check that it is in the receipt.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.forget.plan import Plan, write_json
from pipelines.workspace import Workspace
from recsys.spec import Spec

BAR_AUC, BAR_LOSS = 0.03, 0.01


class Receipt(Spec):
    """`measured`: part -> the membership attack before and after, and a metric of the others before and after."""

    users: tuple[str, ...]
    method: str
    began: str
    ended: str
    server: dict[str, int | None]
    raw: dict[str, int]
    dataset: dict[str, int]
    model: dict[str, Any]
    measured: dict[str, Any]
    deleted: tuple[str, ...]
    made_again: tuple[str, ...]
    left: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, workspace: Workspace, users: list[str]) -> "Receipt":
        steps = plan.steps
        left = [f"{folder}: made before, with the users; delete it, or forget with --purge" for folder in steps["days"]["left"]]
        left += [f"{folder}: may have been made with the users; delete it, or make it again" for folder in steps["unknown"]]
        left += [
            "forgotten.json names the users, so that rows of theirs that come later are passed over",
            "MLflow and its spool keep earlier runs and versions, whose bundles have the users: delete them there once none is "
            "served" + (f"; the run of {workspace.root} is {workspace.run_id}" if workspace.run_id else ""),
        ]
        left.append("the folder `models` of a server has bundles of before: delete those that are not served any more")
        if steps["server"]["events_deleted"] is None:
            left.append("no server was named (--live, --url): its state and journal are as they were")
        elif steps["server"]["journal_lines"] is None:
            left.append("the journal of the server is as it was: name its folder with --live on its host")
        else:
            left.append("the journal and the state remember the moment for each user, for as long as the server lives")
        return cls(
            users=tuple(users), method=plan.state["method"], began=plan.state["began"],
            ended=datetime.now(UTC).isoformat(timespec="seconds"), server=steps["server"], raw=steps["raw"],
            dataset=steps["dataset"], model=steps["model"], measured=steps["measured"],
            deleted=(*steps["swap"], *steps["stale"], *steps["days"]["deleted"]), made_again=tuple(steps["derived"]),
            left=tuple(left),
        )  # fmt: skip

    def write(self, folder: Path) -> Path:
        """Both files, the readable one first; returns the JSON."""
        name = self.began.replace(":", "").replace("+0000", "Z")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(self.text())
        write_json(folder / f"{name}.json", self.model_dump(mode="json"))
        return folder / f"{name}.json"

    def text(self) -> str:
        """In Markdown."""
        state = self.server["events_deleted"]
        lines = [
            f"# {len(self.users)} users forgotten, by {self.method}", "",
            f"Begun {self.began}, ended {self.ended}.", "",
            "## Done", "",
            f"- server: {'not named' if state is None else f'{state} events deleted from its state'}, "
            f"{self.server['journal_lines'] or 0} lines blanked in its journal",
            f"- raw files: {sum(self.raw.values())} rows taken out of {len(self.raw)} files",
            f"- dataset: built from scratch without them, {self.dataset['users']} users are left; their ids and rows are gone, "
            "and those of the others have other numbers",
            *[f"- {part}: {_words(done)}" for part, done in self.model.items()],
            f"- deleted: {', '.join(self.deleted) or 'nothing more'}; made again: {', '.join(self.made_again)}",
            "", "## Measured", "",
        ]  # fmt: skip
        for part, found in self.measured.items():
            lines += [f"- {part}, {sentence}" for sentence in _found(found)]
        return "\n".join(
            [*lines, "", "## Left", "", *[f"- {each}" for each in self.left], "", "## Users (SHA-256)", "", *self.users, ""]
        )


def _words(done: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in done.items() if not isinstance(value, dict))


def _found(found: dict[str, Any]) -> list[str]:
    attack, others = found["attack"], found["others"]
    told = [
        f"membership attack {when}: AUC {each['auc']:.3f} [{each['low']:.3f}, {each['high']:.3f}], {each['members']} users "
        f"against {each['others']} who were never trained on"
        for when, each in attack.items()
        if each is not None
    ] or ["membership attack: not measured, too few users were never trained on, or nobody to forget was trained on"]
    if attack["after"] is not None:
        inside = abs(attack["after"]["auc"] - 0.5) <= BAR_AUC
        told.append(f"the AUC is {'' if inside else 'not '}within {BAR_AUC} of a guess")
    if others["metric"] is None:
        return [*told, "quality for the others: not measured, nobody has test events"]
    change = others["after"] / others["before"] - 1 if others["before"] else 0.0
    values = f"{others['before']:.4f} before, {others['after']:.4f} after ({change:+.1%})"
    return [*told, f"{others['metric']} of the {others['users']} others: {values}"]
