"""Stands in for any network: gives its first input back, slowly when told to, and writes down what it was asked."""

import json
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Parameter `sleep`: seconds a batch. Each execution adds a line to `calls.log` in the model's folder."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self._sleep = float(parameters.get("sleep", 0))
        self._log = Path(args["model_repository"]) / "calls.log"
        self._input = config["input"][0]["name"]
        self._outputs = [output["name"] for output in config["output"]]

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        firsts = [str(array.reshape(-1)[0]) for array in arrays]
        asked = [sorted(request.requested_output_names()) for request in requests]
        with self._log.open("a") as log:
            log.write(json.dumps({"inputs": firsts, "asked": asked, "made": self._outputs}) + "\n")
        time.sleep(self._sleep)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name in self._outputs]) for array in arrays
        ]
