"""`modelctl add` on TorchScript: what is served is what PyTorch makes of the same tensor."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_files import labels, png, spec
from skimage import data

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

PICTURES = (data.astronaut(), data.coffee(), data.chelsea())
Add = Callable[..., Any]


class Network(torch.nn.Module):  # type: ignore[misc]
    """Pictures [N, 3, 32, 32] -> logits [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.convolution = torch.nn.Conv2d(3, 4, 8, stride=8)
        self.last = torch.nn.Linear(64, 5)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.last(torch.relu(self.convolution(pixels)).flatten(1))
        return logits


class Sum(torch.nn.Module):  # type: ignore[misc]
    """Numbers [N, 3] -> their sum and their double."""

    def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [N, 1] and [N, 3]."""
        return numbers.sum(1, keepdim=True), numbers * 2


def save(path: Path, network: Any, how: str, *shape: int) -> Path:
    """Write a network as TorchScript, traced or scripted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "trace":
            made = torch.jit.trace(network.eval(), torch.rand(1, *shape))
        else:
            made = torch.jit.script(network.eval())
        torch.jit.save(made, str(path))
    return path


@pytest.mark.parametrize(("how", "ending"), [("trace", "pt"), ("script", "torchscript")])
def test_a_classifier(command: Add, served: Any, tmp_path: Path, how: str, ending: str) -> None:
    """Traced or scripted, it is exported, batched, and answers as PyTorch does."""
    network = Network()
    path = save(tmp_path / f"net.{ending}", network, how, 3, 32, 32)
    scale = ("--scale", "1/255", "--mean", "0.5", "--std", "0.25")
    options = ("--size", "32", "32", "--resize", "stretch", *scale, "--labels", labels(tmp_path, 5))
    assert command("add", str(path), *options) == 0
    assert served.config("net_network").max_batch_size == 8
    for array in PICTURES:
        resized = np.asarray(Image.fromarray(array).resize((32, 32), Image.Resampling.BILINEAR))
        tensor = torch.from_numpy(((resized / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32))
        with torch.no_grad():
            expected = torch.softmax(network(tensor)[0], 0).numpy()
        assert expected.max() - expected.min() > 0.05
        answer = served.classify("net", png(array), 5)
        assert max(abs(score - expected[int(label.split()[1])]) for label, score in answer) <= 1e-3
        assert len(answer) == 5


def test_a_network_without_a_task_keeps_its_file(command: Add, served: Any, stack: Any, tmp_path: Path) -> None:
    """Tensors are numbered as Triton's PyTorch backend finds them, and that backend's configuration lies beside."""
    path = save(tmp_path / "sums.pt", Sum(), "script", 3)
    assert command("add", str(path), "--shape", "3", "--license", "MIT") == 0
    given = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    made = served.tensors("sums", {"INPUT__0": given}, ("OUTPUT__0", "OUTPUT__1"))
    assert made["OUTPUT__0"].tolist() == [[6], [15]]
    assert made["OUTPUT__1"].tolist() == (given * 2).tolist()
    folder = stack.models / "sums"
    assert (folder / "1" / "model.pt").read_bytes() == path.read_bytes()
    assert 'platform: "pytorch_libtorch"' in (folder / "configs" / "pytorch.pbtxt").read_text()
    assert spec(stack.models, "sums")["network"]["torchscript"] is True


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "does not hold its input's sizes: give --size HEIGHT,WIDTH for pictures, or --shape"),
        (("--size", "20", "20"), "The network does not take items of [3, 20, 20]"),
        (("--shape", "7"), "The network does not take items of [7]"),
    ],
)
def test_sizes_must_be_given_and_right(command: Any, tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    """The sentence says which option is missing or does not fit."""
    path = save(tmp_path / "net.pt", Network(), "trace", 3, 32, 32)
    result = command.run("add", str(path), *options)
    assert (result.code, sentence in result.sentence) == (1, True), result.err
