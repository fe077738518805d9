"""Rollback: the champion goes back to the version before it, if that one can still be served."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.promotion.decision import CHAMPION_BEFORE, ROLLED_BACK, ROLLED_BACK_FROM
from pipelines.promotion.facts import CHAMPION, PREVIOUS
from pipelines.promotion.gates import PARITY
from pipelines.promotion.promote import claim_of
from recsys import track
from recsys.errors import InputError
from recsys.track import Version


@dataclass(frozen=True)
class Rollback:
    model: str
    champion: int  # after it
    previous: int | None  # the version that was champion; None where nothing changed
    changed: bool
    says: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rollback(model: str, *, to: int | None = None, max_parity_error: float | None = 1e-4, uri: str | None = None) -> Rollback:
    """Make `to`, or else the version before, the champion; the champion becomes `previous` and is marked as taken back.

    Done twice, the second time changes nothing: a script that tries again must not bring back what was taken back. Raises
    InputError where there is nothing to go back to, or its bundle or its parity is lost.

    Written in this order: both versions' tags, `champion`, `previous`. Killed in between, the next rollback completes it.
    """
    with track.claimed(claim_of(model), uri=uri) as claim:
        champion = track.get_alias(model, CHAMPION, uri=uri)
        if champion is None:
            raise InputError(f"The model {model!r} has no champion that could be rolled back: promote a version first")
        if to is not None:
            track.get_version(model, to, uri=uri)
        if (unchanged := _unchanged(champion, to, uri)) is not None:
            return unchanged
        target = track.get_version(model, to, uri=uri) if to is not None else _before(champion, uri)
        _check_servable(target, max_parity_error, uri)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        back = {ROLLED_BACK_FROM: str(champion.number), "promotion/rolled_back_at": when, ROLLED_BACK: None}
        track.tag_version(model, champion.number, {ROLLED_BACK: when, "promotion/replaced_by": str(target.number)}, uri=uri)
        track.tag_version(model, target.number, back, uri=uri)
        claim.check()
        track.set_alias(model, CHAMPION, target.number, uri=uri)
        track.set_alias(model, PREVIOUS, champion.number, uri=uri)
    says = f"Rolled back: version {target.number} is the champion; version {champion.number} is kept as {PREVIOUS}."
    return Rollback(model, target.number, champion.number, True, says)


def _unchanged(champion: Version, to: int | None, uri: str | None) -> Rollback | None:
    """What to say where the champion is where it should be; completes the aliases of a rollback that was killed."""
    taken_back = champion.tags.get(ROLLED_BACK_FROM)
    if to is None and taken_back is None:
        return None
    if to is not None and to != champion.number:
        return None
    if taken_back is not None:
        previous = track.get_alias(champion.model, PREVIOUS, uri=uri)
        if previous is None or previous.number == champion.number:
            track.set_alias(champion.model, PREVIOUS, int(taken_back), uri=uri)
    if to is not None:
        says = f"Version {to} is the champion already; nothing was changed."
    else:
        says = (
            f"Rolled back already: version {champion.number} came back for version {taken_back}; nothing was changed. "
            "To go further, name a version with --to."
        )
    return Rollback(champion.model, champion.number, None, False, says)


def _before(champion: Version, uri: str | None) -> Version:
    """The version before the champion: the alias, or, where a killed promotion left it on the champion, the champion's tag."""
    found = track.get_alias(champion.model, PREVIOUS, uri=uri)
    if found is not None and found.number != champion.number:
        return found
    tag = champion.tags.get(CHAMPION_BEFORE, "none")
    if found is not None and tag.isdigit():
        return track.get_version(champion.model, int(tag), uri=uri)
    raise InputError(
        f"The model {champion.model!r} has no version before its champion, version {champion.number}: name one --to"
    )


def _check_servable(target: Version, max_parity_error: float | None, uri: str | None) -> None:
    """Raise InputError unless the bundle is whole and its parity was proved."""
    if lost := track.missing_files(target, uri=uri):
        raise InputError(
            f"Version {target.number} of {target.model!r} has lost {', '.join(lost[:3])} of its bundle {target.source}: "
            "name another version with --to"
        )
    if max_parity_error is None:
        return
    run = track.run_of(target, uri=uri)
    error = None if run is None else run.metrics.get(PARITY)
    if error is None or not error <= max_parity_error:
        found = "is not known" if error is None else f"is {error:.3g}"
        raise InputError(
            f"Version {target.number} of {target.model!r} {PARITY} {found}, the limit is {max_parity_error:g}: name another "
            "version with --to, or set promotion.parity=null"
        )
