"""Findings that a model's owner knows and accepts: the parameter `lint_ignore` of its `config.pbtxt`.

    parameters { key: "lint_ignore" value { string_value: "TG054: our release does not stall; TG057: see ADR 12" } }

Triton ignores parameters that no backend reads. A comment would not survive tools that write configs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from modelctl.lint.repository import Model
from modelctl.lint.rule import Finding, Rule
from modelctl.lint.rules.machine import RULES as MACHINE_RULES

PARAMETER = "lint_ignore"
MACHINE = {rule.code for rule in MACHINE_RULES}  # found on one machine, and not on the next
SPLIT = re.compile(r";\s*(?=TG\d{3})")  # a reason may hold a semicolon
ENTRY = re.compile(r"(?P<code>TG\d{3}): *(?P<reason>\S.*)", re.DOTALL)

IGNORED_WRONGLY = Rule(
    code="TG000",
    title="A lint_ignore ignores nothing",
    severity="error",
    evidence="documented",
    why="An entry without a reason is not honoured, and one without a finding would hide a later finding.",
    fix='Write `TG057: the reason`, several separated by ";", and remove what is no longer found.',
    source="docs/lint.md",
)
RULES = (IGNORED_WRONGLY,)


def sift(model: Model, findings: Sequence[Finding], known: Collection[str]) -> Iterator[Finding]:
    """Yield a model's findings except the ignored ones, and the faults of its `lint_ignore`."""
    entries = [entry.strip(" ;\n") for entry in SPLIT.split(model.parameter(PARAMETER)) if entry.strip()]
    matches = {entry: ENTRY.fullmatch(entry) for entry in entries}
    ignored = {match["code"] for match in matches.values() if match is not None}
    yield from (finding for finding in findings if finding.rule.code not in ignored)
    found, field = {finding.rule.code for finding in findings}, f'parameters["{PARAMETER}"]'
    for entry, match in matches.items():
        if match is None or match["code"] not in known:
            yield model.finding(IGNORED_WRONGLY, f"'{entry[:60]}' is not a known code with a reason.", field)
        elif match["code"] not in found | MACHINE:
            yield model.finding(IGNORED_WRONGLY, f"{match['code']} is not found: remove the entry.", field)
