"""`modelctl render`: writes each model's config.pbtxt files from its model.yaml.

    ModelSpec --files--> path in the repository -> content: config.pbtxt of each step, its variants, its warm-up data

The same spec always gives the same bytes: protobuf prints each configuration in its own text format. Defaults that the
spec lacks are constants in `modelctl.models.configs`; docs/models.md gives their reasons.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from modelctl.models import rendering, spec
from modelctl.options import add_json, add_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to render (default: all with a model.yaml)")
    add_models(parser)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file would change")
    add_json(parser, "a list of what was written, or would be,")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="write only the JSON Schema of model.yaml, to FILE")


def run(arguments: argparse.Namespace) -> int:
    """Write what differs, or only say so."""
    if arguments.schema:
        arguments.schema.write_text(json.dumps(spec.schema(), indent=2) + "\n")
        return 0
    changed = [
        path
        for model in rendering.specs(arguments.models, arguments.names)
        for path in rendering.differing(model, arguments.models)
    ]
    words = ("removed", "written") if not arguments.check else ("not wanted", "differs")
    for path, content in changed:
        if not arguments.check:
            rendering.put(path, content)
        if not arguments.json:
            print(f"{words[content is not None]}: {path}")
    if arguments.json:
        rows = [{"path": str(path), "result": words[content is not None]} for path, content in changed]
        print(json.dumps(rows, indent=2))
    elif not changed:
        print("All configurations match their model.yaml.")
    return int(arguments.check and bool(changed))
