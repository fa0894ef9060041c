"""A TorchScript file -> an ONNX file, which `onnxfile` reads."""

from __future__ import annotations

import zipfile
from pathlib import Path

from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.sources import onnxfile
from modelctl.sources.draft import Draft, Order


def is_torchscript(path: Path) -> bool:
    """Tell whether a file of PyTorch is TorchScript: an archive that holds code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def draft(order: Order) -> Draft:
    """Export the file and return its draft. TorchScript does not hold the input's sizes, so an option gives them.

    Raises:
        CommandError: when the sizes are missing, when it cannot be loaded or exported, or as `onnxfile.draft`.

    """
    import torch

    from modelctl.sources import export

    if not order.options.size and not order.options.shape:
        raise CommandError(
            "TorchScript does not hold its input's sizes: give --size HEIGHT,WIDTH for pictures, "
            f"or --shape 2,3 for the sizes of one item.{_others(order)}"
        )
    try:
        network = torch.jit.load(order.source, map_location="cpu").eval()
    except Exception as error:
        raise CommandError(f"{order.source} is not a TorchScript file: {' '.join(str(error).split())[:200]}") from error
    sample = torch.rand(2, *_sizes(order), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            made = network(sample)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200]  # the lines before are TorchScript's traceback
            raise CommandError(f"The network does not take items of {_sizes(order)}: {reason}") from error
    count = len(made) if isinstance(made, tuple | list) else 1
    names = [f"OUTPUT__{number}" for number in range(count)]
    path = export.to_onnx(network, {"INPUT__0": sample}, dict.fromkeys(names), order.work, free={})
    made_draft = onnxfile.from_file(order, path, {"notes": ["Exported from TorchScript by PyTorch."]})
    networks.session(made_draft.network)
    if made_draft.spec.task == "none":
        made_draft.spec = made_draft.spec.model_copy(
            update={"network": made_draft.spec.network.model_copy(update={"torchscript": True})}
        )
        made_draft.extra["model.pt"] = Path(order.source)
    return made_draft


def _others(order: Order) -> str:
    """Return a sentence on the options that a network for pictures lacks too; empty where all are given."""
    names = ("resize", "scale", "mean", "std", "labels")
    lacks = [f"--{name}" for name in names if getattr(order.options, name) is None]
    return f" (Pictures also need {', '.join(lacks)}.)" if lacks else ""


def _sizes(order: Order) -> list[int]:
    if order.options.shape:
        return list(order.options.shape)
    height, width = order.options.size
    channels = 1 if order.options.channel_order == "GREY" else 3
    return [height, width, channels] if order.options.layout == "NHWC" else [channels, height, width]
