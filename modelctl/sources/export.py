"""PyTorch -> ONNX with a free batch, checked at sizes other than those it was traced with.

Two exporters are tried. The one through TorchScript comes first: it is ten times faster and keeps the batch free in
every family that it can read, while `torch.export` fixes it in some (RT-DETR, D-FINE). A network that neither can
export is refused.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.pictures import prepare
from modelctl.reference.samples import SAMPLES

OPSET = 17
LARGEST = 2**31
"""Maximum bytes of an ONNX file."""
TOO_LARGE = (
    "export it yourself, in FP16 or with its weights beside the ONNX file (torch.onnx.export with external_data=True), "
    "and add that file."
)
Free = Mapping[str, Mapping[int, str]]


class ClassificationNetwork(torch.nn.Module):  # type: ignore[misc]
    """Pictures -> logits."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C]."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class DetectionNetwork(torch.nn.Module):  # type: ignore[misc]
    """Pictures -> logits and boxes."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [N, Q, C] and boxes [N, Q, 4]."""
        made = self.model(pixel_values=pixel_values)
        return made.logits, made.pred_boxes


class TextNetwork(torch.nn.Module):  # type: ignore[misc]
    """Tokens -> logits."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C]."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def picture(how: ImagePreprocess) -> torch.Tensor:
    """Return two prepared sample pictures of equal size, [2, ...]."""
    data = [prepare((SAMPLES / name).read_bytes(), how, "FP32")[0] for name in ("coffee.jpg", "astronaut.jpg")]
    same = data[0].shape == data[1].shape
    return torch.from_numpy(np.concatenate(data if same else [data[0], data[0][..., ::-1]]).copy())


def to_onnx(
    network: torch.nn.Module,
    sample: Mapping[str, torch.Tensor],
    outputs: Mapping[str, object],
    work: Path,
    *,
    free: Free,
) -> Path:
    """Export a network and check the result.

    Args:
        network: takes the sample's tensors, in their order.
        sample: two items for each input.
        outputs: the outputs' names as keys, in their order.
        work: a folder for the file.
        free: by input, the names of the axes besides the batch that may have any size.

    Raises:
        CommandError: when the network is too large, or no exporter makes a graph with the network's answers.

    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))
    if size >= LARGEST:
        raise CommandError(f"The network's weights of {size / 1e9:.1f} GB do not fit into one ONNX file: {TOO_LARGE}")
    reasons = []
    for exporter in (_by_torchscript, _by_export):
        path = work / "exported.onnx"
        try:
            with _quiet():
                exporter(network.eval(), dict(sample), list(outputs), path, free)
            _check(network, sample, list(outputs), path, free)
        except Exception as error:  # noqa: BLE001 - exporters raise errors of many types
            reasons.append(" ".join(str(error).split())[:200])
            continue
        return path
    raise CommandError(f"The network cannot be exported to ONNX. TorchScript: {reasons[0]} torch.export: {reasons[1]}")


def _by_torchscript(
    network: torch.nn.Module, sample: dict[str, torch.Tensor], outputs: list[str], path: Path, free: Free
) -> None:
    axes = {name: {0: networks.BATCH, **free.get(name, {})} for name in (*sample, *outputs)}
    torch.onnx.export(
        network,
        tuple(sample.values()),
        str(path),
        input_names=list(sample),
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )


def _by_export(
    network: torch.nn.Module, sample: dict[str, torch.Tensor], outputs: list[str], path: Path, free: Free
) -> None:
    names = {
        name: torch.export.Dim(name) for name in {networks.BATCH, *(n for axes in free.values() for n in axes.values())}
    }
    shapes = {
        name: {0: names[networks.BATCH], **{axis: names[of] for axis, of in free.get(name, {}).items()}}
        for name in sample
    }
    torch.onnx.export(
        network,
        tuple(sample.values()),
        str(path),
        input_names=list(sample),
        output_names=outputs,
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
        external_data=False,
    )


def _check(
    network: torch.nn.Module, sample: Mapping[str, torch.Tensor], outputs: list[str], path: Path, free: Free
) -> None:
    """Compare the graph with the network for one item, for three, and with longer free axes."""
    session = networks.session(path)
    for change in _changes(free):
        inputs = {name: change(name, tensor) for name, tensor in sample.items()}
        with torch.no_grad():
            made = network(*inputs.values())
        expected = [tensor.numpy() for tensor in (made if isinstance(made, tuple) else (made,))]
        found = networks.run(session, {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, values in zip(outputs, expected, strict=True):
            if found[name].shape != values.shape or not _close(found[name], values):
                raise CommandError(f"its output '{name}' differs for {len(next(iter(inputs.values())))} items")


def _close(found: Any, expected: Any) -> bool:
    return bool(np.abs(found - expected).max() <= 1e-3 * max(1.0, float(np.abs(expected).max())))


def _changes(free: Free) -> list[Callable[[str, torch.Tensor], torch.Tensor]]:
    def longer(name: str, tensor: torch.Tensor) -> torch.Tensor:
        for axis in free.get(name, {}):
            tensor = torch.cat([tensor, tensor], dim=axis)
        return tensor

    return [
        lambda _, tensor: tensor[:1],
        lambda _, tensor: torch.cat([tensor, tensor[:1]]),
        *([longer] if free else []),
    ]


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the exporters' output, warnings and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
