"""The ports that Triton and the gateway listen on."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from modelctl.errors import CommandError

PORTS = {"GATEWAY_PORT": 8080, "TRITON_GRPC_PORT": 8001, "TRITON_METRICS_PORT": 8002}


@dataclass(frozen=True)
class Ports:
    """Triton's ports."""

    grpc: int
    metrics: int

    @classmethod
    def free(cls, host: str) -> Self:
        """Return ports that are free now."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
            for one in sockets:
                one.bind((host, 0))
            return cls(*(one.getsockname()[1] for one in sockets))

    def check(self, host: str) -> None:
        """Raise CommandError when one is taken: gRPC itself would share it with another server unnoticed."""
        ports = {"TRITON_GRPC_PORT": self.grpc, "TRITON_METRICS_PORT": self.metrics}
        if self.grpc == self.metrics:
            raise CommandError(f"{' and '.join(ports)} must be different ports.")
        for variable, number in ports.items():
            check_port(host, number, variable)


def port_text(variable: str) -> str:
    """Return a port as text: as the environment has it, else its default."""
    return os.environ.get(variable) or str(PORTS[variable])


def port(text: str, variable: str) -> int:
    """Read a port.

    Raises:
        CommandError: when the text is not a port.

    """
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise CommandError(f"'{text}' is not a port for {variable}: give a number from 1 to 65535.")
    return int(text)


def check_port(host: str, port: int, variable: str) -> None:
    """Raise CommandError when a port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} is taken ({error.strerror}): stop what listens there, or set {variable} to another."
            ) from error
