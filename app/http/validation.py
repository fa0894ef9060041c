"""What pydantic finds wrong, in words that a person can use after the value's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

# Where pydantic's own words would not be clear there.
SENTENCES = {
    "extra_forbidden": "is no option of this route",
    "missing": "is missing",
    "model_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long",
    "too_long": "is given too often",
}


def first(error: ValidationError) -> Mapping[str, Any]:
    """Return the first of pydantic's errors; without inputs and URLs, as there may be thousands."""
    return error.errors(include_url=False, include_context=False, include_input=False)[0]


def sentence(error: Mapping[str, Any]) -> str:
    """Return what is wrong by one of pydantic's errors."""
    told: str = SENTENCES.get(error["type"], error["msg"].removeprefix("Input "))
    return told
