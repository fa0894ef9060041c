"""What a TensorRT plan really is, as trtexec tells it; held against the network's configuration.

    trtexec's output, --exportLayerInfo's JSON --facts--> Facts --faults--> what differs from config.pbtxt

TensorRT 10 tells the types of tensors only in lines of its output (samples/common/sampleInference.cpp,
dumpRawBindingToFiles), which 11 has too. Layers are told as JSON: on 10 `Format/Datatype`, which is `N/A due to dynamic
shapes` where sizes are free, on 11 `Format` and `Datatype`
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
# Kernels' names tell what they multiply: `..._f16f16_f16f32_...`, `ampere_h16816gemm_...`; `bf16` is another type.
HALF = re.compile(r"half|(?<!b)fp?16|(?<![a-z])h(?:884|1688|16816)", re.IGNORECASE)
SINGLE = re.compile(r"float|fp?32", re.IGNORECASE)
# These move data or change its type, and so tell nothing of the types that the network computes in.
MOVERS = {"Reformat", "NoOp", "Shuffle", "Constant", "Cast"}
PERFORMANCE = re.compile(r"(?:^|\] )(Throughput|Latency|GPU Compute Time): (.+)$")


@dataclass(frozen=True)
class Tensor:
    """One input or output, as the plan has it at its largest."""

    mode: str
    data_type: str
    dims: list[int]


@dataclass(frozen=True)
class Facts:
    """What a plan tells of itself.

    Attributes:
        layers: how many compute in a precision, by `fp16`, `fp32` and `untold`.

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
        """The precision that most layers compute in, among those that tell; empty when none does."""
        half, single = self.layers.get("fp16", 0), self.layers.get("fp32", 0)
        if not half and not single:
            return ""
        return "fp16" if half >= single else "fp32"


def facts(output: str, layers: dict[str, Any]) -> Facts:
    """Return what trtexec told of a plan, in its output and in its file of layers."""
    tensors = {}
    for found in TENSOR.finditer(output):
        dims = [int(size) for size in found["dims"].split(".") if size]
        tensors[found["name"]] = Tensor(found["mode"], found["data_type"].upper(), dims)
    computing = [layer for layer in layers.get("Layers", []) if _kind(layer) not in MOVERS]
    # Where layers with weights tell their types, those say what the multiplications are; the rest is glue.
    weighty = [layer for layer in computing if isinstance(layer, dict) and _weights(layer)]
    return Facts(tensors, dict(Counter(map(_precision, weighty or computing))))


def faults(told: Facts, config: Any, precision: str) -> list[str]:
    """Return what a plan has otherwise than its configuration, one sentence each.

    `config` is the network's ModelConfig; the plan's tensors are those of a whole batch.
    """
    found = []
    for mode, entries in (("input", config.input), ("output", config.output)):
        for entry in entries:
            found += _tensor_faults(mode, told.tensors.get(entry.name), entry, config.max_batch_size)
    known = {entry.name for entry in config.input}
    more = [name for name, tensor in told.tensors.items() if tensor.mode == "input" and name not in known]
    found += [f"the plan wants an input {name} that the configuration lacks" for name in more]
    if told.precision != precision:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(told.layers.items())) or "none"
        found.append(f"model.yaml asks for {precision}, the plan's layers compute otherwise: {counts}")
    return found


def performance(output: str) -> dict[str, str]:
    """Return trtexec's figures, by what it calls them: Throughput, Latency, GPU Compute Time."""
    return {found[1]: found[2] for line in output.splitlines() if (found := PERFORMANCE.search(line.rstrip()))}


def _tensor_faults(mode: str, told: Tensor | None, entry: Any, batch: int) -> list[str]:
    if told is None or told.mode != mode:
        return [f"the plan has no {mode} {entry.name}"]
    data_type = pb.DataType.Name(entry.data_type).removeprefix("TYPE_")
    found = []
    if told.data_type != data_type:
        found.append(f"{mode} {entry.name} is {told.data_type} in the plan and {data_type} in the configuration")
    dims = [batch, *entry.dims]
    fits = (one == other or -1 in (one, other) for one, other in zip(told.dims, dims, strict=False))
    if len(told.dims) != len(dims) or not all(fits):
        found.append(f"{mode} {entry.name} is {told.dims} in the plan at its largest, the configuration allows {dims}")
    return found


def _kind(layer: Any) -> str:
    return str(layer.get("LayerType", "")) if isinstance(layer, dict) else ""


def _weights(layer: dict[str, Any]) -> str:
    weights = layer.get("Weights")
    return str(weights.get("Type", "")) if isinstance(weights, dict) else ""


def _precision(layer: Any) -> str:
    """Return `fp16`, `fp32` or `untold`, from what tells most about a layer: its weights, its kernel, its outputs."""
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
