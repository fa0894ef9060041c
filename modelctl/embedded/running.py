"""A running Triton: it loads and unloads models of the repository on request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self

from modelctl.embedded.ports import port_text
from modelctl.embedded.triton import State, Triton, TritonError
from modelctl.errors import CommandError

TRACEBACK = re.compile(r"\n*At:\n(?:\s+\S+\(\d+\): .+\n?)*")
GATEWAY_SECONDS = 10
"""How long to wait for the gateway to find a new model; it looks more often than this."""


class Running:
    """A Triton that answers."""

    def __init__(self, triton: Triton) -> None:
        self._triton = triton

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._triton.close()

    def states(self) -> dict[str, State]:
        """Return the state of every model that the server knows."""
        try:
            return self._triton.states()
        except TritonError as error:
            raise CommandError(f"Triton does not list its models: {error}") from error

    def load(self, name: str) -> None:
        """Load a model, with its steps.

        Raises:
            CommandError: with Triton's reason.

        """
        if name not in self.states():
            raise CommandError(f"The running server does not know {name}: it serves another repository.")
        try:
            self._triton.load(name)
        except TritonError as error:
            if not self._triton.is_live():
                raise CommandError(
                    f"Triton ended while it loaded {name} ({reason(error)}): its log, .triton/triton.log, may say why."
                ) from error
            raise CommandError(f"Triton does not load {name}: {reason(error)}") from error

    def unload(self, names: Iterable[str]) -> None:
        """Unload models in order. Triton first completes loads in progress, and ignores models that are not loaded."""
        for name in names:
            try:
                self._triton.unload(name)
            except TritonError as error:
                raise CommandError(f"Triton does not unload {name}: {reason(error)}") from error


def reason(error: TritonError) -> str:
    """Return Triton's message on one line, without the traceback of a Python step."""
    return " ".join(TRACEBACK.sub("", str(error)).split()).rstrip(".;")[:500]


def reach(port: int) -> Running | None:
    """Return the Triton that answers on a port of this machine; None when none does."""
    triton = Triton(f"127.0.0.1:{port}")
    if triton.is_live():
        return Running(triton)
    triton.close()
    return None


def require(port: int, otherwise: str = "") -> Running:
    """Return the Triton that answers on a port of this machine.

    Raises:
        CommandError: when none does; `otherwise` says how to do without.

    """
    running = reach(port)
    if running is None:
        text = f"No Triton answers on port {port}: start it with ./dev_start.sh, or give --grpc-port"
        raise CommandError(f"{text}; {otherwise}." if otherwise else f"{text}.")
    return running


def unload_all(port: int, names: Iterable[str]) -> None:
    """Unload the models that an interrupted command began to load, if the server still answers."""
    running = reach(port)
    if running is not None:
        with running:
            running.unload(names)


def wait_for_gateway(name: str) -> bool:
    """Wait until the gateway on this machine finds a model; return False when it does not, True without a gateway."""
    end = time.monotonic() + GATEWAY_SECONDS
    while time.monotonic() < end:
        connection = HTTPConnection("127.0.0.1", int(port_text("GATEWAY_PORT")), timeout=GATEWAY_SECONDS)
        try:
            connection.request("GET", f"/v1/models/{name}")
            if connection.getresponse().status == HTTPStatus.OK:
                return True
        except (OSError, HTTPException):
            return True
        finally:
            connection.close()
        time.sleep(0.2)
    return False
