"""Compares a TensorRT plan, as trtexec reports it, with the network's configuration.

    trtexec's output, --exportLayerInfo's JSON --facts--> Facts --faults--> what differs from config.pbtxt

TensorRT 10 reports the types of tensors only in lines of its output (samples/common/sampleInference.cpp,
dumpRawBindingToFiles), which 11 has too. Both report layers as JSON: 10 with `Format/Datatype`, which is `N/A due to
dynamic shapes` where sizes are free, 11 with `Format` and `Datatype`
(docs.nvidia.com/deeplearning/tensorrt/11.0.0/api/migration/tensorrt-10x-to-11x-IEngineInspector.html).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

TENSOR = re.compile(
    r"Writing file for (?P<mode>input|output) binding (?P<name>.+) "
    r"\(with datatype (?P<data_type>\w+) and dimensions (?P<dims>[-\d.]*)\)"
)
# Kernel names contain the types that they multiply: `..._f16f16_f16f32_...`, `ampere_h16816gemm_...`. `bf16` is another
# type than `fp16`.
HALF = re.compile(r"half|(?<!b)fp?16|(?<![a-z])h(?:884|1688|16816)", re.IGNORECASE)
SINGLE = re.compile(r"float|fp?32", re.IGNORECASE)
# These layers move data or change its type; their types are not those that the network computes in.
MOVERS = {"Reformat", "NoOp", "Shuffle", "Constant", "Cast"}
PERFORMANCE = re.compile(r"(?:^|\] )(Throughput|Latency|GPU Compute Time): (.+)$")


@dataclass(frozen=True)
class Tensor:
    """One input or output of a plan, at its largest shape."""

    mode: str
    data_type: str
    dims: list[int]


@dataclass(frozen=True)
class Facts:
    """A plan's tensors and layers.

    Attributes:
        layers: number of layers that compute in `fp16`, in `fp32`, and in a precision not reported (`untold`).

    """

    tensors: dict[str, Tensor]
    layers: dict[str, int]

    def json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Facts:
        """Return what `json` wrote."""
        return cls({name: Tensor(**tensor) for name, tensor in data["tensors"].items()}, data["layers"])

    @property
    def precision(self) -> str:
        """The precision of most layers whose precision is known; empty when there are none."""
        half, single = self.layers.get("fp16", 0), self.layers.get("fp32", 0)
        if not half and not single:
            return ""
        return "fp16" if half >= single else "fp32"


def facts(output: str, layers: dict[str, Any]) -> Facts:
    """Return a plan's facts from trtexec's output and from the JSON of its layers."""
    tensors = {}
    for found in TENSOR.finditer(output):
        dims = [int(size) for size in found["dims"].split(".") if size]
        tensors[found["name"]] = Tensor(found["mode"], found["data_type"].upper(), dims)
    computing = [layer for layer in layers.get("Layers", []) if _kind(layer) not in MOVERS]
    # Layers with weights do the multiplications; where they report their types, the other layers do not count.
    weighty = [layer for layer in computing if isinstance(layer, dict) and _weights(layer)]
    return Facts(tensors, dict(Counter(map(_precision, weighty or computing))))


def faults(plan: Facts, config: Any, precision: str) -> list[str]:
    """Return the differences between a plan and its configuration, one sentence each.

    `config` is the network's ModelConfig; the plan's tensors have the largest batch.
    """
    found = []
    for mode, entries in (("input", config.input), ("output", config.output)):
        for entry in entries:
            found += _tensor_faults(mode, plan.tensors.get(entry.name), entry, config.max_batch_size)
    known = {entry.name for entry in config.input}
    more = [name for name, tensor in plan.tensors.items() if tensor.mode == "input" and name not in known]
    found += [f"the plan has an input {name} that the configuration lacks" for name in more]
    if plan.precision != precision:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(plan.layers.items())) or "none"
        found.append(f"model.yaml asks for {precision}, but the plan's layers are {counts}")
    return found


def performance(output: str) -> dict[str, str]:
    """Return trtexec's figures by their names there: Throughput, Latency, GPU Compute Time."""
    return {found[1]: found[2] for line in output.splitlines() if (found := PERFORMANCE.search(line.rstrip()))}


def _tensor_faults(mode: str, tensor: Tensor | None, entry: Any, batch: int) -> list[str]:
    if tensor is None or tensor.mode != mode:
        return [f"the plan has no {mode} {entry.name}"]
    data_type = pb.DataType.Name(entry.data_type).removeprefix("TYPE_")
    found = []
    if tensor.data_type != data_type:
        found.append(f"{mode} {entry.name} is {tensor.data_type} in the plan and {data_type} in the configuration")
    dims = [batch, *entry.dims]
    fits = (one == other or -1 in (one, other) for one, other in zip(tensor.dims, dims, strict=False))
    if len(tensor.dims) != len(dims) or not all(fits):
        found.append(
            f"{mode} {entry.name} is {tensor.dims} in the plan at its largest, the configuration allows {dims}"
        )
    return found


def _kind(layer: Any) -> str:
    return str(layer.get("LayerType", "")) if isinstance(layer, dict) else ""


def _weights(layer: dict[str, Any]) -> str:
    weights = layer.get("Weights")
    return str(weights.get("Type", "")) if isinstance(weights, dict) else ""


def _precision(layer: Any) -> str:
    """Return `fp16`, `fp32` or `untold`, from the first that shows it of a layer's weights, kernel and outputs."""
    if not isinstance(layer, dict):
        return "untold"  # a name only: the plan was not built with --profilingVerbosity=detailed
    for text in (_weights(layer), str(layer.get("TacticName", "")), *_data_types(layer)):
        if HALF.search(text):
            return "fp16"
        if SINGLE.search(text):
            return "fp32"
    return "untold"


def _data_types(layer: dict[str, Any]) -> Iterator[str]:
    for tensor in layer.get("Outputs", []):
        yield from (str(value) for name, value in tensor.items() if name.lower().endswith("datatype"))
