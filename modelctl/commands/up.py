"""`modelctl up`: starts Triton and the gateway together, in the foreground; ./dev_start.sh runs it.

Each runs in its own session, so that Ctrl-C reaches only this process, which drains the gateway before it stops Triton.
"""

from __future__ import annotations

import argparse
import sys

from modelctl import configuration
from modelctl.embedded import processes
from modelctl.embedded.ports import check_port, port, port_text
from modelctl.embedded.server import on_stop
from modelctl.embedded.stack import DEFAULTS, STOP_MARGIN_S, Stack
from modelctl.errors import CommandError
from modelctl.options import add_serving


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_serving(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    number = port(port_text("GATEWAY_PORT"), "GATEWAY_PORT")
    if number in (arguments.grpc_port, arguments.metrics_port):
        raise CommandError(f"GATEWAY_PORT is {number}, which is one of Triton's ports too: choose another.")
    check_port("127.0.0.1", number, "GATEWAY_PORT")
    gateway = configuration.gateway(arguments.from_file, DEFAULTS, processes.dies_with_parent())
    if gateway is None:
        raise CommandError(
            "There is no gateway (app/) in this folder: change to the project's folder, or run `modelctl serve`."
        )
    if gateway.faults:
        raise CommandError(" ".join(gateway.faults))
    drain_s = gateway.value("GATEWAY_DRAIN_DELAY_S") + gateway.value("GATEWAY_DRAIN_TIMEOUT_S")
    stack = Stack(number, arguments.grpc_port, arguments.state, drain_s + STOP_MARGIN_S)
    on_stop(stack.ask_to_stop)
    try:
        return stack.run(sys.argv[2:])
    finally:
        stack.stop()
