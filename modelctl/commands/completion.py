"""`modelctl completion`: prints a script that lets bash, zsh or fish complete commands, options, models and files."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelctl.sources import find

SHELLS = ("bash", "zsh", "fish")
# The shell runs these at each completion, in its current folder. They hold no globs, because fish and zsh fail on a
# glob without a match, and no dollars or double quotes, because fish reads them within double quotes.
MODELS = "find models -maxdepth 2 -name model.yaml 2>/dev/null | cut -d / -f 2"
FILES = "ls -p | grep -e '[.]onnx' -e '[.]pt' -e /"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    text = 'shell, for example: eval "$(modelctl completion bash)"; fish: modelctl completion fish | source'
    parser.add_argument("shell", choices=SHELLS, help=text)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab  # no other command needs it

    parser = arguments.build()
    _mark(parser)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _mark(parser: argparse.ArgumentParser) -> None:
    """Tell shtab, which reads the attribute `complete`, what the values of each argument are."""
    import shtab  # no other command needs it

    parser.description = (parser.description or "").partition("\n")[0]
    sources = "; ".join([*(f"echo {name}" for name in find.recipes()), FILES])
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark(command)
        elif action.dest in ("name", "names", "model") and action.metavar == "NAME":
            action.complete = shtab.cmd(MODELS)  # type: ignore[attr-defined]
        elif action.dest == "source":
            action.complete = shtab.cmd(sources)  # type: ignore[attr-defined]
        elif action.type is Path:
            action.complete = shtab.FILE if action.metavar == "FILE" else shtab.DIRECTORY  # type: ignore[attr-defined]
