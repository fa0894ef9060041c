"""Asks a served tensor model what its network was asked in the trial, and compares the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from modelctl.embedded.running import reason
from modelctl.embedded.triton import TritonError
from modelctl.errors import CommandError
from modelctl.reference.served import TIMEOUT_S

Arrays = Mapping[str, npt.NDArray[Any]]
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Largest difference of two real numbers: of the larger one, and beside zero."""


def check(name: str, given: Arrays, expected: Arrays, port: int, *, values: bool) -> str:
    """Send one item to a served model; return what it answers, in words.

    Args:
        name: the model.
        given: its inputs, with the batch if it has one.
        expected: its outputs.
        port: of Triton's gRPC.
        values: whether to compare values; otherwise types and numbers of axes.

    Raises:
        CommandError: when the model fails, or answers otherwise than its network.

    """
    found = _ask(name, given, list(expected), f"127.0.0.1:{port}")
    different = [output for output, array in expected.items() if not _is_same(found[output], array, values)]
    if different:
        output = different[0]
        raise CommandError(
            f"The served model does not answer as its network does: '{output}' is {_words(found[output])} where the "
            f"network gives {_words(expected[output])}."
        )
    return ", ".join(f"{output} {_words(array)}" for output, array in found.items())


def _ask(name: str, given: Arrays, outputs: list[str], target: str) -> dict[str, npt.NDArray[Any]]:
    inputs = []
    for tensor, array in given.items():
        inputs.append(InferInput(tensor, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    client = InferenceServerClient(target, channel_args=[("grpc.enable_http_proxy", 0)])
    try:
        wanted = [InferRequestedOutput(output) for output in outputs]
        result = client.infer(name, inputs, outputs=wanted, client_timeout=TIMEOUT_S)
    except InferenceServerException as error:
        raise CommandError(f"The served model fails: {reason(TritonError(error.message()))}") from error
    finally:
        client.close()
    return {output: result.as_numpy(output) for output in outputs}


def _is_same(found: npt.NDArray[Any], expected: npt.NDArray[Any], values: bool) -> bool:
    if found.dtype != expected.dtype or found.ndim != expected.ndim:
        return False
    if not values:
        return True
    if found.shape != expected.shape:
        return False
    if found.dtype.kind in "fc":
        return bool(np.allclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))
    return bool(np.array_equal(found, expected))


def _words(array: npt.NDArray[Any]) -> str:
    text = f"{np_to_triton_dtype(array.dtype)} {list(array.shape)}"
    if not array.size or array.dtype.kind not in "fiu":
        return text
    return f"{text} from {array.min():.4g} to {array.max():.4g}"
