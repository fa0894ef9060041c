"""What a network's config asks of NVIDIA's ONNX Runtime backend: `model_config` (JSON) -> RuntimeOptions.

The embedded server's stand-in reads a config as that backend does, and refuses what it refuses: a config that loads
here must load in the container too. Source: `ModelState` in onnxruntime.cc (triton-inference-server/
onnxruntime_backend); `ParseBoolValue` and `ParseIntValue` in backend_common.cc (triton-inference-server/backend).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.config import ConfigError

BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
NUMBER = re.compile(r"\s*([+-]?\d+)")
"""C++'s std::stoi reads the number at the start and ignores what follows."""
ACCELERATORS = {
    "cpu_execution_accelerator": ("openvino",),
    "gpu_execution_accelerator": ("tensorrt", "cuda"),
}


@dataclass(frozen=True)
class RuntimeOptions:
    """How ONNX Runtime is to run a network.

    Attributes:
        intra_op_threads: threads within an operator; 0 leaves the number to ONNX Runtime.
        inter_op_threads: threads between operators; 0 leaves the number to ONNX Runtime.
        parallel: whether operators run beside each other.
        graph_level: -1 basic, 1 extended, 2 none; any other number means all optimizations.
        memory_pattern: whether ONNX Runtime keeps a memory plan for each shape.
        memory_arena: whether it keeps memory for later runs.
        accelerators: the execution accelerators for the CPU.
        libraries: shared libraries with custom operators.

    """

    intra_op_threads: int = 0
    inter_op_threads: int = 0
    parallel: bool = False
    graph_level: int = 0
    memory_pattern: bool = True
    memory_arena: bool = True
    accelerators: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RuntimeOptions:
        """Read a config; raises ConfigError where NVIDIA's backend refuses it."""
        parameters = {name: value.get("string_value", "") for name, value in config.get("parameters", {}).items()}
        mode = _number(parameters, "execution_mode")
        if mode not in (0, 1):
            raise ConfigError(f"The parameter 'execution_mode' must be 0 (sequential) or 1 (parallel), not {mode}.")
        _boolean(parameters, "share_session_between_instances")  # each instance is a process with its own session
        optimization = config.get("optimization", {})
        return cls(
            # NVIDIA's backend takes a negative count as none given.
            intra_op_threads=max(0, _number(parameters, "intra_op_thread_count")),
            inter_op_threads=max(0, _number(parameters, "inter_op_thread_count")),
            parallel=mode == 1,
            graph_level=int(optimization.get("graph", {}).get("level", 0)),
            memory_pattern=_boolean(parameters, "enable_mem_pattern"),
            memory_arena=_boolean(parameters, "enable_mem_arena"),
            accelerators=_accelerators(optimization.get("execution_accelerators", {})),
            libraries=tuple(config.get("model_operations", {}).get("op_library_filename", [])),
        )


def _number(parameters: Mapping[str, str], name: str) -> int:
    text = parameters.get(name, "0")
    found = NUMBER.match(text)
    if found is None:
        raise ConfigError(f"The parameter '{name}' must be a whole number, not '{text}'.")
    return int(found[1])


def _boolean(parameters: Mapping[str, str], name: str) -> bool:
    text = parameters.get(name, "true")
    value = BOOLEANS.get(text.lower())
    if value is None:
        raise ConfigError(f"The parameter '{name}' must be true or false, on or off, 1 or 0, not '{text}'.")
    return value


def _accelerators(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the CPU's accelerators. A wrong one for GPUs is refused here too: on a GPU the model would not load."""
    for kind, known in ACCELERATORS.items():
        for entry in given.get(kind, []):
            if entry.get("name", "") not in known:
                raise ConfigError(
                    f"The {kind} '{entry.get('name', '')}' is unknown; ONNX Runtime's backend knows {', '.join(known)}."
                )
    return tuple(entry["name"] for entry in given.get("cpu_execution_accelerator", []))
