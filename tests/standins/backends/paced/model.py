"""Stands in for a text classifier whose label is the text itself, at a pace that a test sets while it runs.

The file `pace` in the model's folder says how many seconds a call takes, `fault` what it does instead of answering:
`raise`, `crash` (its process ends) or `lie` (the label is another).
"""

import os
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self._folder = Path(args["model_repository"])

    def _said(self, name, default):
        try:
            return (self._folder / name).read_text().strip() or default
        except OSError:
            return default

    def execute(self, requests):
        time.sleep(float(self._said("pace", "0")))
        fault = self._said("fault", "")
        if fault == "raise":
            raise RuntimeError(f"{__file__} was told to fail")
        if fault == "crash":
            os._exit(1)
        return [self._answer(request, fault) for request in requests]

    def _answer(self, request, fault):
        text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)[0]
        outputs = {
            "label": np.array([[b"a lie" if fault == "lie" else text]], object),
            "score": np.array([[1]], np.float32),
            "token_count": np.array([[1]], np.int32),
            "truncated": np.array([[False]]),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])
