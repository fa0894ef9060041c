"""`modelctl`: the command line."""

from __future__ import annotations

import argparse
import sys

from modelctl import add, doctor, plan, render, serve, up, verify
from modelctl.errors import CommandError

COMMANDS = {
    "serve": (serve, "start Triton on the model repository, and keep it serving"),
    "up": (up, "start Triton and the gateway together, in the foreground"),
    "add": (add, "add a model from anywhere, checked and served"),
    "render": (render, "write the configurations of models from their model.yaml"),
    "verify": (verify, "hold a served model's answers against an independent reference"),
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
