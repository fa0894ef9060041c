"""A network's logits -> the topic; `stages.topic` does the work."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from stages.topic import topics

from stages.config import StepConfig
from stages.serving import refuser, serve

REFUSE = refuser(pb_utils, "postprocess")


class TritonPythonModel:
    """The step as Triton sees it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the labels."""
        config = StepConfig.of(args)
        self._names = config.labels(config.inputs["logits"].dims[-1])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return serve(requests, read=_read, compute=list, answer=self._answer, refuse=REFUSE)

    def _answer(self, request: Any, rows: list[Any]) -> Any:
        return pb_utils.InferenceResponse([pb_utils.Tensor("topic", topics(np.stack(rows), self._names))])


def _read(request: Any) -> list[Any]:
    return list(pb_utils.get_input_tensor_by_name(request, "logits").as_numpy())
