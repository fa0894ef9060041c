"""Chooses ONNX or TensorRT: plans are used only when all of them exist and were built for this machine.

Triton's option `--model-config-name=tensorrt` applies to all models at once, and Triton refuses to load a model whose
plan does not fit. So the choice is made before Triton starts, from the record that `modelctl plan` writes beside each
plan:

    models/<network>/1/model.plan
    models/<network>/1/model.plan.json    {"onnx_sha256": ..., "tensorrt_version": ..., "compute_capability": ...}
"""

from __future__ import annotations

import ctypes.util
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

VARIANT = "tensorrt"
MIN_COMPUTE_CAPABILITY = 7.5
NO_WEIGHTS = (".plan", ".json", ".pt")
"""Suffixes of files beside model.onnx that do not belong to it."""


@dataclass(frozen=True)
class Machine:
    """The GPU and TensorRT that a plan was built for; empty where there is none."""

    compute_capability: str
    tensorrt_version: str


@dataclass(frozen=True)
class Choice:
    """Whether plans are served, and why or why not."""

    plans: bool
    reason: str


def this_machine() -> Machine:
    """Ask the driver for the GPU, and TensorRT's library for its version."""
    return Machine(nvidia_smi("compute_cap"), _tensorrt_version())


def choose(repository: Path, models: Iterable[str], machine: Machine) -> Choice:
    """Return whether the plans of these models can be served on this machine."""
    networks = [name for name in models if os.path.exists(repository / name / "configs" / f"{VARIANT}.pbtxt")]
    if not networks:
        return Choice(False, "no model has a TensorRT configuration")
    if not machine.compute_capability:
        return Choice(False, "there is no GPU")
    for name in networks:
        fault = _fault(repository / name / "1", machine)
        if fault:
            return Choice(False, f"{name}: {fault}")
    return Choice(True, f"all {len(networks)} plans match this machine")


def _fault(version: Path, machine: Machine) -> str:
    """Return why one plan cannot be served; empty when it can."""
    if not os.path.exists(version / "model.plan"):
        return "its plan is missing, build it with modelctl plan"
    try:
        built = dict(json.loads((version / "model.plan.json").read_text()))
    except (OSError, ValueError, TypeError):
        return "its plan does not say what it was built from"
    try:
        digest = onnx_digest(version)
    except OSError as error:
        return f"its model.onnx cannot be read ({error.strerror})"
    expected = {
        "onnx_sha256": digest,
        "compute_capability": machine.compute_capability,
        "tensorrt_version": machine.tensorrt_version,
    }
    for name, value in expected.items():
        if built.get(name) != value:
            return f"its plan was built for another {name.replace('_', ' ')}, build it again with modelctl plan"
    return ""


def onnx_digest(version: Path) -> str:
    """Return the sha256 of a version's model.onnx, and of the files beside it that may hold its weights."""
    beside = [
        path
        for path in sorted(version.iterdir())
        if path.is_file() and path.name != "model.onnx" and path.suffix not in NO_WEIGHTS and path.name[0] != "."
    ]
    total = hashlib.sha256()
    for path in (version / "model.onnx", *beside):
        if path in beside:
            total.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def nvidia_smi(field: str) -> str:
    """Return a field of the first GPU, as nvidia-smi reports it; empty without a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - a fixed command
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else ""


def _tensorrt_version() -> str:
    """Return `major.minor.patch` of the installed TensorRT, from getInferLibVersion()."""
    library = ctypes.util.find_library("nvinfer")
    if library is None:
        return ""
    number = int(ctypes.CDLL(library).getInferLibVersion())
    # Since TensorRT 10: 10,000 * major + 100 * minor + patch; before: 1,000 * major + 100 * minor + patch.
    major = 10_000 if number >= 100_000 else 1_000
    return f"{number // major}.{number % major // 100}.{number % 100}"
