"""Lengths of time that stay text, so that a feature's spec reads as it was written."""

from typing import Annotated

from pydantic import AfterValidator

from recsys.duration import milliseconds


def _not_negative(text: str) -> str:
    milliseconds(text)
    return text


def _positive(text: str) -> str:
    if milliseconds(text) == 0:
        raise ValueError(f"{text!r} must be longer than nothing")
    return text


Delay = Annotated[str, AfterValidator(_not_negative)]
Duration = Annotated[str, AfterValidator(_positive)]
