"""Stores a network in fewer bits. An answer still depends on its own item alone, never on its batch.

fp16   halves the file; inputs and outputs stay as they are
int8   pictures: static scales, measured on example pictures; texts: a scale for each row of activations
       (`modelctl.graphs.row_bytes`), since the usual dynamic scale is taken from the whole batch
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from modelctl.errors import CommandError
from modelctl.graphs import networks, operators
from modelctl.graphs.networks import Arrays
from modelctl.graphs.row_bytes import row_bytes

LIMITS = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.15}
"""The largest accepted difference between a score and the original's, by precision."""

OLDEST_OPSET = 13
"""Since this opset QuantizeLinear has a scale for each channel, and Slice, Pad and ReduceSum are as later."""


def convert(path: Path, precision: str, examples: Sequence[Arrays], *, text: bool) -> None:
    """Convert the network at `path` in place; `examples` are inputs by the network's own names, one item each.

    Raises:
        CommandError: when it cannot be converted.

    """
    _require_full(path, precision)
    try:
        if precision == "fp16":
            _halve(path)
        elif precision == "int8" and text:
            _rows(path)
        elif precision == "int8":
            _static(path, examples)
    except CommandError:
        raise
    except Exception as error:
        raise CommandError(f"The network cannot be stored as {precision}: {networks.one_line(error)}") from error


def _require_full(path: Path, precision: str) -> None:
    """Raise CommandError when the network is stored in fewer bits already; raise an opset that is too old."""
    model = onnx.load(str(path), load_external_data=False)
    stored = operators.stored_as(model)
    if stored and not (stored == "fp16" and precision == "int8"):
        raise CommandError(f"The network is stored as {stored} already: omit --precision.")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if precision != "int8" or opset >= OLDEST_OPSET:
        return
    try:
        raised = version_converter.convert_version(onnx.load(str(path)), OLDEST_OPSET)
        onnx.checker.check_model(raised)
    except Exception as error:
        raise CommandError(
            f"The network's opset {opset} is too old for int8, which needs {OLDEST_OPSET}, and it cannot be "
            f"raised ({networks.one_line(error)[:120]}): export it again with opset 17, or omit --precision."
        ) from error
    networks.save(raised, path)


def _halve(path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    networks.save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True), path)


def _rows(path: Path) -> None:
    model = onnx.load(str(path))
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= 18:
        raise CommandError(
            f"int8 for texts needs a graph of opset 17 or less, and this one has {opset}: export it with 17."
        )
    networks.save(row_bytes(model), path)


def _static(path: Path, examples: Sequence[Arrays]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Examples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(examples)

        def get_next(self) -> Any:
            return next(self._left, None)

    prepared, made = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(made),
        Examples(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,  # processors with only AVX2 add pairs of products in 16 bits
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    made.replace(path)
    prepared.unlink()
