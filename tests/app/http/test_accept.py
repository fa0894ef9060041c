"""Which media type an answer has, by the rules of RFC 9110."""

from __future__ import annotations

import pytest

from app.http.accept import best

OFFERED = ("application/json", "image/jpeg", "image/png")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json, image/jpeg", "application/json"),
        ("image/jpeg, application/json", "application/json"),
        ("image/jpeg", "image/jpeg"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/jpeg"),
        ("image/webp, image/png", "image/png"),
        ("image/png;q=0.9, application/json;q=0.8", "image/png"),
        ("image/jpeg; q=0.4, image/png;q=0.5", "image/png"),
        ("image/*;q=0.9, */*;q=0.8", "image/jpeg"),
        ("image/*, image/jpeg;q=0", "image/png"),
        ("*/*, application/json;q=0.1", "image/jpeg"),
        ("application/json;q=0, */*;q=0.1", "image/jpeg"),
        ("application/json;q=hello", "application/json"),
        ("application/json;charset=utf-8;q=0.2, image/png;q=0.1", "application/json"),
        ("text/html", None),
        ("*/*;q=0", None),
        ("application/json;q=0", None),
        ("image/jpeg;q=0.0, text/html", None),
    ],
)
def test_the_best_offer_is_chosen(accept: str, expected: str | None) -> None:
    """The highest weight wins; the more specific range sets it; of equal offers the first wins."""
    assert best(accept, OFFERED) == expected
