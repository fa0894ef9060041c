"""`python -m benchmarks`: measures the project; `modelctl bench` measures one model."""

from __future__ import annotations

import json
import sys

from benchmarks import commandline
from modelctl.bench import options
from modelctl.errors import CommandError


def main() -> int:
    """Measure; return the exit code."""
    try:
        return options.run(commandline.build().parse_args())
    except CommandError as error:
        return _refuse(str(error), 1)
    except KeyboardInterrupt:
        return _refuse("stopped.", 130)


def _refuse(sentence: str, code: int) -> int:
    """Print why there is no result; with --json also as one JSON object."""
    print(f"benchmarks: {sentence}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": sentence}))
    return code


if __name__ == "__main__":
    sys.exit(main())
