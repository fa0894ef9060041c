"""Findings as text for people, JSON for programs, and annotations for GitHub; and the rules as a page."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from modelctl.console import paint
from modelctl.lint.rule import EVIDENCE, Finding, Rule
from modelctl.lint.rules import SUBJECTS


def text(models: Sequence[str], findings: Sequence[Finding]) -> str:
    """Return each finding with its fix, and a line with the counts."""
    lines = []
    for finding in findings:
        rule, field = finding.rule, f" [{finding.field}]" if finding.field else ""
        kind = paint(f"{rule.severity} {rule.code}", rule.severity)
        lines.append(f"{_place(finding)}: {kind}: {rule.title}. {finding.sentence}{field}")
        lines.append(f"    {rule.fix}")
    errors = sum(finding.rule.severity == "error" for finding in findings)
    counts = (_count(len(models), "model"), _count(errors, "error"), _count(len(findings) - errors, "warning"))
    return "\n".join([*lines, ", ".join(counts)])


def as_json(_: Sequence[str], findings: Sequence[Finding]) -> str:
    """Return a list of objects."""
    return json.dumps([_object(finding) for finding in findings], indent=2)


def github(_: Sequence[str], findings: Sequence[Finding]) -> str:
    """Return workflow commands.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#setting-an-error-message
    """
    return "\n".join(_annotation(finding) for finding in findings)


def explain(rule: Rule) -> str:
    """Return everything about one rule."""
    return "\n".join(
        [
            f"{rule.code} ({rule.severity}): {rule.title}",
            "",
            f"Why     {rule.why}",
            f"Fix     {rule.fix}",
            f"Server  {rule.evidence}: {EVIDENCE[rule.evidence]}.",
            f"Source  {rule.source}",
        ]
    )


def page() -> str:
    """Return docs/lint.md, which is written by `modelctl lint --page`."""
    rows = []
    for subject, rules in SUBJECTS.items():
        rows += [
            f"## {subject}",
            "",
            "| code | | finds | Triton 24.10 | why, and what to do |",
            "|---|---|---|---|---|",
        ]
        for rule in rules:
            cells = (rule.code, rule.severity, rule.title, rule.evidence, f"{rule.why} **{rule.fix}** ({rule.source})")
            rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        rows.append("")
    meanings = [f"| {evidence} | {meaning} |" for evidence, meaning in EVIDENCE.items()]
    return "\n".join([HEAD, "| Triton 24.10 | |", "|---|---|", *meanings, "", *rows]).rstrip() + "\n"


FORMATS: dict[str, Callable[[Sequence[str], Sequence[Finding]], str]] = {
    "text": text,
    "json": as_json,
    "github": github,
}

HEAD = """# `modelctl lint`

<!-- Written by `modelctl lint --page`; a test holds it to the rules. -->

Reads a Triton model repository, this project's or any other, and finds what Triton refuses, hangs on or serves wrongly,
without starting a server. Variants (`<model>/configs/<name>.pbtxt`) are read as `--model-config-name=<name>` uses them.

```sh
modelctl lint                          # the folder models; or: modelctl lint PATH, a repository or one model in it
modelctl lint --format github          # annotations in a workflow; also: text, json
modelctl lint --explain TG044          # one rule: why, what to do, what the server does, the source
```

Exit code: 0 when nothing is wrong, 1 when there are errors (with `--strict` also warnings), 2 when called wrongly.

Each rule has a broken repository in `tests/modelctl/lint`, and a test that shows what the real server does with it.
Rules marked `documented` need a backend or a machine that the tests lack; they name their source.

To accept a finding, say so in the model's `config.pbtxt`, with a reason; several entries are separated by
";". Triton ignores the parameter.

```
parameters { key: "lint_ignore" value { string_value: "TG057: only the smoke test calls it" } }
```
"""


def _place(finding: Finding) -> str:
    return f"{_path(finding)}:{finding.line}" if finding.line else _path(finding)


def _path(finding: Finding) -> str:
    """Return the path relative to the current folder if the file is in it, so that editors and GitHub find it."""
    path = Path(os.path.relpath(finding.path))
    return str(finding.path if path.parts[0] == ".." else path)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _object(finding: Finding) -> dict[str, object]:
    rule = finding.rule
    return {
        "code": rule.code,
        "severity": rule.severity,
        "title": rule.title,
        "model": finding.model,
        "path": _path(finding),
        "field": finding.field,
        "line": finding.line,
        "sentence": finding.sentence,
        "fix": rule.fix,
        "evidence": rule.evidence,
    }


def _annotation(finding: Finding) -> str:
    rule = finding.rule
    places = [f"file={_escape(_path(finding))}", *([f"line={finding.line}"] if finding.line else [])]
    message = f"{rule.title}. {finding.sentence} {rule.fix}"
    return f"::{rule.severity} {','.join([*places, f'title={rule.code}'])}::{_escape(message, message=True)}"


def _escape(value: str, *, message: bool = False) -> str:
    escapes = {"%": "%25", "\r": "%0D", "\n": "%0A"} | ({} if message else {":": "%3A", ",": "%2C"})
    return "".join(escapes.get(character, character) for character in value)
