"""Prepares a network for a plan: which of its inputs have free sizes, and tensors to run it on.

model.onnx --untrim--> the same without the nodes of `modelctl.graphs.trim`: TensorRT must know shapes before data
configuration, profile --write_samples--> samples.npz for AutoCast, *.raw for trtexec
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from tritonclient.grpc import model_config_pb2 as pb

from modelctl.graphs import trim
from modelctl.plans.command_lines import Files, Profile


def is_trimmed(model: onnx.ModelProto) -> bool:
    """Tell whether a network cuts its own padding."""
    return any(node.name.startswith(trim.PREFIX) for node in model.graph.node)


def free_inputs(model: onnx.ModelProto) -> set[str]:
    """Return the inputs with a free size, which may be the batch; trtexec refuses shapes for any other input."""
    return {
        entry.name
        for entry in model.graph.input
        if any(not size.HasField("dim_value") for size in entry.type.tensor_type.shape.dim)
    }


def write_samples(files: Files, config: Any, shapes: Profile) -> None:
    """Write one realistic item, and integers for the tuned and for the largest batch.

    Floats are standard normal, because pictures are scaled to about zero and one before they reach a network. Bytes are
    pixels. Integers are 1, a token that every table has, and the mark of a real token in a mask.
    """
    files.samples.mkdir(parents=True)
    random = np.random.default_rng(0)
    items = {}
    for entry in config.input:
        kind = np.dtype(pb.DataType.Name(entry.data_type).removeprefix("TYPE_").lower().replace("fp", "float"))
        one = (1, *shapes[entry.name]["opt"][1:])
        items[entry.name] = _values(random, kind, one)
        if entry.name in files.integers:
            np.ones(shapes[entry.name]["opt"], kind).tofile(files.integers_file(entry.name, "opt"))
            np.ones(shapes[entry.name]["max"], kind).tofile(files.integers_file(entry.name, "max"))
    np.savez(files.samples / "samples.npz", **items)


def _values(random: np.random.Generator, kind: np.dtype[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    if kind == np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    return (random.standard_normal(shape) if kind.kind == "f" else np.ones(shape)).astype(kind)


def untrim(source: Path, target: Path) -> None:
    """Write a network without the nodes that cut its padding."""
    onnx.save(trim.untrim(onnx.load(source)), target)
