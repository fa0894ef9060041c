"""The answers that one model of the repository must give, by its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from modelctl.errors import CommandError
from modelctl.models.configs import LABELS, TOKENIZER
from modelctl.models.spec import EnsembleSpec, ObjectDetection
from modelctl.models.steps import ImagePreprocess
from modelctl.reference import answers
from modelctl.reference.answers import Found
from modelctl.reference.pictures import Placement, prepare

Arrays = dict[str, npt.NDArray[Any]]
Run = Callable[[Arrays], Arrays]  # a network: its inputs by role -> its outputs by role
NOT_FINITE = "The network gives numbers that are not finite (NaN or infinity): fix it or export it again."


class Reference:
    """Computes the answers that a model must give.

    Args:
        spec: the model's spec.
        labels: one for each of the network's classes, in order.
        tokenizer: the file, for a text model.
        run: the network.

    """

    def __init__(self, spec: EnsembleSpec, labels: list[str], tokenizer: Path | None, run: Run) -> None:
        self.spec = spec
        self._labels = labels
        self._tokenizer = Tokenizer.from_file(str(tokenizer)) if tokenizer else None
        self._run = run

    @classmethod
    def of(cls, spec: EnsembleSpec, repository: Path) -> Reference:
        """Return the reference of a model in the repository, its network run by ONNX Runtime on the CPU."""
        network = repository / spec.network_name
        labels = (network / LABELS).read_text("utf-8").rstrip("\n").split("\n")
        tokenizer = None if isinstance(spec.preprocess, ImagePreprocess) else repository / f"{spec.name}_preprocess"
        run = onnx_run(network / "1" / "model.onnx", spec)
        return cls(spec, labels, tokenizer / TOKENIZER if tokenizer else None, run)

    def answer(self, item: bytes, given: Arrays | None = None) -> list[Found]:
        """Return what the model must answer to an encoded picture or a UTF-8 text, best first.

        `given` are inputs by role [1, ...] that replace the item's own: the network then runs on exactly these.
        """
        return self.read(*self.run(item, given))

    def run(self, item: bytes, given: Arrays | None = None) -> tuple[Arrays, Placement | None]:
        """Return the network's outputs for one item, without the batch, and where a picture lies in its tensor."""
        inputs, placement = self.inputs(item)
        inputs |= given or {}
        return {role: array[0] for role, array in self._run(inputs).items()}, placement

    def read(self, outputs: Mapping[str, npt.NDArray[Any]], placement: Placement | None) -> list[Found]:
        """Return the answer in one item's outputs, without the batch.

        Raises:
            CommandError: when a number is not finite.

        """
        if not all(np.isfinite(array).all() for array in outputs.values()):
            raise CommandError(NOT_FINITE)
        if isinstance(self.spec, ObjectDetection):
            assert placement is not None  # noqa: S101 - pictures have one
            return answers.boxes(outputs, self.spec.postprocess, placement, self._labels)
        return answers.ranking(outputs["logits"], self.spec.postprocess.activation, self._labels)

    def inputs(self, item: bytes) -> tuple[Arrays, Placement | None]:
        """Return the network's inputs [1, ...] for one item, and where a picture lies in its tensor."""
        settings = self.spec.preprocess
        if isinstance(settings, ImagePreprocess):
            tensor, placement = prepare(item, settings, self.spec.network.inputs["image"].dtype)
            return {"image": tensor}, placement
        assert self._tokenizer is not None  # noqa: S101 - text models have one
        self._tokenizer.enable_truncation(settings.max_length, direction=settings.truncation_side)
        self._tokenizer.no_padding()
        encoding = self._tokenizer.encode(item.decode())
        rows = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        dtypes = {"INT32": np.int32, "INT64": np.int64}
        return {
            role: np.array([rows[role]], dtypes[tensor.dtype]) for role, tensor in self.spec.network.inputs.items()
        }, None


def onnx_run(path: Path, spec: EnsembleSpec, threads: int = 2) -> Run:
    """Return an ONNX network as a function from inputs to outputs, both by role."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {role: tensor.name for role, tensor in spec.network.inputs.items()}
    outputs = {role: tensor.name for role, tensor in spec.network.outputs.items()}

    sizes = {entry.name: entry.shape for entry in session.get_inputs()}

    def run(inputs: Arrays) -> Arrays:
        given = {names[role]: _padded(array, sizes[names[role]]) for role, array in inputs.items()}
        try:
            made = session.run(list(outputs.values()), given)
        except Exception as error:
            raise CommandError(f"The network cannot be run: {' '.join(str(error).split())[:300]}") from error
        return dict(zip(outputs, made, strict=True))

    return run


def _padded(array: npt.NDArray[Any], shape: Sequence[object]) -> npt.NDArray[Any]:
    """Pad tokens [1, L] to the network's fixed length; return anything else unchanged."""
    if array.ndim != 2 or not isinstance(shape[1], int):
        return array
    return np.pad(array, ((0, 0), (0, shape[1] - array.shape[1])))
