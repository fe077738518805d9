"""What every run says of itself: its parameters as flat text, and the packages it ran with."""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from recsys.artefact import fingerprint


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings, and lists of them, as one mapping of dotted names to text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
            value = {str(index): each for index, each in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def lock_files() -> list[Path]:
    """requirements/*.lock where the checkout has them."""
    return sorted((Path(__file__).parents[2] / "requirements").glob("*.lock"))


def lock_hash() -> str:
    """A short hash of requirements/*.lock where the checkout has them, else of the installed packages' versions."""
    locks = lock_files()
    if locks:
        return hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:16]
    return fingerprint(installed())


def lock_text() -> str:
    """The lock files one after the other, else the installed packages, as pip reads them."""
    locks = lock_files()
    if locks:
        return "\n".join(f"# requirements/{lock.name}\n{lock.read_text()}" for lock in locks)
    return "\n".join(["# installed, without a lock", *installed(), ""])


def installed() -> list[str]:
    return sorted(f"{each.name}=={each.version}" for each in metadata.distributions())
