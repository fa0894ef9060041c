"""Encoded images or raw pixels -> the tensor of a vision network; `stages.pictures` and `stages.imaging` do the work.

Parameters of the config: see `stages.recipe.Recipe`. Input: `image` STRING [n, 1]. Outputs, as far as the config lists
them: `image_size` INT32 [n, 2] (width and height of the upright picture) and `geometry` FP32 [n, 4] (scale_x, scale_y,
pad_x, pad_y). The third output, of any name, is the tensor: FP32 or FP16, or UINT8 for networks that normalise by
themselves.

Each request is decoded on its own thread and answered as soon as it is done (`stages.workers`), or when its deadline
passes: Triton's request parameter `timeout`, in microseconds.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stages import imaging, pictures, serving, workers
from stages.config import ConfigError, StepConfig

REFUSE = serving.refuser(pb_utils, "preprocess")

DEFAULT_TIMEOUT_S = 60.0  # for requests without a timeout

Item = tuple[bytes, dict[str, Any], float]  # the input, its request's parameters, and its deadline by time.monotonic
Result = dict[str, np.typing.NDArray[Any]]  # outputs by name, without the batch dimension


class TritonPythonModel:
    """One instance of the step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config; raises ConfigError when it is wrong, so that the model does not load."""
        config = StepConfig.of(args)
        self._pictures = pictures.Pictures(config.parameters)
        self._recipe = self._pictures.recipe
        self._listed = frozenset(config.outputs)
        self._tensor, tensor = next(
            item for item in config.outputs.items() if item[0] not in ("image_size", "geometry")
        )
        if tensor.dims != self._recipe.shape:
            raise ConfigError(
                f"The parameters give tensors of shape {self._recipe.shape}, but the output's dims are {tensor.dims}."
            )
        if tensor.data_type not in imaging.DATA_TYPES:
            raise ConfigError(
                f"The output's data type must be one of {', '.join(imaging.DATA_TYPES)}, not {tensor.data_type}."
            )
        self._type = imaging.DATA_TYPES[tensor.data_type]
        if self._type is np.uint8 and not self._recipe.is_identity:
            raise ConfigError("A UINT8 output is not normalised: scale must be 1, mean 0 and std 1.")
        self._workers = workers.Workers()

    def execute(self, requests: list[Any]) -> None:
        """Answer each request through its own response sender, as soon as it is done."""
        self._workers.run([partial(self._serve, request, request.get_response_sender()) for request in requests])

    def finalize(self) -> None:
        """End the threads and processes, if `initialize` got far enough to start any."""
        if hasattr(self, "_workers"):
            self._workers.close()
            self._pictures.close()

    def _serve(self, request: Any, sender: Any) -> None:
        (response,) = serving.serve([request], read=_read, compute=self._compute, answer=self._answer, refuse=REFUSE)
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _compute(self, items: list[Item]) -> list[Result | serving.RefusalError]:
        return [self._one_or_refusal(*item) for item in items]

    def _one_or_refusal(self, data: bytes, options: dict[str, Any], deadline: float) -> Result | serving.RefusalError:
        try:
            prepared = self._pictures.prepare(data, options, deadline)
        except serving.RefusalError as refusal:
            return refusal
        make = imaging.arrange if self._type is np.uint8 else imaging.normalise
        made = {
            self._tensor: make(prepared.pixels, self._recipe).astype(self._type, copy=False),
            "image_size": np.array(prepared.size, np.int32),
            "geometry": np.array(prepared.geometry, np.float32),
        }
        return {name: array for name, array in made.items() if name in self._listed}

    def _answer(self, request: Any, results: list[Result]) -> Any:
        names = results[0]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.stack([result[name] for result in results])) for name in names]
        )


def _read(request: Any) -> list[Item]:
    options = serving.parameters(request.parameters())
    deadline = time.monotonic() + (request.timeout() / 1e6 or DEFAULT_TIMEOUT_S)
    images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
    return [(data, options, deadline) for data in images.reshape(-1)]
