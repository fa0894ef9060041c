"""Sends items to a served model as the gateway does: over gRPC, one by one."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from modelctl.embedded.running import reason
from modelctl.embedded.triton import TritonError
from modelctl.errors import CommandError
from modelctl.models.spec import EnsembleSpec, ImageClassification
from modelctl.models.steps import ImagePreprocess
from modelctl.models.tasks import TASKS
from modelctl.reference.agreement import PIXELS, SCORE, agreement
from modelctl.reference.answers import Found
from modelctl.reference.model import Reference
from modelctl.reference.samples import inputs

TIMEOUT_S = 60


class Served:
    """A connection to one Triton."""

    def __init__(self, target: str) -> None:
        self._client = InferenceServerClient(target, channel_args=[("grpc.enable_http_proxy", 0)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._client.close()

    def answer(self, spec: EnsembleSpec, item: bytes) -> list[Found]:
        """Return what the model answers to an encoded picture or a UTF-8 text, best first.

        Raises:
            TritonError: with Triton's message.

        """
        task = TASKS[spec.task]
        given = InferInput(task.input, [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[item]], np.object_))
        options = {"top_k": _classes(spec)} if isinstance(spec, ImageClassification) else None
        try:
            result = self._client.infer(
                spec.name,
                [given],
                outputs=[InferRequestedOutput(name) for name in task.answer],
                parameters=options,
                client_timeout=TIMEOUT_S,
            )
        except InferenceServerException as error:
            raise TritonError(error.message()) from error
        return _found({name: result.as_numpy(name)[0] for name in task.answer})


def check(spec: EnsembleSpec, repository: Path, port: int) -> None:
    """Send our samples to the served model, and compare its answers with the reference's.

    Raises:
        CommandError: when the model fails, or its answers differ.

    """
    reference = Reference.of(spec, repository)
    items = inputs(isinstance(spec.preprocess, ImagePreprocess), None, None)
    with Served(f"127.0.0.1:{port}") as served:
        try:
            pairs = {name: (served.answer(spec, item), reference.answer(item)) for name, item in items.items()}
        except TritonError as error:
            raise CommandError(f"The served model fails: {reason(error)}") from error
    found = agreement(pairs, spec)
    if found.score > SCORE or found.pixels > PIXELS or found.missing:
        raise CommandError(f"The served model does not answer as its network does ({found.sentence()}).")


def _classes(spec: EnsembleSpec) -> int:
    return int((spec.network.outputs["logits"].dims or [1])[-1])


def _found(tensors: dict[str, npt.NDArray[Any]]) -> list[Found]:
    count = len(tensors["label"])
    ids = tensors.get("class_id", np.full(count, -1))
    places = tensors.get("box", np.empty((count, 0)))
    return [
        Found(label.decode("utf-8", "replace"), int(class_id), float(score), tuple(map(float, box)))
        for label, class_id, score, box in zip(tensors["label"], ids, tensors["score"], places, strict=True)
    ]
