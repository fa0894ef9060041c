"""Checkpoints that `modelctl add` refuses: one sentence says what they lack. No server is needed to read them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ways_out import read, refusal

from modelctl.errors import CommandError
from modelctl.sources import export, hub

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import checkpoints
    import torch

pytestmark = pytest.mark.filterwarnings("ignore")
"""Of other people's libraries, which warn when they read a checkpoint."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes a checkpoint once and returns its folder."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(family: str) -> Path:
        place = folder / family
        if not place.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                {**checkpoints.PICTURES, **checkpoints.TEXT}[family](place)
        return place

    return make


@pytest.fixture
def changed(made: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that returns a copy of a checkpoint with changes of one of its files."""

    def change(family: str, file: str = "config.json", **keys: Any) -> Path:
        place = tmp_path / family
        if not place.exists():
            shutil.copytree(made(family), place)
        content = json.loads((place / file).read_text())
        (place / file).write_text(json.dumps(content | keys))
        return place

    return change


PROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("family", "keys", "sentence"),
    [
        (
            "vit",
            {"architectures": ["ViTForMaskedImageModeling"]},
            "The checkpoint is for ViTForMaskedImageModeling: only ForImageClassification, ForObjectDetection, "
            "ForSequenceClassification can be served.",
        ),
        (
            "vit",
            {"architectures": None},
            "The checkpoint is for nothing: only ForImageClassification, ForObjectDetection, ",
        ),
        (
            "vit",
            {"problem_type": "regression"},
            "The checkpoint gives a number, not classes: it cannot be served as a classifier.",
        ),
        (
            "bert",
            {"problem_type": "regression"},
            "The checkpoint gives a number, not classes: it cannot be served as a classifier.",
        ),
        (
            "vit",
            {"file": PROCESSOR, "do_resize": False},
            "The checkpoint does not resize its pictures: give --size HEIGHT,WIDTH.",
        ),
        (
            "vit",
            {"file": PROCESSOR, "size": {"longest_edge": 64}},
            "Pictures of size {'longest_edge': 64} cannot be prepared here: give --size HEIGHT,WIDTH.",
        ),
        (
            "vit",
            {
                "file": PROCESSOR,
                "size": {"height": 64, "width": 32},
                "do_center_crop": True,
                "crop_size": {"height": 32, "width": 32},
            },
            "Pictures of size {'height': 64, 'width': 32}, cropped to {'height': 32, 'width': 32} cannot be prepared",
        ),
        (
            "vit",
            {"file": PROCESSOR, "image_mean": [0.5] * 3, "image_std": [1e9] * 3},
            "The checkpoint's processor gives black and white the same values.",
        ),
    ],
)
def test_what_a_checkpoint_says_of_itself(
    changed: Callable[..., Path], tmp_path: Path, family: str, keys: dict[str, Any], sentence: str
) -> None:
    """Its task, its problem and its pictures decide."""
    assert sentence in refusal(tmp_path, changed(family, **keys))


def test_tasks_that_it_is_not_for(made: Callable[[str], Path], tmp_path: Path) -> None:
    """Another architecture, tensors, and weights of a head that were never trained."""
    place = made("vit")
    said = refusal(tmp_path, place, "--task", "object-detection")
    assert said.startswith(f"{place} cannot be loaded for object-detection: Unrecognized configuration class")
    said = refusal(tmp_path, place, "--task", "none")
    assert said == (
        "A checkpoint can be served for image-classification, object-detection, text-classification, not for 'none'."
    )


def test_weights_that_are_missing(made: Callable[[str], Path], tmp_path: Path) -> None:
    """The head of a network that was trained for something else would be drawn by chance."""
    from safetensors.torch import load_file, save_file

    place = tmp_path / "vit"
    shutil.copytree(made("vit"), place)
    weights = load_file(place / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    said = refusal(tmp_path, place)
    assert said == f"{place} holds no weights for 'classifier.weight': it was not trained for image-classification."


def test_a_recipe_that_contradicts_itself(made: Callable[[str], Path], tmp_path: Path) -> None:
    """The key that is missing is named, and with it the checkpoint is taken."""
    crop = (made("vit"), "--resize", "shortest_edge_center_crop")
    said = refusal(tmp_path, *crop)
    assert said.startswith("The checkpoint's pictures cannot be prepared here: ")
    assert "resize_to: shortest_edge_center_crop, stretch_center_crop and shortest_edge need it" in said
    assert read(tmp_path, *crop, "--resize-to", "72").spec.preprocess.resize_to == 72


def test_no_recipe_at_all(made: Callable[[str], Path], tmp_path: Path) -> None:
    """The sentence shows one in full."""
    place = tmp_path / "vit"
    shutil.copytree(made("vit"), place)
    (place / PROCESSOR).unlink()
    said = refusal(tmp_path, place)
    assert said.startswith("The checkpoint has no preprocessor_config.json: give ")
    assert "--scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 or other values." in said


def test_a_processor_that_does_more_than_its_file_says(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photographs tell; the options that are proposed are believed. (The processor's way is played.)"""
    import transformers

    theirs = transformers.ViTImageProcessorPil.__call__

    def turned(self: Any, images: Any, **options: Any) -> Any:
        made = theirs(self, images, **options)
        made["pixel_values"] = np.asarray(made["pixel_values"])[..., ::-1]
        return made

    monkeypatch.setattr(transformers.ViTImageProcessorPil, "__call__", turned)
    said = refusal(tmp_path, made("vit"))
    assert said == (
        "The checkpoint's ViTImageProcessorPil prepares pictures in an unknown way: give --size, --resize, --mean and "
        "--std."
    )
    own = ("--size", "64", "--resize", "stretch", "--mean", "0.5", "--std", "0.5")
    assert read(tmp_path, made("vit"), *own).spec.preprocess.width == 64


def test_a_tokenizer_that_is_not_of_the_library(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is written in Python has no tokenizer.json. (It is played.)"""
    import transformers

    def slow(*_: object, **__: object) -> Any:
        raise AttributeError("'SlowTokenizer' object has no attribute 'backend_tokenizer'")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", slow)
    said = refusal(tmp_path, made("bert"))
    assert said.startswith("The checkpoint has no tokenizer that can be served (tokenizer.json): 'SlowTokenizer' ")


def test_more_tokens_than_a_checkpoint_reads(made: Callable[[str], Path], tmp_path: Path) -> None:
    """Its own limit stands in the sentence."""
    said = refusal(tmp_path, made("bert"), "--max-length", "65")
    assert said == "The network reads 64 tokens at most, --max-length is 65."
    assert read(tmp_path, made("bert"), "--max-length", "64").spec.preprocess.max_length == 64


def test_a_repository_that_the_hub_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library says of it, and the way round. (That the hub answers is played.)"""
    monkeypatch.setattr(hub, "require", lambda *_: None)
    said = refusal(tmp_path, "hf:nobody/nothing-of-this-name")
    assert said.startswith("hf:nobody/nothing-of-this-name cannot be fetched: ")
    assert said.endswith("(On a machine without the hub: fetch the folder elsewhere and give its path.)")


class Chance(torch.nn.Module):  # type: ignore[misc]
    """Adds a number of chance, so that no graph answers alike."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return [N, 3]."""
        return numbers + torch.rand(1) + len(numbers)


def test_a_network_that_no_exporter_takes(tmp_path: Path) -> None:
    """The reason of each exporter; a graph of other answers is one."""
    with pytest.raises(CommandError) as caught:
        export.to_onnx(Chance(), {"numbers": torch.rand(2, 3)}, {"made": ()}, tmp_path, free={})
    said = str(caught.value)
    assert said.startswith(
        "The network cannot be exported to ONNX. TorchScript: its output 'made' differs for 1 items "
    )
    assert " torch.export: " in said
