"""A network of bytes is converted, built and checked as one of floats is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelctl.models import configs, spec
from modelctl.plans import command_lines, network
from modelctl.plans.command_lines import Files

PIXELS = """\
name: pixels
task: none
source: {origin: a test}
network:
  inputs: {image: {name: x, dtype: UINT8, dims: [32, 40, 3]}}
  outputs: {scores: {name: y, dims: [5]}}
  tensorrt: {precision: fp16}
"""


def test_a_network_of_bytes_is_converted_on_pixels(tmp_path: Path) -> None:
    """AutoCast measures ranges of numbers: bytes of 1 would hide those of a picture."""
    path = tmp_path / "pixels" / "model.yaml"
    path.parent.mkdir()
    path.write_text(PIXELS)
    model = spec.read(path)
    shapes = command_lines.profile(model)
    assert shapes["x"]["max"] == [8, 32, 40, 3]
    files = Files(*(tmp_path / name for name in ("onnx", "fp16", "plan", "layers", "cache", "samples")), ())
    network.write_samples(files, configs.network(model), shapes)
    (pixels,) = np.load(files.samples / "samples.npz").values()
    assert (pixels.dtype, pixels.shape) == (np.uint8, (1, 32, 40, 3))
    assert (pixels.min(), pixels.max()) == (0, 255)
