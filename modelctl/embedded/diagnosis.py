"""Checks whether this machine can serve models, with a fix for each fault."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from modelctl import configuration
from modelctl.embedded import control, installation, processes
from modelctl.embedded.ports import PORTS, check_port, port, port_text
from modelctl.errors import CommandError
from modelctl.plans import choice

PACKAGES = {
    "numpy": "the steps",
    "PIL": "the steps",
    "tokenizers": "the steps",
    "tritonclient": "everything",
    "onnxruntime": "networks on the embedded server",
    "fastapi": "the gateway",
}
MIN_SHARED_MEMORY = 256 << 20


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    result: Literal["ok", "warning", "fail"]
    text: str


def examine(from_file: Collection[str] = ()) -> list[Finding]:
    """Check everything; `from_file` is what `configuration.load` returned."""
    return [
        _run("platform", installation.check_platform, "Linux, x86-64, glibc 2.35 or later"),
        _run("python", installation.check_python, "3.11 or 3.12"),
        _run("libpython", lambda: str(installation.libpython()), "found"),
        _shared_memory(),
        *(_port(variable) for variable in PORTS),
        *_settings(from_file),
        _run("control key", control.check, control.VARIABLE),
        *(_package(name, use) for name, use in PACKAGES.items()),
        _run("triton", lambda: str(installation.find().binary), "found"),
        *_gpu(),
    ]


def _run(check: str, function: Callable[[], str | None], fine: str) -> Finding:
    """Return "fail" with the sentence of a CommandError, else "ok" with the function's text or `fine`."""
    try:
        return Finding(check, "ok", function() or fine)
    except CommandError as error:
        return Finding(check, "fail", str(error))


def _shared_memory() -> Finding:
    folder = processes.SHARED_MEMORY
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding("shared memory", "fail", f"{folder} is missing or cannot be written: mount a tmpfs there.")
    free = shutil.disk_usage(folder).free
    if free < MIN_SHARED_MEMORY:
        text = f"{free >> 20} MiB free in {folder}, 256 are needed: in a container, raise shm_size."
        return Finding("shared memory", "fail", text)
    return Finding("shared memory", "ok", f"{free >> 20} MiB free")


def _port(variable: str) -> Finding:
    try:
        number = port(port_text(variable), variable)
    except CommandError as error:
        return Finding("port", "fail", str(error))
    try:
        check_port("127.0.0.1", number, variable)
    except CommandError as error:
        server = "gateway" if variable == "GATEWAY_PORT" else "Triton"
        if any(_is_own(pid, server) for pid in processes.listeners(number)):
            return Finding("port", "ok", f"{number} is used by this folder's running {server} ({variable})")
        return Finding("port", "warning", str(error))
    return Finding("port", "ok", f"{number} is free ({variable})")


def _is_own(pid: int, server: str) -> bool:
    """Tell whether a process is the gateway or the Triton that was started in this folder."""
    words = processes.command(pid)
    right = words[1:3] == ["-m", "app"] if server == "gateway" else Path(words[0]).name == processes.SERVER
    return right and processes.working_directory(pid) == Path.cwd()


def _settings(from_file: Collection[str]) -> list[Finding]:
    """Check the gateway's settings, except its port: `_port` checks that."""
    try:
        gateway = configuration.gateway(from_file)
    except CommandError as error:
        return [Finding("settings", "warning", str(error))]
    if gateway is None:
        return []
    faults = [Finding("settings", "fail", fault) for fault in gateway.faults if fault.split()[0] not in PORTS]
    unknown = [
        Finding("settings", "warning", f"No setting reads {name}.{f' Did you mean {closest}?' if closest else ''}")
        for name, closest in gateway.unknown.items()
    ]
    found = [*faults, *unknown]
    return found or [Finding("settings", "ok", "valid; `modelctl config` prints them")]


def _package(name: str, use: str) -> Finding:
    if find_spec(name) is None:
        return Finding("package", "warning", f"{name} is missing, needed for {use}: run ./dev_start.sh.")
    return Finding("package", "ok", f"{name} ({use})")


def _gpu() -> list[Finding]:
    name = choice.nvidia_smi("name")
    if not name:
        return [Finding("gpu", "ok", "none: networks run as ONNX on the CPU")]
    findings = [Finding("gpu", "ok", name), Finding("driver", "ok", choice.nvidia_smi("driver_version"))]
    capability = choice.nvidia_smi("compute_cap")
    try:
        enough = float(capability) >= choice.MIN_COMPUTE_CAPABILITY
    except ValueError:
        return [*findings, Finding("compute", "warning", "The driver does not report the compute capability.")]
    text = f"compute capability {capability}"
    if enough:
        return [*findings, Finding("compute", "ok", text)]
    return [*findings, Finding("compute", "warning", f"{text} is too low for TensorRT (7.5): networks run as ONNX.")]
