"""May a day be trained on? What its raw partition must hold before anything else is done; else the champion stays."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.monitor.arrived import LOOK_BACK, Arrived, days_before, flattened, median
from pipelines.monitor.files import check_marker, check_names, check_quiet, unfinished
from recsys.data.days import day_of
from recsys.data.piece import Piece
from recsys.errors import InputError

if TYPE_CHECKING:  # importing it takes seconds, which `recsys --help` need not spend
    from recsys.config import RunConfig

Partitions = Mapping[date, Sequence[Piece]]
SET_ASIDE = "give its folder or files a name that begins with _ to leave the day out"


def check_arrival(config: "RunConfig", raw: Path, day: date, known: Mapping[str, Mapping[str, Any]]) -> Arrived:
    """Read the raw partition of `day` and judge it by the config's `daily` section. Raises InputError with figure and limit.

    `known` holds, by day (ISO), what `Arrived.to_json()` gave for the days that were accepted, and only for those. Days
    before this one that it lacks, or whose files changed since, would go into the dataset with this one: those after the
    first known day are judged as well, and the newest of the others are read, to hold the day against. `Arrived.before` has
    them.
    """
    past = {each: found for each, found in flattened(known).items() if each != day.isoformat()}
    partitions = find_days(config, raw, day)
    begin = min((date.fromisoformat(each) for each in past), default=None)
    earlier = [each for each in sorted(partitions) if each < day]
    beside: dict[str, Arrived] = {}
    for each in earlier:
        before = past.get(each.isoformat())
        if before is not None and before.is_of(partitions[each]):
            continue
        if begin is not None and each >= begin:
            beside[each.isoformat()] = _judged(config, raw, each, partitions, past | beside)
        elif each in earlier[-LOOK_BACK:]:
            beside[each.isoformat()] = _read(config, raw, each, partitions)
    found = _judged(config, raw, day, partitions, past | beside)
    return replace(found, before={name: each.to_json() for name, each in beside.items()})


def find_days(config: "RunConfig", raw: Path, day: date) -> dict[date, list[Piece]]:
    """The pieces of every day. Raises InputError where this day is missing, or days cannot be told apart."""
    events = config.data.events
    if events.arrives == "together":
        raise InputError("data.events.arrives is together, which has no days: set it to by_folder or by_file")
    check_names(unfinished(raw, events.path), day)
    found: dict[date, list[Piece]] = {}
    for piece in events.list_pieces(raw):
        found.setdefault(day_of(piece.unit), []).append(piece)
    if day not in found:
        newest = max((each for each in found if each < day), default=None)
        before = f"the newest day before it is {newest}" if newest else f"the log begins on {min(found)}"
        raise InputError(f"{raw / events.path} has no partition of {day}, {before}: wait for it, or name a day that is there")
    return found


def _judged(config: "RunConfig", raw: Path, day: date, partitions: Partitions, past: Mapping[str, Arrived]) -> Arrived:
    rules, pieces = config.daily, partitions[day]
    check_names(unfinished(raw, config.data.events.path), day)
    check_marker(pieces, config.data.events.arrives, rules.marker, day)
    check_quiet(pieces, rules.quiet_seconds, time.time())
    found = _read(config, raw, day, partitions)
    _check_rows(config, found)
    _check_twice(found, pieces, partitions, past)
    _check_outside(config, found)
    _check_bots(config, found)
    _check_size(config, found, days_before(found.day, past))
    return found


def _read(config: "RunConfig", raw: Path, day: date, partitions: Partitions) -> Arrived:
    from pipelines.monitor.measure import measure

    like = next((partitions[each][0] for each in sorted(partitions, reverse=True) if each < day), None)
    try:
        return measure(config.data, config.daily, raw, partitions[day], like, day)
    except InputError as error:
        raise InputError(f"{day}: {error}; or {SET_ASIDE}") from error


def _check_rows(config: "RunConfig", found: Arrived) -> None:
    limit, bad = config.data.filters.max_bad_share, sum(found.bad.values())
    if not found.rows:
        raise InputError(f"{found.day} has no rows: wait until it is whole, or {SET_ASIDE}")
    if bad / found.rows > limit or not found.good:
        most = "; ".join(f"{reason}: {rows:,}" for reason, rows in list(found.bad.items())[:3])
        raise InputError(
            f"{found.day}: {bad / found.rows:.1%} of {found.rows:,} rows are bad ({most}), more than "
            f"filters.max_bad_share {limit}: mend the files or the `data` section, or {SET_ASIDE}"
        )


def _check_twice(found: Arrived, pieces: Sequence[Piece], partitions: Partitions, past: Mapping[str, Arrived]) -> None:
    """Against the rows of known days, and against the files of days whose files are as large."""
    same = [day for day, each in past.items() if each.content == found.content]
    sizes = sorted(piece.bytes for piece in pieces)
    for day, others in partitions.items():
        if day.isoformat() < found.day and all(sizes) and sorted(piece.bytes for piece in others) == sizes:
            same += [day.isoformat()] if _hashes(others) == _hashes(pieces) else []
    if same:
        raise InputError(
            f"{found.day} has the same {found.rows:,} rows as {same[0]}: bring the day's own files, or {SET_ASIDE}"
        )


def _hashes(pieces: Sequence[Piece]) -> list[str]:
    return sorted(piece.fingerprint() for piece in pieces)


def _check_outside(config: "RunConfig", found: Arrived) -> None:
    share, limit = found.outside / found.good, config.daily.max_outside_share
    if share > limit and config.data.events.has_time:
        raise InputError(
            f"{found.day}: {share:.1%} of its rows lie outside of the day (they go from {_moment(found.first_ms)} to "
            f"{_moment(found.last_ms)}), more than daily.max_outside_share {limit}: put the rows into their days, say with "
            f"daily.utc_offset_hours when a day begins, raise the limit, or {SET_ASIDE}"
        )


def _check_bots(config: "RunConfig", found: Arrived) -> None:
    share, limit = found.bot_rows / found.good, config.daily.max_bot_share
    if limit is not None and share > limit:
        rules = ", ".join(f"{rule}: {users:,}" for rule, users in found.bots.items())
        raise InputError(
            f"{found.day}: {share:.1%} of its rows are of {sum(found.bots.values()):,} of {found.users:,} users that no "
            f"person can be ({rules}), more than daily.max_bot_share {limit}: take them out of the files, raise the limit, or "
            f"{SET_ASIDE}"
        )


def _check_size(config: "RunConfig", found: Arrived, before: Sequence[Arrived]) -> None:
    rules = config.daily
    for what, number, counts, key, limit in (
        ("rows", found.rows, [each.rows for each in before], "min_rows_share", rules.min_rows_share),
        ("users", found.users, [each.users for each in before], "min_users_share", rules.min_users_share),
    ):
        usual = median(counts)
        if usual is not None and number < limit * usual:
            raise InputError(
                f"{found.day} has {number:,} {what}, {number / usual:.1%} of the {usual:,.0f} that the {len(before)} days "
                f"before had in the middle, less than daily.{key} {limit}: wait for the rest, lower the limit if the day was "
                f"like that, or {SET_ASIDE}"
            )


def _moment(time_ms: int | None) -> str:
    return "nothing" if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(" ", "seconds")
