"""The command line: which commands there are, and what is said of a word that is none of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from importlib import import_module
from typing import Any, NoReturn

from modelctl.errors import did_you_mean

COMMANDS = {
    "serve": ("modelctl.commands.serve", "start Triton on the model repository, and keep it serving"),
    "up": ("modelctl.commands.up", "start Triton and the gateway together, in the foreground"),
    "add": ("modelctl.commands.add", "add a model from anywhere, checked and served"),
    "list": ("modelctl.commands.list", "show the models, and what the running server says of them"),
    "remove": ("modelctl.commands.remove", "take a model out of the server and out of the repository"),
    "ready": ("modelctl.commands.ready", "tell whether the running server is ready"),
    "load": ("modelctl.commands.load", "load models into the running server"),
    "unload": ("modelctl.commands.unload", "take models out of the running server"),
    "render": ("modelctl.commands.render", "write the configurations of models from their model.yaml"),
    "lint": ("modelctl.commands.lint", "check a model repository, and say what to mend"),
    "verify": ("modelctl.commands.verify", "hold a served model's answers against an independent reference"),
    "bench": ("modelctl.bench.command", "measure what a choice costs and gains, such as the number of instances"),
    "plan": ("modelctl.commands.plan", "build TensorRT plans, where TensorRT and a GPU are"),
    "config": ("modelctl.commands.config", "print the settings in force, and where each comes from"),
    "doctor": ("modelctl.commands.doctor", "check this machine, and say what to mend"),
    "completion": ("modelctl.commands.completion", "print a script that lets a shell complete modelctl"),
}


class Parser(argparse.ArgumentParser):
    """argparse's, which also says what was probably meant (argparse itself does from Python 3.14)."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; what nobody knows is refused here, where the options of this very command are known."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest

    def error(self, message: str) -> NoReturn:
        """End with usage and message, and with the nearest known word where one was mistyped."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        option = re.search(r"unrecognized arguments: .*?(--[\w-]+)", message)
        hint = ""
        if choice:
            hint = did_you_mean(choice[1], re.findall(r"[\w.-]+", choice[2]))
        elif option:
            hint = did_you_mean(option[1], re.findall(r"(?<![\w-])--[\w-]+", self.format_help()))
        super().error(f"{message}.{hint}" if hint else message)


def build(chosen: Collection[str] | None = None) -> Parser:
    """Return the parser, with the arguments of the `chosen` commands (None: of all).

    Only their modules are imported, since each may need packages that others lack. What is parsed holds the command's
    `run`, and this function as `build`: one command completes all others.
    """
    parser = Parser(prog="modelctl", description="Models for Triton, and the Triton that serves them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (path, text) in COMMANDS.items():
        if chosen is None or name in chosen:
            module = import_module(path)
            command = commands.add_parser(name, help=text, description=module.__doc__)
            module.add_arguments(command)
            command.set_defaults(run=module.run, build=build)
        else:
            commands.add_parser(name, help=text)
    return parser
