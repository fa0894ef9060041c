"""`modelctl`: the command line."""

from __future__ import annotations

import argparse
import sys

from modelctl import add, doctor, listing, load, plan, remove, render, serve, unload, up, verify
from modelctl.errors import CommandError
from modelctl.lint import command as lint

COMMANDS = {
    "serve": (serve, "start Triton on the model repository, and keep it serving"),
    "up": (up, "start Triton and the gateway together, in the foreground"),
    "add": (add, "add a model from anywhere, checked and served"),
    "list": (listing, "show the models, and what the running server says of them"),
    "remove": (remove, "take a model out of the server and out of the repository"),
    "load": (load, "load models into the running server"),
    "unload": (unload, "take models out of the running server"),
    "render": (render, "write the configurations of models from their model.yaml"),
    "verify": (verify, "hold a served model's answers against an independent reference"),
    "lint": (lint, "check a model repository, and say what to mend"),
    "plan": (plan, "build TensorRT plans, where TensorRT and a GPU are"),
    "doctor": (doctor, "check this machine, and say what to mend"),
}


def main() -> int:
    """Run one command; return its exit code."""
    parser = argparse.ArgumentParser(prog="modelctl", description="Models for Triton, and the Triton that serves them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    try:
        arguments = parser.parse_args()
        code: int = arguments.run(arguments)
    except CommandError as error:
        print(f"modelctl: {error}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
