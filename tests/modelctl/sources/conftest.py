"""One stack that serves next to nothing, for models to be added to; each test takes its own out again."""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient import grpc as triton

from modelctl import __main__ as modelctl

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
CLOSED = "1"
"""A port that nobody listens on: `modelctl add` then waits for no gateway."""


@pytest.fixture(scope="session")
def stack(make_stack: Callable[..., Any]) -> Any:
    """Return the stack that all of these tests share, once it answers."""
    return make_stack(("minilm_sentiment", "simple_net"), test_models=False).share()


@dataclass
class Result:
    """What a command left: its exit code and its last words."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What the command says of its failure, the last line but for its name."""
        return self.err.rstrip().rpartition("\n")[2].removeprefix("modelctl: ")


@dataclass
class Command:
    """`modelctl`, run in this process, on the stack's repository and Triton."""

    models: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, gateway: bool = False) -> int:
        """Run; return the exit code. Without `gateway` it does not wait until the gateway serves what was added."""
        return self.run(*arguments, gateway=gateway).code

    def run(self, *arguments: str, gateway: bool = False) -> Result:
        """Run, and return what it said as well."""
        self.monkeypatch.setattr(sys, "argv", ["modelctl", *arguments, "--models", str(self.models)])
        if not gateway:
            self.monkeypatch.setenv("GATEWAY_PORT", CLOSED)
        self.capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                code = modelctl.main()
            except SystemExit as error:  # argparse's own refusals
                code = int(str(error.code))
        if not gateway:
            self.monkeypatch.setenv("GATEWAY_PORT", self.environment["GATEWAY_PORT"])
        said = self.capsys.readouterr()
        return Result(code, said.out, said.err)


@pytest.fixture
def command(
    stack: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., int]]:
    """Return what runs modelctl; what it added is removed at the end."""
    for name, value in stack.environment().items():
        if name not in os.environ or name.startswith(("GATEWAY_", "TRITON_")):
            monkeypatch.setenv(name, value)
    before = set(stack.models.iterdir())
    yield Command(stack.models, monkeypatch, capsys, stack.environment())
    added = sorted(set(stack.models.iterdir()) - before)
    with closing(stack.control()) as control:
        for folder in added:
            control.unload(folder.name)
            shutil.rmtree(folder)


@dataclass
class Served:
    """The stack, asked over gRPC as a gateway would, and over HTTP."""

    stack: Any

    def classify(self, model: str, picture: bytes, top_k: int) -> list[tuple[str, float]]:
        """Return labels and scores of an encoded picture, best first."""
        made = self._ask(model, "image", picture, ("label", "score"), {"top_k": top_k})
        return [(label.decode(), float(score)) for label, score in zip(*made, strict=True)]

    def detect(self, model: str, picture: bytes) -> list[tuple[str, float, list[float]]]:
        """Return labels, scores and boxes of an encoded picture, best first."""
        made = self._ask(model, "image", picture, ("label", "score", "box"), {})
        return [(label.decode(), float(score), box.tolist()) for label, score, box in zip(*made, strict=True)]

    def read(self, model: str, text: str) -> dict[str, float]:
        """Return a text's scores by label."""
        made = self._ask(model, "text", text.encode(), ("label", "score"), {})
        return {label.decode(): float(score) for label, score in zip(*made, strict=True)}

    def _ask(self, model: str, name: str, item: bytes, outputs: tuple[str, ...], parameters: dict[str, Any]) -> Any:
        given = triton.InferInput(name, [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[item]], np.object_))
        wanted = [triton.InferRequestedOutput(output) for output in outputs]
        with triton.InferenceServerClient(f"127.0.0.1:{self.stack.grpc}") as client:
            result = client.infer(model, [given], outputs=wanted, parameters=parameters, client_timeout=30)
        return [result.as_numpy(output)[0] for output in outputs]

    def tensors(self, model: str, given: dict[str, Any], outputs: tuple[str, ...]) -> dict[str, Any]:
        """Return what a tensor model makes of arrays."""
        kinds = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "int32": "INT32", "uint8": "UINT8"}
        inputs = []
        for name, array in given.items():
            inputs.append(triton.InferInput(name, list(array.shape), kinds[array.dtype.name]))
            inputs[-1].set_data_from_numpy(array)
        with triton.InferenceServerClient(f"127.0.0.1:{self.stack.grpc}") as client:
            result = client.infer(model, inputs, client_timeout=30)
        return {name: result.as_numpy(name) for name in outputs}

    def config(self, model: str) -> Any:
        """Return the configuration that Triton serves a model with."""
        with triton.InferenceServerClient(f"127.0.0.1:{self.stack.grpc}") as client:
            return client.get_model_config(model).config

    def index(self) -> dict[str, str]:
        """Return the state of every model that Triton has tried to serve, by name."""
        with closing(self.stack.control()) as control:
            return {model.name: model.state for model in control.states().values()}

    def post(self, route: str, model: str, **request: Any) -> dict[str, Any]:
        """Ask the gateway, which notices a new model within 5 s."""
        params = {"model": model, **request.pop("params", {})}
        with self.stack.client() as client:
            for _ in range(100):
                response: httpx.Response = client.post(f"/v1/{route}", params=params, **request)
                if response.status_code != 404:
                    break
                time.sleep(0.1)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture
def served(stack: Any) -> Served:
    """Return what asks the stack."""
    return Served(stack)
