"""`modelctl doctor`: checks this machine and says how to fix what is wrong."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from modelctl.console import paint
from modelctl.embedded import diagnosis
from modelctl.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_json(parser, "a list of objects")


def run(arguments: argparse.Namespace) -> int:
    """Print all findings; return 1 when one is a failure."""
    findings = diagnosis.examine(arguments.from_file)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{paint(f'{finding.result.upper():8}', finding.result)}{finding.check:16}{finding.text}")
    return int(any(finding.result == "fail" for finding in findings))
