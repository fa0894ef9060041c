"""The error that ends a command, and suggestions for its sentence."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CommandError(Exception):
    """One sentence that says what is wrong and what to do; the command ends with exit code 1."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?", with the leading space, when a word is close to a known one; else an empty string."""
    near = get_close_matches(word, list(known), 1)
    return f" Did you mean {near[0]}?" if near else ""
