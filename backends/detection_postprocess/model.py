"""A detector's raw head -> boxes in pixels of the upright picture; `stages.decoders` and `stages.boxes` do the work.

Inputs: the head (one tensor of any name, or those that `stages.decoders.FAMILIES` names), `geometry` FP32 [n, 4],
`image_size` INT32 [n, 2]. Outputs, best first: `box` FP32 [n, k, 4], `label` STRING [n, k], `class_id` INT32 [n, k],
`score` FP32 [n, k]; rows of fewer boxes are padded with box 0, label "", class_id -1 and score 0. Parameters of a
request: `score_threshold`, `iou_threshold`, `max_detections`, `classes`, `agnostic_nms`, `class_thresholds`.
Parameters of the config: `labels`, the labels
file relative to the model repository; the defaults of the request's options; and those of `stages.decoders.Head`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils

from stages import boxes
from stages.config import StepConfig
from stages.decoders import Head, Tensors
from stages.scores import Array, Floats
from stages.serving import RefusalError, pad, parameters, refuser, serve

REFUSE = refuser(pb_utils, "postprocess")


class Item(NamedTuple):
    """One picture's head, and the options of its request."""

    head: Tensors
    geometry: Floats
    image_size: Array
    options: boxes.Options


class TritonPythonModel:
    """One instance of the step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config; raises ConfigError when it is wrong, so that the model does not load."""
        config = StepConfig.of(args)
        self._head = Head.of(config)
        self._labels = config.labels(self._head.classes(config))
        self._names = np.array([label.encode() for label in self._labels], np.object_)
        self._options = boxes.Options.from_config(config, self._labels)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return serve(requests, read=self._read, compute=self._compute, answer=self._answer, refuse=REFUSE)

    def _read(self, request: Any) -> list[Item]:
        options = self._options.override(parameters(request.parameters()), self._labels)
        heads = {name: _array(request, name) for name in self._head.inputs}
        rows = zip(_array(request, "geometry"), _array(request, "image_size"), strict=True)
        return [
            Item({name: head[index] for name, head in heads.items()}, geometry, image_size, options)
            for index, (geometry, image_size) in enumerate(rows)
        ]

    def _compute(self, items: list[Item]) -> list[boxes.Boxes | RefusalError]:
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> boxes.Boxes | RefusalError:
        try:
            return boxes.detect(item.head, self._head, item.options, item.geometry, item.image_size, len(self._labels))
        except RefusalError as refusal:
            return refusal

    def _answer(self, request: Any, found: list[boxes.Boxes]) -> Any:
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("box", pad([one.boxes for one in found], 0)),
                pb_utils.Tensor("label", pad([self._names[one.class_ids] for one in found], b"")),
                pb_utils.Tensor("class_id", pad([one.class_ids for one in found], -1)),
                pb_utils.Tensor("score", pad([one.scores for one in found], 0)),
            ]
        )


def _array(request: Any, name: str) -> Array:
    array: Array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return array
