"""A checkpoint in the Hugging Face Hub's format -> a draft, with transformers and PyTorch.

    config.json --task--> model --export--> ONNX --check at other sizes--> draft
                          processor, tokenizer --> preparation of pictures and texts

requirements/export.txt lists the packages; serving does not need them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.reference.model import Arrays
from modelctl.sources import exclusive, export, processors
from modelctl.sources.draft import BOXES, HUB, PICTURES, TEXTS, Draft, Order, labels_for, refuse_idle, spec_of
from modelctl.sources.texts import text_draft

ARCHITECTURES = {
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSequenceClassification": "text-classification",
}
SOFTMAX_DETECTORS = ("detr", "yolos", "table-transformer")
"""Model types with a last class "no object", so scores are a softmax; others score each class by a sigmoid."""
IDLE = {
    "image-classification": (("shape", "layout", *BOXES, *TEXTS), "a checkpoint of a classifier of pictures"),
    "object-detection": (
        (
            *("shape", "layout", "decoder", "encoded", "strides", "box_unit", "iou_threshold", "activation"),
            *("box_format", "columns", "first_class", "bins", "anchors", "agnostic_nms"),
            *TEXTS,
        ),
        "a detector's checkpoint, which says how its head is read and suppresses no boxes",
    ),
    "text-classification": (("shape", "tokenizer", *PICTURES, *BOXES), "a checkpoint of a text classifier"),
}
"""By task: options without effect, and the kind of model that the refusal names."""
DEFAULT_LENGTH = 512
"""Maximum tokens where neither the tokenizer nor the network states a limit."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: its folder or repository (`place`), task, configuration and PyTorch model."""

    place: str
    task: str
    config: Any
    model: Any

    @property
    def labels(self) -> list[str]:
        """One label per class, by class id."""
        names = self.config.id2label
        return [
            " ".join(str(names.get(index, f"class_{index}")).split()) or f"class_{index}" for index in range(len(names))
        ]


def draft(order: Order) -> Draft:
    """Load, export and describe a checkpoint.

    Raises:
        CommandError: when it cannot be loaded, exported or served.

    """
    checkpoint = _load(order)
    refuse_idle(order, *IDLE[checkpoint.task])
    describe = _text if checkpoint.task == "text-classification" else _picture
    made = describe(order, checkpoint)
    made.notes.append(f"Exported from {type(checkpoint.model).__name__} by PyTorch, opset {export.OPSET}.")
    return made


def _load(order: Order) -> Checkpoint:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the libraries are imported
    import transformers

    transformers.logging.set_verbosity_error()
    _hide_progress()
    place = order.source.removeprefix(HUB)
    try:
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        processors.refuse_code(order.source, error)
        raise CommandError(_unreachable(order.source, error)) from error
    task = order.options.task or _task(config)
    auto = {
        "image-classification": transformers.AutoModelForImageClassification,
        "object-detection": transformers.AutoModelForObjectDetection,
        "text-classification": transformers.AutoModelForSequenceClassification,
    }.get(task)
    if auto is None:
        raise CommandError(f"A checkpoint can be served for {', '.join(ARCHITECTURES.values())}, not for '{task}'.")
    try:
        model, report = auto.from_pretrained(place, dtype="float32", output_loading_info=True, trust_remote_code=False)
    except Exception as error:
        processors.refuse_code(order.source, error)
        raise CommandError(f"{order.source} cannot be loaded for {task}: {_short(error)}") from error
    if report.get("missing_keys"):
        first = sorted(report["missing_keys"])[0]
        raise CommandError(f"{order.source} holds no weights for '{first}': it was not trained for {task}.")
    return Checkpoint(place, task, config, model.eval())


def _hide_progress() -> None:
    """Hide the progress bars of transformers for loading from disk; keep the hub's for downloads."""
    import huggingface_hub
    import transformers

    hidden = huggingface_hub.utils.are_progress_bars_disabled()
    transformers.logging.disable_progress_bar()
    if not hidden:
        huggingface_hub.utils.enable_progress_bars()


def _task(config: Any) -> str:
    named = ", ".join(config.architectures or ["nothing"])
    for ending, task in ARCHITECTURES.items():
        if any(name.endswith(ending) for name in config.architectures or []):
            return task
    raise CommandError(f"The checkpoint is for {named}: only {', '.join(ARCHITECTURES)} can be served.")


def _text(order: Order, checkpoint: Checkpoint) -> Draft:
    import torch

    config = checkpoint.config
    if config.problem_type == "regression" or config.num_labels < 1:
        raise CommandError("The checkpoint gives a number, not classes: it cannot be served as a classifier.")
    _require_activation(order, checkpoint)
    tokenizer, limit, side = processors.tokenizer(checkpoint.place, order.work)
    length = min(limit or DEFAULT_LENGTH, _positions(config) or DEFAULT_LENGTH)
    pad = config.pad_token_id or 0
    ids = torch.full((2, 9), 5 if config.vocab_size > 5 else 1)
    mask = torch.ones_like(ids)
    ids[0, 6:], mask[0, 6:] = pad, 0
    path = export.to_onnx(
        export.TextNetwork(checkpoint.model),
        {"input_ids": ids, "attention_mask": mask},
        {"logits": ()},
        order.work,
        free={"input_ids": {1: "length"}, "attention_mask": {1: "length"}},
    )
    model = networks.load(path)
    inputs, outputs = networks.ports(model)
    known = {
        "labels": checkpoint.labels,
        "license": _license(order, checkpoint.place),
        "pad_id": pad,
        "truncation_side": side,
        "activation": order.options.activation or _default_activation(config),
    }
    made = text_draft(order, model, inputs, outputs[0], length, tokenizer, known)
    made.original = _run(export.TextNetwork(checkpoint.model), ("input_ids", "attention_mask"), ("logits",))
    return made


def _require_activation(order: Order, checkpoint: Checkpoint) -> None:
    """Raise CommandError when neither the configuration nor the labels say whether a text has one label or several."""
    given = order.options.activation or checkpoint.config.problem_type or checkpoint.config.num_labels == 1
    if not given and not exclusive.is_settled(checkpoint.labels):
        raise CommandError(
            "The checkpoint's config.json has no problem_type, and its labels do not say whether a text may have "
            f"several: give {exclusive.ASK}. (transformers' pipeline would take softmax.)"
        )


def _positions(config: Any) -> int:
    """Return the network's number of token positions; 0 when its configuration does not state it."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 0)
    # RoBERTa and its relatives number positions from the padding id + 1.
    is_roberta = re.search(r"roberta|camembert|xlm-r|longformer|mpnet", config.model_type)
    return positions - config.pad_token_id - 1 if is_roberta and positions > 0 else positions


def _picture(order: Order, checkpoint: Checkpoint) -> Draft:
    how = processors.preprocess(checkpoint.place, order.options)
    detector = checkpoint.task == "object-detection"
    network = (export.DetectionNetwork if detector else export.ClassificationNetwork)(checkpoint.model)
    roles = ("logits", "boxes") if detector else ("logits",)
    sample = export.picture(how)
    free = {"pixel_values": {2: "height", 3: "width"}} if how.width is None else {}
    path = export.to_onnx(network, {"pixel_values": sample}, dict.fromkeys(roles, ()), order.work, free=free)
    made = networks.run(networks.session(path), {"pixel_values": sample[:1].numpy()})
    spec = spec_of(
        order,
        _license(order, checkpoint.place),
        task=checkpoint.task,
        preprocess=how,
        network={
            "inputs": {"image": {"name": "pixel_values"}},
            "outputs": {role: {"name": role, "dims": list(made[role].shape[1:])} for role in roles},
            "batching": {"max_batch_size": order.options.max_batch_size},
        },
        postprocess=_detection(order, checkpoint) if detector else _classification(order, checkpoint),
    )
    original = _run(network, ("image",), roles)
    labels = labels_for(order, len(checkpoint.labels), checkpoint.labels)
    return Draft(spec, path, labels, original=original)


def _classification(order: Order, checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    if config.problem_type == "regression":
        raise CommandError("The checkpoint gives a number, not classes: it cannot be served as a classifier.")
    activation = order.options.activation or _default_activation(config)
    return {"activation": activation, "top_k": min(5, len(checkpoint.labels))}


def _default_activation(config: Any) -> str:
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"


def _detection(order: Order, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options of the head with the defaults of transformers' own pipeline: its threshold, all queries."""
    softmax = checkpoint.config.model_type in SOFTMAX_DETECTORS
    queries = getattr(checkpoint.config, "num_queries", 0) or getattr(checkpoint.config, "num_detection_tokens", 100)
    return {
        "decoder": "detr",
        "activation": "softmax" if softmax else "sigmoid",
        "score_threshold": 0.5 if order.options.score_threshold is None else order.options.score_threshold,
        "max_detections": order.options.max_detections or min(queries, 1000),
    }


def _run(network: Any, parts: tuple[str, ...], roles: tuple[str, ...]) -> Callable[[Arrays], Arrays]:
    import torch

    def run(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            made = network(*(torch.from_numpy(inputs[part]) for part in parts))
        tensors = made if isinstance(made, tuple) else (made,)
        return {role: tensor.numpy() for role, tensor in zip(roles, tensors, strict=True)}

    return run


def _license(order: Order, place: str) -> str:
    """Return the licence from the user, else from the header of the checkpoint's card, else `unknown`."""
    if order.options.license:
        return str(order.options.license)
    card = Path(place) / "README.md"
    if not Path(place).is_dir():
        try:
            from huggingface_hub import hf_hub_download

            card = Path(hf_hub_download(place, "README.md"))
        except Exception:  # noqa: BLE001 - a card is optional
            return "unknown"
    head = card.read_text("utf-8", "replace")[:2000] if card.is_file() else ""
    found = re.search(r"^license:(?:[ \t]*|\n-[ \t]*)([^\s-]\S*)", head, re.MULTILINE)
    return found[1] if found else "unknown"


def _unreachable(source: str, error: Exception) -> str:
    if source.startswith(HUB):
        return (
            f"{source} cannot be fetched: {_short(error)} "
            "(On a machine without the hub: fetch the folder elsewhere and give its path.)"
        )
    return f"{source} is not a checkpoint that transformers can read: {_short(error)}"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
