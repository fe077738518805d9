"""Why an item is in a list, in plain words."""

from recsys.columns import FIRST_ID
from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked
from serving.cascade.fallback import StandIn
from serving.cascade.filters import AS_ASKED, SEEN_TOO, UNSOLD_TOO

AFTER_ALL = {AS_ASKED: "", SEEN_TOO: "; seen before", UNSOLD_TOO: "; not on sale now"}


def name(bundle: Bundle, item: int) -> str:
    """The title, or the id where there is none."""
    return bundle.title(item) or bundle.item_id(item)


def of_model(bundle: Bundle, asked: Asked) -> str:
    """Said of every item that a graph found."""
    if not len(asked.history_L):
        return "the model's choice"
    return f"the model's choice: likely next after {name(bundle, int(asked.history_L[-1]))}"


def of_stand_in(bundle: Bundle, asked: Asked, found: StandIn) -> str:
    match found.rung:
        case "session":
            assert found.because is not None
            why = f"often together with {name(bundle, found.because)}"
        case "segment":
            why = _popular_with(bundle, asked.user)
        case _:
            why = "popular" if found.score else "of the catalogue"
    return why + AFTER_ALL[found.level]


def _popular_with(bundle: Bundle, user: int) -> str:
    facts, code = bundle.facts, bundle.segment_of(user)
    place = -1 if code is None else code - FIRST_ID
    if 0 <= place < len(facts.segment_values):
        return f"popular where {facts.segment} is {facts.segment_values[place]}"
    return f"popular with users of the same {facts.segment}"
