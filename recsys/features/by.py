"""Whose events a feature counts."""

from typing import Annotated

from pydantic import AfterValidator, Field


def _distinct(by: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(by)) < len(by):
        raise ValueError(f"by {list(by)} has a name twice")
    return by


# user, item, a context feature, or a user or item feature with one value each; several names count per combination.
By = Annotated[tuple[str, ...], Field(min_length=1, max_length=4), AfterValidator(_distinct)]
