"""The callers' requests: real pictures or texts for an ensemble, random numbers for a model of tensors.

Requests are made once and kept as bytes, so that the load generator leaves the cores to the server.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import triton_to_np_dtype

from modelctl.errors import CommandError
from modelctl.models import spec as specs
from modelctl.models.repository import Model, read_config
from modelctl.models.spec import FILE, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.samples import inputs

VARIETY = 8


def requests(repository: Path, model: Model) -> list[bytes]:
    """Return serialized ModelInferRequests of one item each.

    Raises:
        CommandError: when no valid data can be made up for an input.

    """
    config = read_config(repository / model.name / "config.pbtxt")
    if model.steps and (repository / model.name / FILE).exists():
        spec = specs.read(repository / model.name / FILE)
        if not isinstance(spec, TensorModel):
            items = inputs(isinstance(spec.preprocess, ImagePreprocess), None, None).values()
            return [_request(config, [struct.pack("<I", len(item)) + item]) for item in items]
    chance = np.random.default_rng(0)
    return [_request(config, [_random(model.name, tensor, chance) for tensor in config.input]) for _ in range(VARIETY)]


def _request(config: Any, contents: list[bytes]) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=config.name, raw_input_contents=contents)
    batch = [1] if config.max_batch_size else []
    for tensor in config.input:
        request.inputs.add(name=tensor.name, datatype=_data_type(tensor), shape=[*batch, *tensor.dims])
    data: bytes = request.SerializeToString()
    return data


def _data_type(tensor: Any) -> str:
    name: str = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _random(model: str, tensor: Any, chance: np.random.Generator) -> bytes:
    """Return one item for an input: floats below 1, or integers 0 and 1, which are within every vocabulary."""
    kind = _data_type(tensor)
    if kind in ("BYTES", "BF16") or min(tensor.dims, default=1) < 1:
        raise CommandError(
            f"No data can be made up for the input {tensor.name} of {model} ({kind}, {list(tensor.dims)}): "
            "bench an ensemble with a model.yaml, or a model whose inputs are numbers of fixed sizes."
        )
    dtype = np.dtype(triton_to_np_dtype(kind))
    values = chance.random(list(tensor.dims)) if dtype.kind == "f" else chance.integers(0, 2, list(tensor.dims))
    return values.astype(dtype).tobytes()
