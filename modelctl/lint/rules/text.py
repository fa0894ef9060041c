"""Rules about labels and tokenizers: files beside a model, which must match the model.

Only this project's backends name their files by parameters; other models are not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelctl.lint import onnx
from modelctl.lint.repository import Model
from modelctl.lint.rule import MEASURED, Finding, Rule
from modelctl.lint.rules.onnx import path_of

CLASSIFICATION = "https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md"
WITH_OUR_STEPS = f"{MEASURED} with the backends of this project"
TOKENIZER = "text_tokenize"
CLASSIFIERS, DETECTOR = ("classification_postprocess", "text_classification_postprocess"), "detection_postprocess"
TOKENS = ("input_ids", "attention_mask")  # outputs of a tokenizer step, max_length long
HEAD_COLUMNS = {  # decoder: the axis that holds the classes, and how many other columns it has
    **{"yolov5": (-1, 5), "yolox": (-1, 5), "yolov8": (0, 4), "rtdetr": (-1, 4), "fastestdet": (0, 5)},
    **{"yolofastestv2": (-1, 15), "nanodet": (-1, 0), "nanodet_plus": (-1, 0)},
}
FILES = {TOKENIZER: "tokenizer", DETECTOR: "labels", **dict.fromkeys(CLASSIFIERS, "labels")}

NO_LABELS = Rule(
    code="TG080",
    title="The labels file is missing",
    severity="error",
    evidence="refuses",
    why="label_filename is a path inside the model's folder, and is read when the model loads.",
    fix="Add the file, or remove label_filename.",
    source=CLASSIFICATION,
)
LABEL_COUNT = Rule(
    code="TG081",
    title="Labels do not fit the output",
    severity="error",
    evidence="serves wrongly",
    why="Line i is the name of element i. Triton does not count: classes beyond the file have no name, and a file "
    "for another network gives wrong ones.",
    fix="Write one line for each element of the output.",
    source=f"{CLASSIFICATION}; {WITH_OUR_STEPS}",
)
NO_FILE = Rule(
    code="TG082",
    title="A file that a parameter names is missing",
    severity="error",
    evidence="refuses",
    why="`labels` and `tokenizer` are paths inside the repository, and are read when the step loads.",
    fix="Add the file, or correct the parameter.",
    source="stages/config.py, StepConfig.path",
)
STEP_LABELS = Rule(
    code="TG083",
    title="Labels do not fit the network",
    severity="error",
    evidence="refuses",
    why="A postprocess step names classes by the lines of its labels file, and checks their number when it loads.",
    fix="Write one line for each class, without empty lines.",
    source="stages/config.py, StepConfig.labels",
)
OWN_LENGTH = Rule(
    code="TG084",
    title="The tokenizer's limit is not the length it declares",
    severity="error",
    evidence="serves wrongly",
    why="The step pads texts to max_length, whatever dims say. Triton does not check a step's output shape, and the "
    "next step refuses every request.",
    fix="Make the dims of input_ids and attention_mask equal to max_length.",
    source=WITH_OUR_STEPS,
)
LENGTH = Rule(
    code="TG085",
    title="The tokenizer's limit does not fit the network",
    severity="error",
    evidence="serves wrongly",
    why="The network accepts only one length, and the tokenizer gives another: every request fails.",
    fix="Set max_length to the network's length, or export the network with a dynamic length.",
    source=WITH_OUR_STEPS,
)
RULES = (NO_LABELS, LABEL_COUNT, NO_FILE, STEP_LABELS, OWN_LENGTH, LENGTH)


def check(model: Model) -> Iterator[Finding]:
    """Check the files that one config names, and the lengths of a tokenizer."""
    yield from _label_filenames(model)
    name = FILES.get(model.backend, "")
    path = model.folder.parent / model.parameter(name)
    if name and not path.is_file():
        sentence = f"The repository has no file '{model.parameter(name)}', which '{name}' names."
        yield model.finding(NO_FILE, sentence, f'parameters["{name}"]')
    elif name == "labels":
        yield from _step_labels(model, path)
    if model.backend == TOKENIZER:
        yield from _lengths(model)


def max_length(model: Model) -> int:
    """Return a tokenizer's limit; 0 when there is none or it is not a number."""
    text = model.parameter("max_length")
    return int(text) if model.backend == TOKENIZER and text.isdecimal() else 0


def networks(model: Model) -> Iterator[tuple[Model, str]]:
    """Yield the models that read a tokenizer's tokens in an ensemble, with the name of their input."""
    for ensemble in model.ensembles():
        own = [step for step in ensemble.steps if step.model_name == model.name]
        given = {step.output_map[name] for step in own for name in TOKENS if name in step.output_map}
        for step in ensemble.steps:
            other = model.repository.models.get(step.model_name)
            if other is not None:
                yield from ((other, key) for key, name in sorted(step.input_map.items()) if name in given)


def _label_filenames(model: Model) -> Iterator[Finding]:
    for index, entry in enumerate(model.message.output):
        path, field = model.folder / entry.label_filename, f"output[{index}].label_filename"
        if not entry.label_filename:
            continue
        if not path.is_file():
            yield model.finding(NO_LABELS, f"There is no file '{entry.label_filename}'.", field)
            continue
        count, size = len(_lines(path)), entry.dims[-1] if entry.dims else -1
        if size > 0 and count != size:
            yield model.finding(LABEL_COUNT, f"There are {count} labels for {size} elements.", field)


def _step_labels(model: Model, path: Path) -> Iterator[Finding]:
    count, classes = len(_lines(path)), _classes(model)
    if classes > 0 and count != classes:
        sentence = f"There are {count} labels for {classes} classes."
        yield model.finding(STEP_LABELS, sentence, 'parameters["labels"]')


def _classes(model: Model) -> int:
    """Return how many classes a postprocess step's input has; 0 or less when its dims leave it open.

    The detectors' heads are those of `stages/decoders/head.py`, `FAMILIES`.
    """
    dims = {entry.name: list(entry.dims) for entry in model.message.input if entry.dims}
    if model.backend in CLASSIFIERS:
        return int(dims.get("logits", [-1])[-1])
    decoder, heads = model.parameter("decoder"), [dims[name] for name in dims if name not in ("geometry", "image_size")]
    if decoder == "detr":
        return int(dims.get("logits", [-1])[-1]) - (model.parameter("activation") in ("", "softmax"))
    if decoder == "scored_boxes":
        return int(dims.get("scores", [-1])[-1]) - (model.parameter("background") == "true")
    if len(heads) != 1 or decoder not in HEAD_COLUMNS:
        return -1
    axis, columns = HEAD_COLUMNS[decoder]
    others = columns + 4 * int(model.parameter("bins") or 8) if decoder.startswith("nanodet") else columns
    return int(heads[0][axis]) - others


def _lengths(model: Model) -> Iterator[Finding]:
    length, field = max_length(model), 'parameters["max_length"]'
    if not length:
        return
    for entry in model.message.output:
        size = entry.dims[-1] if entry.name in TOKENS and entry.dims else -1
        if size not in (-1, length):
            yield model.finding(OWN_LENGTH, f"max_length is {length}, '{entry.name}' has the dims [{size}].", field)
    for network, name in networks(model):
        size = _input_length(network, name)
        if size not in (-1, length) and _is_free(model):
            sentence = f"max_length is {length}, '{name}' of '{network.name}' takes {size}."
            yield model.finding(LENGTH, sentence, field)


def _is_free(model: Model) -> bool:
    """Tell whether the tokenizer's own dims leave the length open; otherwise TG042 compares them with the network's."""
    return any(entry.name in TOKENS and entry.dims and entry.dims[-1] == -1 for entry in model.message.output)


def _input_length(network: Model, name: str) -> int:
    """Return the last size of a network's input, by its config or else its ONNX file; -1 when it is free."""
    size = next((entry.dims[-1] for entry in network.message.input if entry.name == name and entry.dims), -1)
    if size != -1 or network.backend != "onnxruntime":
        return int(size)
    for version in network.versions:
        try:
            shape = onnx.read(path_of(network, version)).inputs[name].shape
        except (OSError, onnx.OnnxError, KeyError):
            continue
        return shape[-1] if shape else -1
    return -1


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").rstrip().split("\n")
