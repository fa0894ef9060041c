"""Stores the float32 export in each of the ways that were compared for shipping; `compare.py` measures them.

| name | weights | arithmetic |
|---|---|---|
| float32 | as exported | float32 |
| half | float16 | float32 |
| byte | int8, a scale per channel | float32 |
| static | int8 | int8, activation scales fixed by calibration |
| blocks | int8, a scale per 32 weights | int8, activation scales of each row's blocks (com.microsoft MatMulNBits) |
| rows | int8, 7 bits | int8, an activation scale per token; this variant is served |
| dynamic | int8 | int8, activation scales of the whole batch: an answer depends on its neighbours |

`static`, `blocks` (with the package onnx_ir) and `dynamic` need ONNX Runtime's quantiser. No variant needs torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from modelctl.graphs.row_bytes import row_bytes
from training.onnx_store import byte_weights, half_weights

Feed = dict[str, Any]
TABLE = 1_000_000  # only the word table has more numbers


class Feeds(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    """Hands calibration inputs to ONNX Runtime's quantiser."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed, or None at the end."""
        return next(self._feeds, None)


def static(source: Path, feeds: Iterable[Feed]) -> onnx.ModelProto:
    """Return a QDQ model whose MatMuls are int8 with activation scales measured on `feeds`."""
    with tempfile.TemporaryDirectory() as folder:
        ready, made = Path(folder, "ready.onnx"), Path(folder, "made.onnx")
        # Not optimised, because the optimiser turns MatMul and Add into Gemm.
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True, skip_optimization=True)
        quantize_static(
            str(ready),
            str(made),
            Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,  # 7 bits: processors with AVX2 alone saturate at 8
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return byte_weights(onnx.load(str(made)), TABLE)


def dynamic(source: Path) -> onnx.ModelProto:
    """Return a model whose MatMuls are int8 with activation scales taken from each call's whole batch."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made.onnx")
        quantize_dynamic(
            str(source),
            str(made),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return byte_weights(onnx.load(str(made)), TABLE)


def blocks(source: Path) -> onnx.ModelProto:
    """Return a model with 8-bit MatMulNBits, which quantises each row of activations by itself (accuracy level 4)."""
    quantizer = MatMulNBitsQuantizer(
        onnx.load(str(source)),
        bits=8,
        block_size=32,
        is_symmetric=True,
        accuracy_level=4,
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    return byte_weights(quantizer.model.model, TABLE)


def makers(source: Path, feeds: Iterable[Feed]) -> dict[str, Callable[[], onnx.ModelProto]]:
    """Return, by name, a function that makes each variant of the float32 model `source`; `feeds` calibrate `static`."""
    return {
        "float32": lambda: onnx.load(str(source)),
        "half": lambda: half_weights(onnx.load(str(source))),
        "byte": lambda: byte_weights(onnx.load(str(source))),
        "static": lambda: static(source, feeds),
        "blocks": lambda: blocks(source),
        "rows": lambda: byte_weights(row_bytes(onnx.load(str(source))), TABLE),
        "dynamic": lambda: dynamic(source),
    }
