"""What a rule is, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]
Evidence = Literal["refuses", "hangs", "serves wrongly", "wastes", "documented"]

EVIDENCE: dict[Evidence, str] = {
    "refuses": "Triton refuses to load the model",
    "hangs": "Triton loads the model, and hangs or dies under load",
    "serves wrongly": "Triton loads the model, and answers wrongly or not at all",
    "wastes": "Triton loads the model, and is slow or without bounds",
    "documented": "Not tried: the embedded server lacks what it takes; see the source",
}
"""What the real server does, by the words of `Rule.evidence`."""


@dataclass(frozen=True)
class Rule:
    """One way in which a model repository can be wrong.

    Attributes:
        code: `TG` and three digits; never given to another rule.
        evidence: what the real server (Triton 24.10) does, as the tests show; `documented` when they cannot.
        why: what happens, in a sentence or two.
        fix: what to do, as a command to the reader.
        source: where it stands, or where it was measured.

    """

    code: str
    title: str
    severity: Severity
    evidence: Evidence
    why: str
    fix: str
    source: str


@dataclass(frozen=True)
class Finding:
    """One fault at one place.

    Attributes:
        field: path of the field in the config, such as `ensemble_scheduling.step[1].model_version`; empty when the
            fault is in no config.
        line: of the file, from 1; None when the file has none.

    """

    rule: Rule
    model: str
    path: Path
    field: str
    line: int | None
    sentence: str
