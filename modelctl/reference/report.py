"""What `modelctl verify` prints: a line per item, and a line per expectation of `model.yaml`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from modelctl.reference.agreement import Difference, Limits


@dataclass(frozen=True)
class Verification:
    """How a served model answers.

    Attributes:
        name: of the model.
        differences: from the reference, one per item.
        expected: how many answers `model.yaml` expects.
        unmet: a sentence for each of them that is not as expected.
        allowed: the limits of a difference.

    """

    name: str
    differences: Sequence[Difference]
    expected: int
    unmet: Sequence[str]
    allowed: Limits

    @property
    def differing(self) -> int:
        """How many items differ too much from the reference."""
        return sum(not one.is_within(self.allowed) for one in self.differences)

    @property
    def code(self) -> int:
        """The command's exit code."""
        return int(bool(self.differing or self.unmet))

    def as_object(self) -> dict[str, object]:
        """Return it for JSON; a difference that is not finite is null, since JSON has no such number."""
        items = [
            {
                key: value if not isinstance(value, float) or math.isfinite(value) else None
                for key, value in asdict(one).items()
            }
            | {"same": one.is_within(self.allowed)}
            for one in self.differences
        ]
        expected = {"expected": self.expected, "unmet": list(self.unmet)}
        return {"name": self.name, "same": not self.differing, **self.allowed._asdict(), "items": items, **expected}

    def lines(self) -> list[str]:
        """Return a line for each item, with a mark where it differs too much, and a summary."""
        rows = [f"{'item':42}{'best':6}{'score':>10}{'pixels':>8}{'missing':>9}{'levels':>8}"]
        for one in self.differences:
            best = "none" if one.is_empty else "same" if one.best else "other"
            mark = "" if one.is_within(self.allowed) else "  <-"
            gaps = f"{one.score:10.6f}{one.pixels:8.2f}{one.missing:9}{one.levels:8.2f}"
            rows.append(f"{one.item:42}{best:6}{gaps}{mark}")
        levels = self.allowed.levels  # 0 for texts
        prepared = f", {levels:g} grey levels in the prepared picture" if levels else ""
        limits = f"(limits: {self.allowed.score} in score, {self.allowed.pixels} pixels in a box{prepared})"
        if self.differing:
            rows.append(
                f"{self.name} differs from its reference on {self.differing} of {len(self.differences)} {limits}."
            )
        elif all(one.is_empty for one in self.differences):
            rows.append(f"{self.name} finds no box in any item, nor does its reference: nothing was compared.")
        else:
            rows.append(f"{self.name} answers as its reference {limits}.")
        if self.expected:
            rows += [f"{sentence}." for sentence in self.unmet]
            rows.append(f"{self.expected - len(self.unmet)} of {self.expected} answers are as model.yaml expects.")
        return rows
