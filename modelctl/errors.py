"""What ends a command."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CommandError(Exception):
    """One sentence that says what is wrong and what to do; the command ends with exit code 1."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question, with a space before it, for a word that is almost a known one; else nothing."""
    near = get_close_matches(word, list(known), 1)
    return f" Did you mean {near[0]}?" if near else ""
