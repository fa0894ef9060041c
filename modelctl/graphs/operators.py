"""Operators and types that are not served: what to do instead, by where they come from."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

WAYS_OUT = {
    "ai.onnx.contrib": "it is of onnxruntime-extensions: export the network without its pre- and postprocessing, which "
    "the steps here do (--tokenizer for texts, --resize and its relatives for pictures).",
    "com.microsoft.extensions": "it is of onnxruntime-extensions: export the network without its pre- and "
    "postprocessing, which the steps here do.",
    "mmdeploy": "it is of MMDeploy's plugins: export for onnxruntime without them, up to the raw head.",
    "mmcv": "it is of MMCV's plugins: export the network up to its raw head, without them.",
    "trt.plugins": "it is a plugin of TensorRT: export the network without its NMS, which the steps here do.",
    "TRT": "it is a plugin of TensorRT: export the network without its NMS, which the steps here do.",
}
"""By the operator's domain."""
STANDARD = "export it with standard operators."
TEXT_INPUT = (
    "export the network behind its tokenizer or vectorizer, so that it takes numbers: token ids, with --tokenizer "
    "tokenizer.json, or features, which are served as tensors."
)
TEXT_OUTPUT = "export its scores as numbers, and give the names by --labels."
QUANTIZED = {
    "QLinearConv": "int8",
    "QLinearMatMul": "int8",
    "ConvInteger": "int8",
    "MatMulInteger": "int8",
    "DynamicQuantizeMatMul": "int8",
    "MatMulIntegerToFloat": "int8",
    "QGemm": "int8",
    "QAttention": "int8",
    "DynamicQuantizeLinear": "int8",
    "QuantizeLinear": "int8",
    "DequantizeLinear": "int8",
    "MatMulNBits": "int4",
}
"""Operators that only quantised networks hold, with their precision."""


def way_out(domain: str) -> str:
    """Return what to do about a custom operator of a domain."""
    return WAYS_OUT.get(domain, STANDARD)


def stored_as(model: ModelProto) -> str:
    """Return `int8`, `int4` or `fp16` for a network that is stored so already; empty for others."""
    found = next((QUANTIZED[node.op_type] for node in model.graph.node if node.op_type in QUANTIZED), "")
    if found:
        return found
    weights = [tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1]
    return "fp16" if weights and all(kind == TensorProto.FLOAT16 for kind in weights) else ""
