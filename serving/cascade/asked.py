"""A question in dense ids. Shapes: L = history, M = L + 1, E = excluded items, F = context features."""

import reprlib
import time
from dataclasses import dataclass

import numpy as np

from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.errors import InputError
from serving.answers import Flag
from serving.bundle.bundle import Array, Bundle
from serving.cascade.filters import NOTHING, Filters, filters
from serving.catalogue.catalogue import EVERYTHING, Catalogue
from serving.error_memory.of_bundle import BundleMemory
from serving.schema import Asker, Query, SimilarQuery
from serving.state.history import History, history
from serving.state.store import Live


@dataclass(frozen=True, eq=False)
class Asked:
    """Who asks, as the graphs read it."""

    user: int  # dense id; UNKNOWN_ID for a user or a history that the bundle does not know
    past: History  # all of it: what was seen
    history_L: Array  # its end, as long as the graphs read
    time_M: Array  # milliseconds of each event of `history_L` and of the request
    behaviour_L: Array  # what each event of `history_L` was; 0 for one that the caller names
    filters: Filters  # what may be recommended
    context_F: Array
    now_ms: int
    unknown_items: list[str]
    flags: tuple[Flag, ...]
    errors: BundleMemory | None = None  # by which the model's answer is corrected, if it is

    @property
    def exclude_E(self) -> Array:
        """Sorted, distinct."""
        return self.filters.exclude_E


def resolve(
    bundle: Bundle, asker: Asker, live: Live | None, catalogue: Catalogue = EVERYTHING, errors: BundleMemory | None = None
) -> Asked:
    """`live`: the user's recent events; None where they could not be read. `errors`: those of this bundle, where it keeps some.
    Raises InputError.
    """
    facts, query = bundle.facts, asker if isinstance(asker, Query) else None
    now_ms = int(time.time() * 1000) if asker.time_ms is None else asker.time_ms
    user, past, unknown, flags = _past(bundle, asker, live, now_ms)
    excluded_E, unknown_excluded = dense_items(bundle, query.exclude if query else [])
    allowed_A, unknown_allowed = dense_items(bundle, (query and query.allow) or [])
    seen_L = past.item_L if query and query.filter_seen else NOTHING
    last = slice(-facts.max_history, None)
    return Asked(
        user=user,
        past=past,
        history_L=past.item_L[last],
        time_M=np.append(past.time_ms_L[last], now_ms),
        behaviour_L=past.behaviour_L[last],
        filters=filters(
            bundle,
            catalogue.shelf(bundle),
            query,
            exclude_E=excluded_E,
            allow_A=allowed_A if query and query.allow is not None else None,
            seen_L=seen_L,
            now_ms=now_ms,
        ),
        context_F=context_codes(facts.context, asker.context or {}),
        now_ms=now_ms,
        unknown_items=list(dict.fromkeys(unknown + unknown_excluded + unknown_allowed)),
        flags=tuple(flags),
        errors=errors if asker.compensate else None,
    )


def check_k(bundle: Bundle, query: Query | SimilarQuery) -> None:
    """Raises InputError for more than the config's `serving.num_candidates`; a catalogue may have fewer items than that."""
    most = max(bundle.facts.num_candidates, bundle.facts.serving.num_candidates)
    if query.k > most:
        raise InputError(f"k is {query.k}: ask for 1 to {most}, the candidates this bundle ranks")


def dense_items(bundle: Bundle, texts: list[str]) -> tuple[Array, list[str]]:
    """Dense ids, UNKNOWN_ID for those that the bundle lacks, and the latter as they were given."""
    if not texts:
        return NOTHING, []
    rows = [bundle.item_index.find(text) for text in texts]
    unknown = [text for text, row in zip(texts, rows, strict=True) if row < FIRST_ID]
    return np.array(rows, dtype=np.int64), unknown


def _past(bundle: Bundle, asker: Asker, live: Live | None, now_ms: int) -> tuple[int, History, list[str], list[Flag]]:
    """The dense user, what they did, the caller's items that are unknown, and what is to be said about it."""
    flags: list[Flag] = []
    if asker.user_id is None:
        item_L, unknown = dense_items(bundle, asker.history or [])
        item_L = item_L[item_L >= FIRST_ID]
        nothing_L = np.zeros(len(item_L), np.int64)
        given = History(item_L, np.full(len(item_L), now_ms), nothing_L, np.ones(len(item_L), bool), nothing_L)
        return UNKNOWN_ID, given, unknown, [] if len(item_L) else ["empty_history"]
    user = bundle.user_index.find(asker.user_id)
    if live is None or not live.whole:
        flags.append("state_unavailable")
    past = history(bundle, user, live or Live())
    if user < FIRST_ID and not len(past.item_L) and not (live and live.events):
        flags.append("unknown_user")
    elif not len(past.item_L):
        flags.append("empty_history")
    forgotten = live is not None and live.forgotten_ms is not None  # then neither the user's vector nor their counts are read
    return (UNKNOWN_ID if user < FIRST_ID or forgotten else user), past, [], flags


def context_codes(known: dict[str, tuple[str, ...]], given: dict[str, str]) -> Array:
    """code_F of the values given; UNKNOWN_ID for a feature left out and for a value that training never saw."""
    if unknown := sorted(set(given) - set(known)):
        choices = f"send {', '.join(known)}" if known else "this bundle takes none"
        raise InputError(f"context has an unknown feature {reprlib.repr(unknown[0])}: {choices}")
    codes = [
        FIRST_ID + values.index(given[name]) if given.get(name) in values else UNKNOWN_ID for name, values in known.items()
    ]
    return np.array(codes, dtype=np.int64)
