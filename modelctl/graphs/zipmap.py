"""Cuts the outputs of classical classifiers that Triton cannot serve, and reads the class names in them.

    scores [N, C] --ZipMap--> a sequence of maps, name -> score      (scikit-learn, LightGBM, Custom Vision)
    scores [N, C] --ArgMax, a lookup--> the best name, STRING [N]

Both are made from the scores, which become the output; the names come from the attributes of the operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, shape_inference

ML = "ai.onnx.ml"
ZIPMAP = "ZipMap"
STRINGS, INTEGERS = ("classlabels_strings", "cats_strings"), ("classlabels_int64s", "cats_int64s", "classlabels_ints")


@dataclass(frozen=True)
class Cut:
    """A network without such outputs.

    Attributes:
        path: of the file.
        labels: the names of its classes, in order; empty where the graph holds none.
        notes: sentences on what was cut; empty when nothing was.

    """

    path: Path
    labels: list[str]
    notes: list[str]


def cut(path: Path, work: Path) -> Cut:
    """Return the network in a file with scores for its only outputs of a classification; write it into `work`.

    A file without such outputs, or that cannot be read, is returned as it is.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # noqa: BLE001 - whoever reads it next says what is wrong
        return Cut(path, [], [])
    graph = model.graph
    maps = [node for node in graph.node if (node.domain, node.op_type) == (ML, ZIPMAP)]
    zipped = {node.output[0]: node for node in maps if node.output and node.output[0] in _names(graph)}
    labels = next((found for node in zipped.values() if (found := _classes(node))), None) or _classifier_labels(graph)
    for name, node in zipped.items():
        _replace(model, name, node.input[0], len(labels))
    dropped = _drop_best(graph, is_zipped=bool(zipped))
    if not zipped and not dropped:
        return Cut(path, [], [])
    _prune(graph)
    onnx.load_external_data_for_model(model, str(path.parent))
    made = work / f"{path.stem}.cut.onnx"
    onnx.save(model, str(made))
    notes = [f"The output '{name}', a map from names to scores, is served as its scores." for name in zipped]
    notes += [f"The output '{name}', which is the best class, is left out." for name in dropped]
    if labels:
        notes.append(f"The file names its classes, in this order: {', '.join(labels)[:500]}.")
    return Cut(made, labels, notes)


def _names(graph: GraphProto) -> list[str]:
    return [entry.name for entry in graph.output]


def _classes(node: NodeProto) -> list[str]:
    """Return the class names in an operator's attributes; empty where it has none."""
    for attribute in node.attribute:
        if attribute.name in STRINGS and attribute.strings:
            return [
                " ".join(text.decode("utf-8", "replace").split()) or f"class_{i}"
                for i, text in enumerate(attribute.strings)
            ]
        if attribute.name in INTEGERS and attribute.ints:
            return [str(number) for number in attribute.ints]
    return []


def _classifier_labels(graph: GraphProto) -> list[str]:
    """Return the names in a classifier's own attributes, such as those of LinearClassifier."""
    nodes = [node for node in graph.node if node.domain == ML and node.op_type.endswith("Classifier")]
    return _classes(nodes[0]) if len(nodes) == 1 else []


def _replace(model: onnx.ModelProto, output: str, scores: str, classes: int) -> None:
    """Make `scores` the output in the place of the map `output`."""
    graph = model.graph
    known = {entry.name: entry for entry in (*graph.value_info, *_inferred(model))}
    entry = next(entry for entry in graph.output if entry.name == output)
    sizes = _sizes(known.get(scores)) or ["N", classes or "C"]
    if classes and len(sizes) == 2 and not isinstance(sizes[1], int):
        sizes[1] = classes
    kind = known[scores].type.tensor_type.elem_type if scores in known else 0
    entry.CopyFrom(helper.make_tensor_value_info(scores, kind or TensorProto.FLOAT, sizes))


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    try:
        return list(shape_inference.infer_shapes(model).graph.value_info)
    except Exception:  # noqa: BLE001 - sizes that cannot be inferred are learned from a run
        return []


def _sizes(entry: onnx.ValueInfoProto | None) -> list[int | str]:
    if entry is None or not entry.type.tensor_type.HasField("shape"):
        return []
    return [
        dim.dim_value if dim.dim_value > 0 else dim.dim_param or f"axis_{axis}"
        for axis, dim in enumerate(entry.type.tensor_type.shape.dim)
    ]


def _drop_best(graph: GraphProto, *, is_zipped: bool) -> list[str]:
    """Remove the outputs that hold the name of the best class; return their names.

    A STRING is one where other outputs hold numbers; an integer only beside a map, which names the same classes.
    """
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in graph.output}
    if not any(kind in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16) for kind in kinds.values()):
        return []
    idle = (TensorProto.STRING, *((TensorProto.INT64, TensorProto.INT32) if is_zipped else ()))
    dropped = [name for name, kind in kinds.items() if kind in idle]
    kept = [entry for entry in graph.output if entry.name not in dropped]
    del graph.output[:]
    graph.output.extend(kept)
    return dropped


def _prune(graph: GraphProto) -> None:
    """Remove the operators and weights that no output needs."""
    needed = set(_names(graph))
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input) | _captured(node)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    names = {tensor.name for tensor in graph.initializer} - needed
    inputs = [entry for entry in graph.input if entry.name not in names]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(weights)
    graph.input.extend(inputs)


def _captured(node: NodeProto) -> set[str]:
    """Return the tensors that the branches of an operator read, such as those of If and Loop."""
    graphs = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return {name for graph in graphs for inner in graph.node for name in (*inner.input, *_captured(inner))} | {
        name for graph in graphs for name in _names(graph)
    }
