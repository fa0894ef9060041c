"""A step that ignores its input and answers at once, with ones in the shapes of its configuration.

`benchmarks.light` copies this file into a folder of backends: Triton runs it, and nothing here imports it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

LABEL = b"light"


class TritonPythonModel:
    """The step as Triton sees it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make one item of each output; a variable dimension becomes 1."""
        config = json.loads(args["model_config"])
        self._input = config["input"][0]["name"]
        self._ones = {output["name"]: _ones(output) for output in config["output"]}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Give every item of every request the same answer."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        items = pb_utils.get_input_tensor_by_name(request, self._input).shape()[0]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.repeat(one, items, axis=0)) for name, one in self._ones.items()]
        )


def _ones(output: dict[str, Any]) -> Any:
    shape = [1, *(max(1, int(size)) for size in output["dims"])]
    if output["data_type"] == "TYPE_STRING":
        return np.full(shape, LABEL, np.object_)
    return np.ones(shape, pb_utils.triton_string_to_numpy(output["data_type"]))
