"""`modelctl`: the command line."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from modelctl.errors import CommandError

COMMANDS = {
    "serve": ("modelctl.serve", "start Triton on the model repository, and keep it serving"),
    "up": ("modelctl.up", "start Triton and the gateway together, in the foreground"),
    "add": ("modelctl.add", "add a model from anywhere, checked and served"),
    "list": ("modelctl.listing", "show the models, and what the running server says of them"),
    "remove": ("modelctl.remove", "take a model out of the server and out of the repository"),
    "load": ("modelctl.load", "load models into the running server"),
    "unload": ("modelctl.unload", "take models out of the running server"),
    "render": ("modelctl.render", "write the configurations of models from their model.yaml"),
    "lint": ("modelctl.lint.command", "check a model repository, and say what to mend"),
    "verify": ("modelctl.verify", "hold a served model's answers against an independent reference"),
    "bench": ("modelctl.bench.command", "measure what a choice costs and gains, such as the number of instances"),
    "plan": ("modelctl.plan", "build TensorRT plans, where TensorRT and a GPU are"),
    "doctor": ("modelctl.doctor", "check this machine, and say what to mend"),
}


def main() -> int:
    """Run one command; return its exit code."""
    try:
        arguments = _parse()
        code: int = arguments.run(arguments)
    except CommandError as error:
        print(f"modelctl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("modelctl: stopped.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("modelctl", "stages"):
            raise
        print(f"modelctl: This needs the package {error.name}, which is not installed here.", file=sys.stderr)
        return 1
    return code


def _parse() -> argparse.Namespace:
    """Read the command line. Only the module of its command is imported: each may need packages that others lack."""
    parser = argparse.ArgumentParser(prog="modelctl", description="Models for Triton, and the Triton that serves them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (path, text) in COMMANDS.items():
        if name in sys.argv[1:2]:
            module = import_module(path)
            command = commands.add_parser(name, help=text, description=module.__doc__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
        else:
            commands.add_parser(name, help=text)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
