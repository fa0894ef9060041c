"""Runs all rules over a repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelctl.lint.repository import Model, Repository, read
from modelctl.lint.rule import Finding
from modelctl.lint.rules import CHECKS, RULES
from modelctl.lint.rules.ensemble import FOREIGN
from modelctl.lint.rules.files import UNREADABLE, check_folder
from modelctl.lint.rules.suppression import sift


def lint(folder: Path) -> tuple[list[str], list[Finding]]:
    """Return the names of all models, and the findings in the order of models and codes."""
    views = read(folder)
    findings: dict[str, list[Finding]] = {name: [] for name in views[0].models}
    for view in views:
        for name, model in view.models.items():
            findings[name] += _check(view, model)
    found = list(check_folder(views[0]))
    for name, model in views[0].models.items():
        # Each variant repeats the findings of the config.pbtxt files.
        unique = sorted(dict.fromkeys(findings[name]), key=lambda finding: (finding.rule.code, finding.sentence))
        found += sift(model, unique, RULES)
    return list(findings), found


def _check(view: Repository, model: Model) -> Iterator[Finding]:
    if view.variant and not model.is_variant and not model.steps:
        return  # the variant does not change this model
    if model.config.error:
        yield _unreadable(model)
        return
    for check in CHECKS:
        yield from check(model)


def _unreadable(model: Model) -> Finding:
    config = model.config
    # The schedulers are a oneof, so an ensemble with dynamic_batching cannot be parsed at all.
    is_foreign = 'oneof "scheduling_choice"' in config.error and "ensemble_scheduling" in config.error
    rule = FOREIGN if is_foreign else UNREADABLE
    return Finding(rule, model.name, config.path, "", config.line, f"Triton cannot read it: {config.error}.")
