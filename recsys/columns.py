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
ROW = "row"  # place in the source file, the last rule under ties

LABEL_PREFIX = "label_"
CONTEXT_PREFIX = "context_"

# A dataset's own columns.
USER = "user"  # dense id
ITEM = "item"  # dense id
POSITION = "position"  # how many timeline events of the user come before the example
SPLIT = "split"
WEIGHT = "weight"
START = "start"  # first timeline row of a user
LENGTH = "length"  # number of timeline rows of a user
TRAIN_COUNT = "train_count"  # timeline events of an item in the training split

TRAIN, VALID, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "valid", "test")

TIMELINE_FILE = "timeline.arrow"
EXAMPLES_FILE = "examples.arrow"
USERS_FILE = "users.arrow"
ITEMS_FILE = "items.arrow"
VOCABULARIES_FILE = "vocabularies.parquet"


def label(task: str) -> str:
    """The column of a task's label: 32-bit float, NaN where the label does not exist for a row."""
    return LABEL_PREFIX + task


def context(feature: str) -> str:
    return CONTEXT_PREFIX + feature
