"""What a gate says, and the two ways of holding one number against a limit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """The verdict on one number."""

    name: str
    passed: bool
    value: float | None  # the candidate's; None where it was not measured
    limit: float | None  # what it is held against; None where there is nothing to hold it against
    note: str
    off: bool = False  # nobody asked for it

    @property
    def verdict(self) -> str:
        return "off" if self.off else "pass" if self.passed else "fail"

    def __str__(self) -> str:
        return f"{self.verdict}: value {number(self.value)}, limit {number(self.limit)}; {self.note}"


def switched_off(name: str, key: str, value: float | None = None) -> Gate:
    """The gate that was not asked for, with its number all the same."""
    return Gate(name, True, value, None, f"off: {key} is null", off=True)


def at_most(name: str, value: float | None, limit: float, note: str, mend: str) -> Gate:
    """Passed up to the limit; `mend` says how to measure what was not."""
    if value is None:
        return Gate(name, False, None, limit, mend)
    return Gate(name, value <= limit, value, limit, note)


def at_least(name: str, value: float | None, limit: float, note: str, mend: str) -> Gate:
    """Passed from the limit on."""
    if value is None:
        return Gate(name, False, None, limit, mend)
    return Gate(name, value >= limit, value, limit, note)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
