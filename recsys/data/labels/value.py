"""How the columns are called that labels are worked out from."""

VALUE_PREFIX = "value_"


def value(task: str, suffix: str = "") -> str:
    """The column of a number that a label reads: 32-bit float, NaN where unknown."""
    return VALUE_PREFIX + task + (f"_{suffix}" if suffix else "")
