"""Stands in for a text classifier, and does what its text says: for provoking every failure that a step can show."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """`sleep <s>`, `raise`, `error`, `refuse <code>`; any other text is positive."""

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)[0].decode()
        word, _, rest = text.partition(" ")
        if word == "sleep":
            time.sleep(float(rest))
        if word == "raise":
            raise RuntimeError(f"{__file__} failed")
        if word == "error":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"internal at {__file__}"))
        if word == "refuse":
            message = f"{rest}@preprocess: The item is refused."
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        if word == "parameters":
            text = json.dumps(json.loads(request.parameters() or "{}"))
        outputs = {
            "label": np.array([[text.encode() if word == "parameters" else b"positive", b"negative"]], object),
            "score": np.array([[0.75, 0.25]], np.float32),
            "token_count": np.array([[len(text)]], np.int32),
            "truncated": np.array([[False]]),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])
