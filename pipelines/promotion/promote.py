"""Promotion: the candidate becomes the champion only if every gate passes, and of two promotions at once one wins.

`judge` reads and decides; `settle` writes, under a claim, and only if the champion is still the one that was judged against.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.promotion.decision import ROLLED_BACK, ROLLED_BACK_FROM, Decision
from pipelines.promotion.facts import CHAMPION, PREVIOUS, facts
from pipelines.promotion.gates import judge_facts
from pipelines.promotion.record import record
from recsys import track
from recsys.promotion_config import PromotionConfig


def promote(
    model: str, rules: PromotionConfig, *, first_k: int, tasks: Sequence[str] = (), version: int | None = None,
    dry_run: bool = False, uri: str | None = None,
) -> Decision:  # fmt: skip
    """Judge the candidate, or the version of this number, and make it the champion if every gate passes.

    The old champion becomes `previous`, and every number is written to the version. A dry run judges and writes nothing.
    Raises InputError when there is no such version or its run is gone.
    """
    decision = judge(model, rules, first_k=first_k, tasks=tasks, version=version, uri=uri)
    return decision if dry_run else settle(decision, uri=uri)


def judge(
    model: str, rules: PromotionConfig, *, first_k: int, tasks: Sequence[str] = (), version: int | None = None,
    uri: str | None = None,
) -> Decision:  # fmt: skip
    """The gates' verdicts; nothing is written."""
    known = facts(model, version, uri=uri)
    gates = judge_facts(rules, known, rules.main_metric(first_k), first_k=first_k, tasks=tasks)
    return Decision(model, known.candidate.number, known.champion.number if known.champion else None, gates)


def settle(decision: Decision, *, uri: str | None = None) -> Decision:
    """Write the decision to the version and, where it passed, move the aliases. Raises InputError where another one holds on.

    Written in this order: the version's tags, `previous`, `champion`, the outcome. Killed before `champion`, the promotion did
    not happen: `previous` may name the champion itself, and rollback then reads the champion's tag. Killed after it, it did.
    """
    if decision.candidate == decision.champion:
        return replace(decision, outcome="already" if decision.passed else "refused")
    if not decision.passed:
        refused = replace(decision, outcome="refused")
        record(refused, uri=uri)
        return refused
    with track.claimed(claim_of(decision.model), uri=uri) as claim:
        now = track.get_alias(decision.model, CHAMPION, uri=uri)
        number = now.number if now else None
        if number == decision.candidate:
            return replace(decision, outcome="already")
        if number != decision.champion:
            became = "the champion was taken away" if number is None else f"version {number} became champion"
            lost = replace(decision, outcome="lost", note=f"{became} while this was judged: run promote again")
            record(lost, uri=uri)
            return lost
        record(replace(decision, outcome="passed"), uri=uri)
        claim.check()
        if now is not None and not _is_same_bundle(now, track.get_version(decision.model, decision.candidate, uri=uri)):
            track.set_alias(decision.model, PREVIOUS, now.number, uri=uri)  # else there is nothing to go back to
        claim.check()
        track.set_alias(decision.model, CHAMPION, decision.candidate, uri=uri)
        promoted = replace(decision, outcome="promoted")
        track.tag_version(decision.model, decision.candidate, {ROLLED_BACK: None, ROLLED_BACK_FROM: None}, uri=uri)
        record(promoted, uri=uri)
    return promoted


def _is_same_bundle(a: track.Version, b: track.Version) -> bool:
    """Whether two versions are one bundle that was registered twice: `recsys export` names the folder by its fingerprint."""
    return a.folder == b.folder and a.folder.startswith("bundle-")


def claim_of(model: str) -> str:
    """What a process holds while it moves the model's aliases."""
    return f"recsys claim/aliases of {model}"
