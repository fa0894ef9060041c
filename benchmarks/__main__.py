"""`python -m benchmarks`: measures the project; `modelctl bench` measures one model."""

from __future__ import annotations

from argparse import Namespace

from modelctl import console


def main() -> int:
    """Measure; return the exit code."""
    return console.run("benchmarks", _arguments)


def _arguments() -> Namespace:
    from benchmarks import commandline  # while signals end the process, see `console.run`
    from modelctl import configuration

    configuration.load()  # first, as options have their defaults from the environment
    return commandline.build().parse_args()


if __name__ == "__main__":
    console.leave(main())
