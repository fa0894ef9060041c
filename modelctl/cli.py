"""The command line: the table of commands, and suggestions for mistyped words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from importlib import import_module
from typing import Any, NoReturn

from modelctl.errors import did_you_mean

COMMANDS = {
    "serve": ("modelctl.commands.serve", "start Triton on the model repository and restart it when it fails"),
    "up": ("modelctl.commands.up", "start Triton and the gateway together, in the foreground"),
    "add": (
        "modelctl.commands.add",
        "add a model from a file, a checkpoint or a recipe: check it, store it and load it",
    ),
    "list": ("modelctl.commands.list", "list the models and their state in the running server"),
    "remove": ("modelctl.commands.remove", "unload a model and delete it from the repository"),
    "ready": ("modelctl.commands.ready", "exit with 0 when the running server is ready, else with 1"),
    "load": ("modelctl.commands.load", "load or reload models in the running server"),
    "unload": ("modelctl.commands.unload", "unload models from the running server; their files stay"),
    "render": ("modelctl.commands.render", "write each model's config.pbtxt files from its model.yaml"),
    "lint": ("modelctl.commands.lint", "check a model repository and say how to fix what is wrong"),
    "verify": ("modelctl.commands.verify", "compare a served model's answers with an independent computation"),
    "bench": (
        "modelctl.commands.bench",
        "measure a model under load with different settings, such as the number of instances",
    ),
    "plan": ("modelctl.commands.plan", "build TensorRT plans; needs TensorRT and a GPU"),
    "config": ("modelctl.commands.config", "print the settings in force and where each comes from"),
    "doctor": ("modelctl.commands.doctor", "check this machine and say how to fix what is wrong"),
    "completion": ("modelctl.commands.completion", "print a script for shell completion"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the nearest known word (argparse itself does so from Python 3.14)."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and refuse unknown arguments here, where this command's own options can be suggested."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest

    def error(self, message: str) -> NoReturn:
        """Exit with the usage, the message and, for a mistyped word, the nearest known one."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        option = re.search(r"unrecognized arguments: .*?(--[\w-]+)", message)
        hint = ""
        if choice:
            hint = did_you_mean(choice[1], re.findall(r"[\w.-]+", choice[2]))
        elif option:
            hint = did_you_mean(option[1], re.findall(r"(?<![\w-])--[\w-]+", self.format_help()))
        super().error(f"{message}.{hint}" if hint else message)


def build(chosen: Collection[str] | None = None) -> Parser:
    """Return the parser, with the arguments of the `chosen` commands (None: all commands).

    It imports only the modules of these commands, because each may need packages that are not installed everywhere.
    The parsed arguments hold the command's `run`, and this function as `build`, which `completion` calls for all
    commands.
    """
    parser = Parser(prog="modelctl", description="Models for Triton, and the Triton that serves them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (path, text) in COMMANDS.items():
        if chosen is None or name in chosen:
            module = import_module(path)
            command = commands.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
            module.add_arguments(command)
            command.set_defaults(run=module.run, build=build)
        else:
            commands.add_parser(name, help=text)
    return parser
