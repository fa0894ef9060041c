"""A rule, its findings, and the pages that several rules cite."""

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
    "documented": "Not tested, because the embedded server lacks the backend or the machine; see the source",
}
"""The meaning of each `Rule.evidence`: what the real server does."""

USER_GUIDE = "https://github.com/triton-inference-server/server/blob/main/docs/user_guide"
CONFIGURATION = f"{USER_GUIDE}/model_configuration.md"
LAYOUT = f"{USER_GUIDE}/model_repository.md"
PROTO = "https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto"
MEASURED = "measured on Triton 24.10"


@dataclass(frozen=True)
class Rule:
    """One way in which a model repository can be wrong.

    Attributes:
        code: `TG` and three digits; never given to another rule.
        evidence: what the real server (Triton 24.10) does, as the tests show; `documented` when they cannot.
        why: what happens, in a sentence or two.
        fix: what to do, as a command to the reader.
        source: the page that says so, or the server that it was measured on.

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
            fault is not in a config.
        line: of the file, from 1; None when the file has none.

    """

    rule: Rule
    model: str
    path: Path
    field: str
    line: int | None
    sentence: str
