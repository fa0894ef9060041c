"""Readers of numbers on the command line, with bounds."""

from __future__ import annotations

from collections.abc import Callable

from modelctl.errors import CommandError


def numbers(least: int, most: int) -> Callable[[str], tuple[int, ...]]:
    """Return a function that reads different whole numbers within bounds; it raises CommandError for other text."""

    def read(text: str) -> tuple[int, ...]:
        parts = text.split(",")
        if not all(part.isdecimal() and least <= int(part) <= most for part in parts) or len(set(parts)) < len(parts):
            raise CommandError(
                f"'{text}' is not a list of numbers to compare: give different ones from {least} to {most}."
            )
        return tuple(sorted(map(int, parts)))

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Return a function that reads a number within bounds; it raises CommandError for other text."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise CommandError(f"'{text}' is not allowed: give a number from {least:g} to {most:g}.")
        return value

    return read


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a function that reads one whole number within bounds; it raises CommandError for other text."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise CommandError(f"'{text}' is not allowed: give a whole number from {least} to {most}.")
        return int(text)

    return read
