"""The vocabulary: names of columns and files that more than one module uses.

Dense ids: row 0 of a user or item table is padding, row 1 stands for anything unknown, real ids begin at 2.
"""

PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_ID = 2

# A raw event after an adapter has mapped it. Labels follow as label_<task>, context features as context_<name>.
USER_ID = "user_id"  # external id, text
ITEM_ID = "item_id"  # external id, text
TIME_MS = "time_ms"  # milliseconds since 1970-01-01 UTC; the row's place in the file where the log has no time
IN_HISTORY = "in_history"  # whether the event becomes part of the user's timeline, as a click does and an impression does not
PROPENSITY = "propensity"  # probability with which the logging policy showed the item; NaN where unknown
SLOT = "slot"  # place on the page, 0 at the top; -1 where unknown
ROW = "row"  # place in the source files, the last rule under ties
ARRIVAL = "arrival"  # number of the arrival unit that brought the event

LABEL_PREFIX = "label_"
CONTEXT_PREFIX = "context_"
FEATURE_PREFIX = "feature_"  # of a user or an item: a code; of an example: a number known just before it
ASOF_PREFIX = "asof_"  # the code of a slowly changing feature at the time of the example
RAW = "raw"  # a hash of what the config reads and canonical columns do not hold: equal rows are equal in it too
VALUE_PREFIX = "value_"  # raw numbers that labels are made from

# Of a slowly changing table.
EVENT_TIME_MS = "event_time_ms"  # from when on the values hold
CREATED_MS = "created_ms"  # when the row became known; without it, or where it is null, at event_time_ms

# A dataset's own columns.
USER = "user"  # dense id
ITEM = "item"  # dense id
POSITION = "position"  # how many timeline events of the user come before the example
SPLIT = "split"
WEIGHT = "weight"
START = "start"  # first timeline row of a user
LENGTH = "length"  # number of timeline rows of a user
TRAIN_LENGTH = "train_length"  # how many of a user's timeline events train: the first ones
VALID_LENGTH = "valid_length"  # how many of the next validate; the rest test
BEHAVIOUR = "behaviour"  # of a bundle's timeline: bit t is set where the event's label of task t was 1
TRAIN_COUNT = "train_count"  # timeline events of an item in the training split

TRAIN, VALID, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "valid", "test")

TIMELINE, EXAMPLES = "timeline", "examples"  # folders of a dataset, and keys of its manifest's `segments`
TIMELINE_FILE = "timeline.arrow"  # of a bundle: all segments in one
USERS_FILE = "users.arrow"
ITEMS_FILE = "items.arrow"
VOCABULARIES_FILE = "vocabularies.parquet"


def timeline_file(segment: str) -> str:
    return f"{TIMELINE}/{segment}.arrow"


def examples_file(segment: str) -> str:
    return f"{EXAMPLES}/{segment}.arrow"


def split_file(segment: str) -> str:
    """The split of the rows of `examples_file(segment)`."""
    return f"{EXAMPLES}/{segment}.split.arrow"


def label(task: str) -> str:
    """The column of a task's label: 32-bit float, NaN where the label does not exist for a row."""
    return LABEL_PREFIX + task


def context(feature: str) -> str:
    return CONTEXT_PREFIX + feature


def feature(name: str) -> str:
    return FEATURE_PREFIX + name


def asof(feature: str) -> str:
    return ASOF_PREFIX + feature
