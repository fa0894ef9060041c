"""Pydantic's errors as the rest of a sentence that begins with the name of the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

# Replacements for pydantic's words that would not be clear after a name, by type of error.
SENTENCES = {
    "extra_forbidden": "is not an option of this route",
    "missing": "is missing",
    "model_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long",
    "too_long": "is given too often",
}


def first(error: ValidationError) -> Mapping[str, Any]:
    """Return the first of pydantic's errors, without inputs and URLs: there may be thousands of errors."""
    return error.errors(include_url=False, include_context=False, include_input=False)[0]


def sentence(error: Mapping[str, Any]) -> str:
    """Return the rest of the sentence for one of pydantic's errors."""
    found: str = SENTENCES.get(error["type"], error["msg"].removeprefix("Input "))
    return found
