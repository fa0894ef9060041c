"""`modelctl ready`: exit code 0 when the running Triton is ready, else 1; the health check of its image."""

from __future__ import annotations

import argparse
import json
from contextlib import closing

from modelctl.embedded.triton import Triton
from modelctl.options import add_json, add_port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_json(parser, "an object")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask once."""
    with closing(Triton(f"127.0.0.1:{arguments.grpc_port}")) as triton:
        ready = triton.is_ready()
    print(json.dumps({"ready": ready}) if arguments.json else "ready" if ready else "not ready")
    return int(not ready)
