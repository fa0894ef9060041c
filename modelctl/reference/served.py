"""Sends items to a served model as the gateway does: over gRPC, one by one."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

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
from modelctl.reference import limits
from modelctl.reference.agreement import PIXELS, agreement
from modelctl.reference.answers import Found
from modelctl.reference.model import Arrays, Reference
from modelctl.reference.samples import inputs

TIMEOUT_S = 60


class Served:
    """A connection to one Triton."""

    def __init__(self, target: str) -> None:
        # A prepared picture has more bytes than gRPC takes by default: 3 x 640 x 640 of FP32 are 4.9 MB.
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
        self._client = InferenceServerClient(target, channel_args=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._client.close()

    def answer(self, spec: EnsembleSpec, item: bytes) -> list[Found]:
        """Return what the model answers to an encoded picture or a UTF-8 text, best first.

        Raises:
            TritonError: with Triton's message.

        """
        options = {"top_k": _classes(spec)} if isinstance(spec, ImageClassification) else {}
        result = self._ask(spec.name, spec, item, list(TASKS[spec.task].answer), options)
        return _found({name: array[0] for name, array in result.items()})

    def tensor(self, spec: EnsembleSpec, item: bytes) -> npt.NDArray[Any]:
        """Return the tensor [1, ...] that the served preprocess step makes of an encoded picture.

        Raises:
            TritonError: with Triton's message.

        """
        return self._ask(f"{spec.name}_preprocess", spec, item, ["tensor"], {})["tensor"]

    def _ask(
        self, model: str, spec: EnsembleSpec, item: bytes, outputs: list[str], options: dict[str, int]
    ) -> dict[str, npt.NDArray[Any]]:
        given = InferInput(TASKS[spec.task].input, [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[item]], np.object_))
        try:
            result = self._client.infer(
                model,
                [given],
                outputs=[InferRequestedOutput(name) for name in outputs],
                parameters=options or None,
                client_timeout=TIMEOUT_S,
            )
        except InferenceServerException as error:
            raise TritonError(error.message()) from error
        return {name: result.as_numpy(name) for name in outputs}


class Pair(NamedTuple):
    """A served answer, the reference's on the same input of the network, and how far their own inputs are apart."""

    served: list[Found]
    expected: list[Found]
    levels: float


def pair(served: Served, reference: Reference, item: bytes) -> Pair:
    """Ask a served model and its reference about one item.

    The reference runs the network on the tensor that the served step has made, and the two tensors are compared by
    themselves: a dynamically quantised network turns a difference of 0.0000004 in its input into 0.03 in a score.

    Raises:
        TritonError: with Triton's message.

    """
    spec = reference.spec
    answer = served.answer(spec, item)
    if not isinstance(spec.preprocess, ImagePreprocess):
        return Pair(answer, reference.answer(item), 0.0)
    tensor = served.tensor(spec, item)
    levels = limits.levels(tensor, reference.inputs(item)[0]["image"], spec.preprocess)
    given: Arrays = {"image": tensor}
    return Pair(answer, reference.answer(item, given), levels)


def check(spec: EnsembleSpec, repository: Path, port: int) -> None:
    """Send our samples to the served model, and compare its answers with the reference's.

    Raises:
        CommandError: when the model fails, or its answers differ.

    """
    reference = Reference.of(spec, repository)
    items = inputs(isinstance(spec.preprocess, ImagePreprocess), None, None)
    with Served(f"127.0.0.1:{port}") as served:
        try:
            pairs = {name: pair(served, reference, item) for name, item in items.items()}
        except TritonError as error:
            raise CommandError(f"The served model fails: {reason(error)}") from error
    levels, limit = max(one.levels for one in pairs.values()), limits.level_limit(spec.preprocess)
    if levels > limit:
        raise CommandError(
            f"The served model prepares pictures otherwise than its reference, by {levels:.3g} grey levels where "
            f"{limit:g} may be: its preprocess step is not that of its model.yaml."
        )
    score = limits.score_limit(repository / spec.network_name / "1" / "model.onnx")
    found = agreement({name: (one.served, one.expected) for name, one in pairs.items()}, spec, score)
    if found.score > score or found.pixels > PIXELS or found.missing:
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
