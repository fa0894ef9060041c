"""A network's logits -> all labels with their scores; `stages.scores` does the work.

Input: `logits` [n, C]. Outputs, best first: `label` STRING [n, C], `score` FP32 [n, C]. Parameters of the config:
`labels`, the labels file relative to the model repository; `activation` (softmax, the default; sigmoid; none).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stages import scores
from stages.config import StepConfig
from stages.serving import RefusalError, refuser, serve

REFUSE = refuser(pb_utils, "postprocess")


class TritonPythonModel:
    """One instance of the step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config; raises ConfigError when it is wrong, so that the model does not load."""
        config = StepConfig.of(args)
        labels = config.labels(config.inputs["logits"].dims[-1])
        self._labels = np.array([label.encode() for label in labels], np.object_)
        self._activation = config.choice("activation", scores.ACTIVATIONS, "softmax")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, their logits as one array."""
        return serve(requests, read=_read, compute=self._compute, answer=self._answer, refuse=REFUSE)

    def _compute(self, rows: list[scores.Array]) -> list[scores.Ranking | RefusalError]:
        made = scores.probabilities(rows, self._activation)
        return [row if isinstance(row, RefusalError) else scores.best(row, len(row)) for row in made]

    def _answer(self, request: Any, rankings: list[scores.Ranking]) -> Any:
        class_ids = np.stack([ranking.class_ids for ranking in rankings])
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("label", self._labels[class_ids]),
                pb_utils.Tensor("score", np.stack([ranking.scores for ranking in rankings])),
            ]
        )


def _read(request: Any) -> list[scores.Array]:
    return list(pb_utils.get_input_tensor_by_name(request, "logits").as_numpy())
