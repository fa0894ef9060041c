"""A network's logits -> the best labels; `stages.scores` does the work.

Input: `logits` [n, C]. Outputs, best first: `label` STRING [n, k], `class_id` INT32 [n, k], `score` FP32 [n, k].
k is the request's parameter `top_k`. Parameters of the config: `labels`, the labels file relative to the
model repository; `activation` (softmax, the default; sigmoid; none); `top_k`, default 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stages import scores
from stages.config import StepConfig
from stages.serving import RefusalError, parameters, refuser, serve

REFUSE = refuser(pb_utils, "postprocess")

Item = tuple[scores.Array, int]  # logits [C] and top_k


class TritonPythonModel:
    """One instance of the step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config; raises ConfigError when it is wrong, so that the model does not load."""
        config = StepConfig.of(args)
        labels = config.labels(config.inputs["logits"].dims[-1])
        self._labels = np.array([label.encode() for label in labels], np.object_)
        self._activation = config.choice("activation", scores.ACTIVATIONS, "softmax")
        self._top_k = min(config.integer("top_k", 1, 100_000, 5), len(labels))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, their logits as one array."""
        return serve(requests, read=self._read, compute=self._compute, answer=self._answer, refuse=REFUSE)

    def _read(self, request: Any) -> list[Item]:
        options = parameters(request.parameters())
        top_k = scores.whole_number(options, "top_k", self._top_k, 1, len(self._labels))
        logits = pb_utils.get_input_tensor_by_name(request, "logits").as_numpy()
        return [(row, top_k) for row in logits]

    def _compute(self, items: list[Item]) -> list[scores.Ranking | RefusalError]:
        rows = scores.probabilities([row for row, _ in items], self._activation)
        return [
            row if isinstance(row, RefusalError) else scores.best(row, top_k)
            for row, (_, top_k) in zip(rows, items, strict=True)
        ]

    def _answer(self, request: Any, rankings: list[scores.Ranking]) -> Any:
        class_ids = np.stack([ranking.class_ids for ranking in rankings])
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("label", self._labels[class_ids]),
                pb_utils.Tensor("class_id", class_ids),
                pb_utils.Tensor("score", np.stack([ranking.scores for ranking in rankings])),
            ]
        )
