"""`modelctl`: the command line."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import NoReturn

from modelctl import console


def main() -> int:
    """Run one command; return its exit code."""
    return console.run("modelctl", _arguments)


def _arguments() -> Namespace:
    from modelctl import cli, configuration  # while signals end the process, see `console.run`

    from_file = configuration.load()  # first, as options have their defaults from the environment
    arguments = cli.build(sys.argv[1:2]).parse_args()
    arguments.from_file = from_file
    return arguments


def start() -> NoReturn:
    """Run one command and end the process."""
    console.leave(main())


if __name__ == "__main__":
    start()
