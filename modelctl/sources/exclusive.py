"""Whether the names of a text classifier's classes say that a text has exactly one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

FAMILIES = (
    {"positive", "negative", "neutral", "mixed", "very positive", "very negative", "pos", "neg", "neu"},
    {"entailment", "contradiction", "neutral", "not entailment"},
    {"bullish", "bearish", "neutral"},
    {"low", "medium", "high"},
)
"""Words of which a text has one."""
STARS = re.compile(r"\d+( stars?)?")
ASK = (
    "--activation softmax when a text has exactly one label, or sigmoid when each label is decided by itself "
    "(multi-label)"
)


def is_settled(labels: Sequence[str]) -> bool:
    """Tell whether labels exclude each other: two of them, numbers of stars, or words of one family."""
    words = {" ".join(re.split(r"[\s_-]+", label.lower())) for label in labels}
    return len(labels) == 2 or all(map(STARS.fullmatch, words)) or any(words <= family for family in FAMILIES)
