"""Which labels a list gets, and when: only what could be known by then."""

import numpy as np

from recsys.error_memory import ErrorMemorySpec
from serving.error_memory.feedback import GRACE_MS, Feedback
from serving.journal.predictions import Prediction, prediction_of
from serving.state.store import LiveEvent

SPEC = ErrorMemorySpec(tasks=("click", "like"), window_s=10)
OVER_MS = 1_000 + 10_000 + GRACE_MS


def list_of(user: str = "u", served_ms: int = 1_000, request_id: str = "r", version: str = "v") -> Prediction:
    tasks = {"click": (0.25, 0.5), "like": (0.125, 0.75)}
    return Prediction(
        request_id=request_id, user_id=user, served_ms=served_ms, time_ms=0, version=version, compensated=False, history=("h",),
        items=("a", "b"), tasks=tasks,
    )  # fmt: skip


def event(item: str = "a", kind: str = "click", received_ms: int = 2_000, request_id: str | None = None) -> LiveEvent:
    return LiveEvent(f"{item}{kind}{received_ms}", item, kind, received_ms, request_id, received_ms)


def labels(*events: LiveEvent, user: str = "u") -> list[list[float]]:
    feedback = Feedback(10)
    feedback.served(list_of(), SPEC)
    for each in events:
        feedback.posted(user, each)
    [(version, answered)] = feedback.settled(OVER_MS)
    assert version == "v"
    np.testing.assert_allclose(answered.said_KC, [[0.25, 0.125], [0.5, 0.75]])
    return answered.label_KC.tolist()


def test_labels_are_the_events_of_the_window() -> None:
    assert labels() == [[0, 0], [0, 0]]
    assert labels(event("a"), event("b", "like")) == [[1, 0], [0, 1]]
    assert labels(event("a"), event("a", received_ms=2_500)) == [[1, 0], [0, 0]]


def test_events_that_are_not_of_the_list_do_not_count() -> None:
    nothing = [[0, 0], [0, 0]]
    assert labels(event(received_ms=999)) == nothing  # before it was served
    assert labels(event(received_ms=11_001)) == nothing  # after its window
    assert labels(event(received_ms=11_000)) == [[1, 0], [0, 0]]
    assert labels(event("c")) == nothing
    assert labels(event(kind="hide")) == nothing
    assert labels(event(request_id="another")) == nothing
    assert labels(event(request_id="r")) == [[1, 0], [0, 0]]
    assert labels(event(), user="another") == nothing


def test_nothing_is_known_before_the_window_is_over_not_even_a_yes() -> None:
    feedback = Feedback(10)
    feedback.served(list_of(), SPEC)
    feedback.posted("u", event())
    assert list(feedback.settled(OVER_MS - 1)) == []
    assert len(feedback) == 1
    assert len(list(feedback.settled(OVER_MS))) == 1
    assert len(feedback) == 0


def test_lists_are_settled_in_the_order_in_which_they_were_served() -> None:
    feedback = Feedback(10)
    for served_ms in (3_000, 1_000, 2_000):
        feedback.served(list_of(served_ms=served_ms, version=str(served_ms)), SPEC)
    assert feedback.oldest_ms == 1_000
    assert [version for version, _ in feedback.settled(OVER_MS + 1_000)] == ["1000", "2000"]


def test_more_lists_than_may_wait_are_left_out() -> None:
    feedback = Feedback(2)
    for served_ms in (1_000, 2_000, 3_000):
        feedback.served(list_of(served_ms=served_ms), SPEC)
    assert (len(feedback), feedback.left_out, feedback.oldest_ms) == (2, 1, 1_000)


def test_lists_of_a_forgotten_user_teach_nothing() -> None:
    feedback = Feedback(10)
    feedback.served(list_of(served_ms=1_000), SPEC)
    feedback.served(list_of("other", served_ms=1_000), SPEC)
    feedback.forget("u", 5_000)
    feedback.served(list_of(served_ms=4_000), SPEC)  # a line that is read after the user was forgotten
    feedback.served(list_of(served_ms=6_000), SPEC)
    assert [each.user_id for _, each in feedback.settled(100_000)] == ["other", "u"]


def test_lists_of_which_events_were_passed_over_are_dropped() -> None:
    feedback = Feedback(10)
    for served_ms in (1_000, 2_000):
        feedback.served(list_of(served_ms=served_ms), SPEC)
    feedback.drop_before(2_000)
    assert feedback.oldest_ms == 2_000


def test_a_list_without_the_tasks_is_of_no_use() -> None:
    feedback = Feedback(10)
    feedback.served(list_of(), ErrorMemorySpec(tasks=("purchase",)))
    assert len(feedback) == 0


def test_a_line_that_cannot_be_read_is_no_list() -> None:
    line = list_of().model_dump_json().encode()
    assert prediction_of(line) == list_of()
    assert prediction_of(line[10:]) is None
    assert prediction_of(line.replace(b"0.125,0.75", b"0.125")) is None
    assert prediction_of(line.replace(b"0.125", b"NaN")) is None
