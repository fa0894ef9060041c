"""Rules about an ONNX file and the config of the model that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tritonclient.grpc import model_config_pb2

from modelctl.lint import onnx
from modelctl.lint.repository import Model
from modelctl.lint.rule import MEASURED, Finding, Rule
from modelctl.lint.rules.onnx_options import BACKEND, INPUT

UTILS = "https://github.com/triton-inference-server/onnxruntime_backend/blob/main/src/onnxruntime_utils.cc"
ON_CPU = f"{MEASURED} with backends/onnxruntime"

UNREADABLE = Rule(
    code="TG070",
    title="The ONNX file cannot be loaded",
    severity="error",
    evidence="refuses",
    why="It is cut off or not ONNX at all (often a Git LFS pointer), or a file with its weights is missing beside it.",
    fix="Fetch or export it again (`git lfs pull`), with its external data in the same folder.",
    source=ON_CPU,
)
NAME = Rule(
    code="TG071",
    title="The network has no such tensor",
    severity="error",
    evidence="refuses",
    why="Names in the config are the names in the ONNX file.",
    fix="Correct the name in the config, or export with `input_names` and `output_names`.",
    source=BACKEND,
)
MISSING = Rule(
    code="TG072",
    title="The config lacks an input of the network",
    severity="error",
    evidence="refuses",
    why="A network runs with all of its inputs; outputs may be omitted.",
    fix="Add the input to the config, or export without it.",
    source=BACKEND,
)
DATA_TYPE = Rule(
    code="TG073",
    title="The network has another data type",
    severity="error",
    evidence="refuses",
    why="Triton converts nothing between the request and the network.",
    fix="Write the network's type into the config; convert in the step before.",
    source=BACKEND,
)
SHAPE = Rule(
    code="TG074",
    title="The network has another shape",
    severity="error",
    evidence="refuses",
    why="dims are the network's shape, without the batch when max_batch_size is above 0.",
    fix="Correct dims; with max_batch_size 0 they hold the batch.",
    source=f"{UTILS}, CompareDimsSupported",
)
FIXED = Rule(
    code="TG075",
    title="The network's size is fixed where the config's is free",
    severity="error",
    evidence="refuses",
    why="A batch, or a size of -1, would reach a network that was exported for one size alone.",
    fix="Export with dynamic axes (the first is the batch), or write the size into the config; for a network "
    "without a batch, max_batch_size 0.",
    source=f"{UTILS}, CompareDimsSupported; {ON_CPU}",
)
OPEN = Rule(
    code="TG076",
    title="An output's size is free in the network and fixed in the config",
    severity="warning",
    evidence="refuses",
    why="An output's dims must equal the network's sizes, so -1 where those are free; only inputs may be narrower. "
    "If ONNX Runtime infers a size that the file leaves open, the model loads.",
    fix="Write -1 into dims, or export with that size fixed.",
    source=f"{UTILS}, CompareDimsSupported; {ON_CPU}",
)
NEWER = Rule(
    code="TG077",
    title="The network is newer than a container's ONNX Runtime",
    severity="warning",
    evidence="documented",
    why="ONNX Runtime refuses operators and a file format that came after it. The embedded server runs a newer ONNX "
    "Runtime than the containers, so the model loads here and not there.",
    fix="Export with a smaller opset, or look for onnxruntime in the release notes of your container.",
    source="https://onnxruntime.ai/docs/reference/compatibility.html, "
    "https://github.com/onnx/onnx/blob/main/docs/Versioning.md",
)
RULES = (UNREADABLE, NAME, MISSING, DATA_TYPE, SHAPE, FIXED, OPEN, NEWER)


class Runtime(NamedTuple):
    """The ONNX Runtime of a container, and the newest opset and file format (IR) that it reads."""

    container: str
    version: str
    opset: int
    ir: int


OLDEST_RUNTIME = Runtime("24.10", "1.19.2", 21, 10)
"""Of the oldest container that serves this repository: a model that suits it suits the later ones too."""


def path_of(model: Model, version: int) -> Path:
    """Return where a version's network is: a file, or the model.onnx in a folder of that name."""
    path = model.folder / str(version) / (model.message.default_model_filename or "model.onnx")
    return path / "model.onnx" if path.is_dir() else path


def check(model: Model) -> Iterator[Finding]:
    """Check every version that Triton loads."""
    if model.backend != "onnxruntime":
        return
    for version in model.versions:
        path = path_of(model, version)
        if not path.is_file():  # rules/files.py says so
            continue
        try:
            network = onnx.read(path)
        except onnx.OnnxError as error:
            yield Finding(UNREADABLE, model.name, path, "", None, f"{path.name} is not an ONNX model: {error}.")
            continue
        for name in sorted(name for name in network.external if not (path.parent / name).is_file()):
            sentence = f"Its weights are in '{name}', which is missing beside it."
            yield Finding(UNREADABLE, model.name, path, "", None, sentence)
        yield from _newer(model, path, network)
        yield from _fit(model, "input", network.inputs)
        yield from _fit(model, "output", network.outputs)


def _newer(model: Model, path: Path, network: onnx.Onnx) -> Iterator[Finding]:
    runtime = OLDEST_RUNTIME
    if network.opset > runtime.opset or network.ir > runtime.ir:
        sentence = (
            f"It has opset {network.opset} and IR {network.ir}; ONNX Runtime {runtime.version}, in Triton "
            f"{runtime.container}, takes opset {runtime.opset} and IR {runtime.ir} at most."
        )
        yield Finding(NEWER, model.name, path, "", None, sentence)


def _fit(model: Model, kind: str, tensors: dict[str, onnx.Tensor]) -> Iterator[Finding]:
    entries = {entry.name: (index, entry) for index, entry in enumerate(getattr(model.message, kind))}
    for name, (index, entry) in entries.items():
        if name not in tensors and getattr(entry, "optional", False) and model.message.max_batch_size == 0:
            continue  # a weight that a request may replace
        if name not in tensors:
            sentence = f"The network has no {kind} '{name}'; it has {', '.join(sorted(tensors)) or 'none'}."
            yield model.finding(NAME, sentence, f"{kind}[{index}]")
            continue
        yield from _tensor(model, entry, tensors[name], f"{kind}[{index}]")
    for name in (
        sorted(tensors.keys() - entries.keys() - _given(model.message))
        if kind == "input" and not model.is_completed(kind)
        else ()
    ):
        yield model.finding(MISSING, f"The network needs the input '{name}'.", "input")


def _given(message: Any) -> set[str]:
    """Return the inputs that Triton itself fills: control and state of sequences, and batch inputs."""
    sequences = message.sequence_batching
    targets = {name for entry in message.batch_input for name in entry.target_name}
    return targets | {entry.name for entry in sequences.control_input} | {one.input_name for one in sequences.state}


def _tensor(model: Model, entry: Any, tensor: onnx.Tensor, field: str) -> Iterator[Finding]:
    wanted = model_config_pb2.DataType.Name(entry.data_type).removeprefix("TYPE_")
    if tensor.data_type and wanted != tensor.data_type:
        sentence = f"'{entry.name}' is {wanted} in the config and {tensor.data_type} in the network."
        yield model.finding(DATA_TYPE, sentence, field)
    if getattr(entry, "allow_ragged_batch", False):
        if tensor.shape not in (None, (-1,)):
            sentence = (
                f"The input '{entry.name}' is ragged and has the shape {list(tensor.shape or ())} in the network."
            )
            yield model.finding(INPUT, sentence, field)
        return
    if tensor.shape is None:
        return
    dims = list(entry.reshape.shape if entry.HasField("reshape") else entry.dims)
    shape = [-1, *dims] if model.message.max_batch_size > 0 else dims
    if not tensor.shape and model.message.max_batch_size == 0 and all(size == 1 for size in dims):
        return  # a single number
    pairs = list(zip(shape, tensor.shape, strict=False))
    sentence = f"'{entry.name}' is {shape} in the config and {list(tensor.shape)} in the network."
    if len(shape) != len(tensor.shape) or any(-1 not in (a, b) and a != b for a, b in pairs):
        yield model.finding(SHAPE, sentence, f"{field}.dims")
    elif any(a == -1 and b != -1 for a, b in pairs):
        yield model.finding(FIXED, sentence, f"{field}.dims")
    elif field.startswith("output") and any(b == -1 and a != -1 for a, b in pairs):
        yield model.finding(OPEN, sentence, f"{field}.dims")
