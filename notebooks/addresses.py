"""The servers' addresses, from the ports in the environment, else in the project's `.env`, else the defaults."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values

FILE = Path(__file__).resolve().parent.parent / ".env"
PORTS = {"GATEWAY_PORT": "8080", "TRITON_GRPC_PORT": "8001", "TRITON_METRICS_PORT": "8002"}


def port(name: str) -> str:
    """Return the value of a port that `PORTS` names."""
    return {**dotenv_values(FILE), **os.environ}.get(name) or PORTS[name]


def gateway() -> str:
    """Return the gateway's URL."""
    return f"http://127.0.0.1:{port('GATEWAY_PORT')}"


def triton() -> str:
    """Return Triton's address for gRPC."""
    return f"127.0.0.1:{port('TRITON_GRPC_PORT')}"
