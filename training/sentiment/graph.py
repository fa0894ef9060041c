"""The network as ONNX, in two forms of equal answers; `network.py` is the same network for training, in torch.

    ids, mask [N, L] -> embeddings -> 6 layers (attention, feed-forward) -> mean over real tokens -> logits [N, 3]

In the packed form, every step that reads one token at a time (embeddings, matrix products, norms, GELU: nearly all the
work) runs on the real tokens of the batch only, as rows [T, 384]; for attention alone the rows are spread out to
[N, L]. A batch of one long and seven short texts thus costs little more than its real tokens. The plain form computes
all rows [N * L], because TensorRT needs shapes that do not depend on data. Needs onnx and numpy, not torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.float32]
LAYERS, HEADS, WIDTH, HEAD_WIDTH, CLASSES, LONGEST = 6, 12, 384, 32, 3, 128
TABLES = ("words", "places")  # weights that Gather reads
EPSILON = 1e-12  # of the layer norms, as in BERT


def fused(state: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """Return the weights in this graph's layout, from a torch state dict of `network.Sentiment`.

    Matrices are [in, out]. Query, key and value are joined; the query includes attention's factor 1 / sqrt(32). The
    position table includes the embedding of the only token type.
    """
    given = {name: np.asarray(value, np.float32) for name, value in state.items()}
    made = {
        "words": given["words.weight"],
        "places": given["places.weight"][:LONGEST] + given["kinds.weight"][0],
        "head.weight": given["head.weight"].T,
        "head.bias": given["head.bias"],
        **{f"ln.{part}": given[f"ln.{part}"] for part in ("weight", "bias")},
    }
    for layer in (f"layers.{index}." for index in range(LAYERS)):
        scales = {"q": np.float32(HEAD_WIDTH**-0.5), "k": np.float32(1), "v": np.float32(1)}
        for part in ("weight", "bias"):
            made[f"{layer}qkv.{part}"] = np.concatenate(
                [given[f"{layer}{n}.{part}"].T * s for n, s in scales.items()], -1
            )
            made |= {
                f"{layer}{name}.{part}": given[f"{layer}{name}.{part}"].T for name in ("o", "up", "down", "ln1", "ln2")
            }
    return {name: np.ascontiguousarray(value) for name, value in made.items()}


def build(weights: Mapping[str, Array], *, packed: bool) -> onnx.ModelProto:
    """Return the float32 network as a checked model.

    Inputs `input_ids`, `attention_mask`: INT64 [N, L], L at most 128, padded on the right, at least one real token a
    text; output `logits`: FP32 [N, 3].
    """
    graph = Graph(weights)
    graph.constants()
    ids, mask = "input_ids", "attention_mask"
    graph.op("Shape", [ids], "shape")
    graph.op("Cast", [mask], "real", to=TensorProto.FLOAT)
    graph.op("Sub", ["real", "one"], "missing")
    graph.op("Mul", ["missing", "much"], "penalty")
    graph.op("Unsqueeze", ["penalty", "axes12"], "bias")  # [N, 1, 1, L]: 0 for real tokens, -10000 for padding
    graph.op("Concat", ["shape", "heads"], "split_shape", axis=0)  # N, L, 3, 12, 32
    graph.op("Concat", ["shape", "width"], "padded_shape", axis=0)  # N, L, 384
    if packed:
        graph.pack()
    rows = graph.embeddings(packed=packed)
    for index in range(LAYERS):
        rows = graph.layer(rows, f"layers.{index}.", packed=packed)
    graph.pool(rows, packed=packed)
    return graph.model()


class Graph:
    """Collects nodes and weights; a method adds nodes and returns the name of their output."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add one node, named like its output."""
        self._nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constants(self) -> None:
        """Add the small numbers that nodes take as inputs."""
        floats = {"one": 1.0, "much": 1e4, "half": 0.5, "root2": 2**0.5}
        integers: dict[str, list[int]] = {
            "axes12": [1, 2],
            "axis0": [0],
            "axis1": [1],
            "axis2": [2],
            "heads": [3, HEADS, HEAD_WIDTH],
            "width": [WIDTH],
            "row": [-1, WIDTH],
            "flat": [-1],
        }
        self._tensors += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in floats.items()]
        self._tensors += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in integers.items()]
        self._tensors.append(numpy_helper.from_array(np.array(0, np.int64), "first_axis"))

    def pack(self) -> None:
        """Add `index` [T], the places of the real tokens in [N * L], and `slot` [N * L], the real token at each place.

        A padding place gets the real token before it (or, with index -1, the last of all). The mask hides it,
        so the value only has to be finite.
        """
        self.op("Reshape", ["attention_mask", "flat"], "flat_mask")
        self.op("NonZero", ["flat_mask"], "found")
        self.op("Reshape", ["found", "flat"], "index")
        self.op("CumSum", ["flat_mask", "first_axis"], "count")
        self.op("Sub", ["count", "axis1"], "slot")

    def embeddings(self, *, packed: bool) -> str:
        """Add the sum of word and place embeddings, normed: rows [T or N * L, 384]."""
        self.op("Slice", ["shape", "axis1", "axis2", "axis0"], "length")
        if packed:
            self.op("Reshape", ["input_ids", "flat"], "flat_ids")
            self.op("Gather", ["flat_ids", "index"], "tokens")
            self.op("Gather", ["words", "tokens"], "word_rows")
            self.op("Mod", ["index", "length"], "place_numbers")
            self.op("Gather", ["places", "place_numbers"], "place_rows")
            rows = self.op("Add", ["word_rows", "place_rows"], "embedded")
        else:
            self.op("Gather", ["words", "input_ids"], "word_rows")
            self.op("Slice", ["places", "axis0", "length", "axis0"], "place_rows")
            self.op("Add", ["word_rows", "place_rows"], "padded_embedded")
            rows = self.op("Reshape", ["padded_embedded", "row"], "embedded")
        return self.norm(rows, "ln")

    def layer(self, rows: str, at: str, *, packed: bool) -> str:
        """Add one encoder layer over rows."""
        mixed = self.linear(self.attention(rows, at, packed=packed), at + "o")
        rows = self.norm(self.op("Add", [rows, mixed], at + "mixed"), at + "ln1")
        spread = self.gelu(self.linear(rows, at + "up"), at)
        return self.norm(self.op("Add", [rows, self.linear(spread, at + "down")], at + "sum"), at + "ln2")

    def attention(self, rows: str, at: str, *, packed: bool) -> str:
        """Add softmax(q k^T + bias) v over [N, 12, L, 32], back as rows [., 384]."""
        joint = self.linear(rows, at + "qkv")
        if packed:
            joint = self.op("Gather", [joint, "slot"], at + "padded", axis=0)
        parts = self.op("Reshape", [joint, "split_shape"], at + "parts")
        thirds = [at + name for name in ("query", "key", "value")]
        self._nodes.append(helper.make_node("Split", [parts], thirds, at + "split", axis=2))
        orders = {"query": (0, 2, 1, 3), "key": (0, 2, 3, 1), "value": (0, 2, 1, 3)}
        q, k, v = (
            self.op(
                "Transpose",
                [self.op("Squeeze", [at + name, "axis2"], at + name + "_heads")],
                at + name + "_t",
                perm=order,
            )
            for name, order in orders.items()
        )
        scores = self.op("Add", [self.op("MatMul", [q, k], at + "products"), "bias"], at + "scores")
        shares = self.op("Softmax", [scores], at + "shares", axis=-1)
        found = self.op("Transpose", [self.op("MatMul", [shares, v], at + "found")], at + "joined", perm=(0, 2, 1, 3))
        flat = self.op("Reshape", [found, "row"], at + "rows")
        return self.op("Gather", [flat, "index"], at + "packed", axis=0) if packed else flat

    def linear(self, rows: str, name: str) -> str:
        """Add rows @ weight + bias."""
        return self.op("Add", [self.op("MatMul", [rows, name + ".weight"], name + ".product"), name + ".bias"], name)

    def norm(self, rows: str, name: str) -> str:
        """Add a layer norm over the last axis."""
        inputs = [rows, name + ".weight", name + ".bias"]
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=EPSILON)

    def gelu(self, rows: str, at: str) -> str:
        """Add x * (1 + erf(x / sqrt 2)) / 2, in the order that runtimes can fuse."""
        self.op("Div", [rows, "root2"], at + "gelu.scaled")
        self.op("Erf", [at + "gelu.scaled"], at + "gelu.erf")
        self.op("Add", [at + "gelu.erf", "one"], at + "gelu.share")
        self.op("Mul", [rows, at + "gelu.share"], at + "gelu.double")
        return self.op("Mul", [at + "gelu.double", "half"], at + "gelu")

    def pool(self, rows: str, *, packed: bool) -> None:
        """Add the mean over real tokens and the linear head."""
        if packed:
            rows = self.op("Gather", [rows, "slot"], "spread", axis=0)
        self.op("Reshape", [rows, "padded_shape"], "padded")
        self.op("Unsqueeze", ["real", "axis2"], "real_column")
        self.op("Mul", ["padded", "real_column"], "kept")
        self.op("ReduceSum", ["kept", "axis1"], "total", keepdims=0)
        self.op("ReduceSum", ["real", "axis1"], "tokens_each", keepdims=1)
        self.op("Div", ["total", "tokens_each"], "mean")
        self.op("Gemm", ["mean", "head.weight", "head.bias"], "logits")

    def model(self) -> onnx.ModelProto:
        """Return the graph as a checked model of opset 17, IR version 8."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "L"])
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
        used = {name for node in self._nodes for name in node.input}
        tensors = [tensor for tensor in self._tensors if tensor.name in used]
        graph = helper.make_graph(self._nodes, "minilm_sentiment", inputs, [output], tensors)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, producer_name="training.sentiment", opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model
