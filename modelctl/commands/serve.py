"""`modelctl serve`: starts Triton and supervises it until it is told to stop."""

from __future__ import annotations

import argparse

from modelctl.embedded import installation
from modelctl.embedded.ports import Ports
from modelctl.embedded.server import Launch, on_stop
from modelctl.embedded.supervisor import Supervisor
from modelctl.options import add_serving


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_serving(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    launch = Launch(
        installation=installation.find(),
        models=arguments.models,
        backends=arguments.backends,
        state=arguments.state,
        host=arguments.host,
        ports=Ports(arguments.grpc_port, arguments.metrics_port),
        extra=tuple(arguments.extra),
    )
    supervisor = Supervisor(launch, arguments.model)
    on_stop(supervisor.stop)
    supervisor.run()
    return 0
