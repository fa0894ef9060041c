"""`modelctl lint`: checks any Triton model repository, without starting a server (docs/lint.md)."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from modelctl.errors import did_you_mean
from modelctl.lint import report
from modelctl.lint.linter import lint
from modelctl.lint.rules import RULES

FORMATS = ("text", "json", "github")
CLEAN, FOUND, USAGE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    text = "a model repository, or one model in it (default: models)"
    parser.add_argument("path", nargs="?", type=Path, default=Path("models"), metavar="PATH", help=text)
    parser.add_argument("--format", choices=FORMATS, default="text", help="output format (default: text)")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    parser.add_argument("--explain", metavar="CODE", help="explain one rule, such as TG044")
    parser.add_argument("--page", action="store_true", help="print docs/lint.md: all rules")


def run(arguments: argparse.Namespace) -> int:
    """Lint, or explain; return the exit code."""
    if arguments.page:
        print(report.page(), end="")
        return CLEAN
    if arguments.explain:
        rule = RULES.get(arguments.explain.upper())
        if rule is None:
            hint = did_you_mean(arguments.explain.upper(), RULES)
            return _refuse(arguments, f"there is no rule {arguments.explain}: docs/lint.md has all of them.{hint}")
        print(report.explain(rule) if arguments.format != "json" else json.dumps(asdict(rule), indent=2))
        return CLEAN
    return _lint(arguments)


def _lint(arguments: argparse.Namespace) -> int:
    path, only = arguments.path.resolve(), ""
    if (path / "config.pbtxt").is_file():
        path, only = path.parent, path.name
    if not path.is_dir():
        return _refuse(arguments, f"there is no model repository at {arguments.path}.")
    models, findings = lint(path)
    if not models and not findings:
        return _refuse(arguments, f"there is no model in {arguments.path}: give the folder that holds their folders.")
    if only:
        models, findings = [only], [finding for finding in findings if finding.model == only]
    output = report.FORMATS[arguments.format](models, findings)
    print(output, end="\n" if output else "")
    serious = [finding for finding in findings if arguments.strict or finding.rule.severity == "error"]
    return FOUND if serious else CLEAN


def _refuse(arguments: argparse.Namespace, sentence: str) -> int:
    print(f"modelctl: {sentence}", file=sys.stderr)
    if arguments.format == "json":
        print(json.dumps({"error": sentence}))
    return USAGE
