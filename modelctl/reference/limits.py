"""By how much a served answer may differ from its reference: it follows from the arithmetic of each step.

preprocess   the tensors of both are compared, in grey levels of the picture
network      both run on the same tensor; a network that quantises its inputs as it runs rounds to 8 bits, which
             kernels of other versions of ONNX Runtime do otherwise
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from modelctl.models.steps import ImagePreprocess
from modelctl.reference.agreement import SCORE

QUANTISED_SCORE = 1e-2
"""Between ONNX Runtime 1.19 and 1.31, scores of a dynamically quantised network differed by 0.0036."""
QUANTISING = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
ROUNDING = 0.25
"""Grey levels: of FP16, in which 255 has neighbours at 0.125; FP32 is finer by far."""
INTERPOLATION = 1.0
"""Grey levels: between two ways to interpolate in 8 bits, which both round."""


def score_limit(network: Path) -> float:
    """Return the largest difference of a score between two runs of an ONNX file on the same input."""
    nodes = onnx.load(str(network), load_external_data=False).graph.node
    return QUANTISED_SCORE if any(node.op_type in QUANTISING for node in nodes) else SCORE


def level_limit(settings: object) -> float:
    """Return the largest difference of two prepared inputs in grey levels; texts become tokens, which are equal."""
    if not isinstance(settings, ImagePreprocess):
        return 0.0
    interpolates = settings.resample.startswith("opencv_") or settings.resize == "letterbox_square"
    return ROUNDING + INTERPOLATION * interpolates


def levels(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic], settings: ImagePreprocess) -> float:
    """Return the largest difference of two tensors [1, ...] in grey levels; infinity when their shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    channels_last = (0, 2, 3, 1) if settings.layout == "NCHW" else (0, 1, 2, 3)
    gaps = np.abs(one.astype(np.float64) - other.astype(np.float64)).transpose(channels_last)
    step = 1.0 if one.dtype == np.uint8 else np.abs(settings.scale / np.array(settings.std))
    found = float((gaps / np.maximum(step, np.finfo(np.float64).tiny)).max())
    return found if np.isfinite(found) else float("inf")
