"""The recipes: each is of a form that `modelctl add` takes, and those that can run here do.

`resnet50` and `finbert` fetch from a hub: here a small checkpoint of the same kind lies in the working folder at the
repository's name, where transformers looks first. `yolo11n` needs Ultralytics, for which a package of the tests stands
in. `rf_detr` and `rt_detr` are only read: test_checkpoints.py adds checkpoints of their families.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from ruamel.yaml import YAML
from sample_files import png, spec
from skimage import data
from test_ultralytics import METADATA, install

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import checkpoints

from modelctl.commands import add
from modelctl.sources import find

__all__ = ["install"]
RECIPES = find.recipes()


def options(*arguments: str) -> argparse.Namespace:
    """Return the options of `modelctl add`."""
    parser = argparse.ArgumentParser()
    add.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_a_source_and_options_that_add_takes(name: str) -> None:
    """What it sets is what the command line would set, and what the user gives counts more."""
    recipe = YAML(typ="safe").load(RECIPES[name].read_text())
    assert set(recipe) <= {"source", "options"}
    typed = [
        part
        for key, value in recipe["options"].items()
        for part in (f"--{key.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]
    by_hand, by_recipe = options(recipe["source"], "--name", name, *typed), options(name)
    source = find.expand(name, by_recipe)
    assert vars(by_recipe) == {**vars(by_hand), "source": name}
    if not recipe["source"].startswith("hf:") and not recipe["source"].endswith(".pt"):
        assert Path(source).is_file()
    own = options(name, "--name", "mine", "--license", "mine")
    find.expand(name, own)
    assert (own.name, own.license) == ("mine", "mine")


def test_simple_net(command: Any, served: Any, stack: Any) -> None:
    """Its own name is taken by the bundled model; under another it is served, and computes what its weights say."""
    assert command("add", "simple_net", "--name", "smallest") == 0
    model = onnx.load(find.RECIPES / "simple_net.onnx")
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    given = np.array([[0.5, -1], [2, 3], [0, 0]], np.float32)
    hidden = np.maximum(given @ weights["hidden.weight"] + weights["hidden.bias"], 0)
    expected = hidden @ weights["output.weight"] + weights["output.bias"]
    made = served.tensors("smallest", {"INPUT__0": given}, ("OUTPUT__0",))
    np.testing.assert_allclose(made["OUTPUT__0"], expected, rtol=1e-5)
    assert spec(stack.models, "smallest")["source"]["license"] == "Apache-2.0"


def test_resnet50(command: Any, served: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is added under the recipe's name, with the recipe's licence."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "microsoft" / "resnet-50"
    folder.parent.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoints.PICTURES["resnet"](folder)
    result = command.run("add", "resnet50")
    assert result.code == 0, result.err
    assert spec(stack.models, "resnet50")["source"]["license"] == "Apache-2.0"
    assert spec(stack.models, "resnet50")["source"]["origin"] == "hf:microsoft/resnet-50"
    scores = [score for _, score in served.classify("resnet50", png(data.coffee()), 4)]
    assert sum(scores) == pytest.approx(1, abs=1e-3)


def test_finbert(command: Any, served: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The licence is read from the checkpoint's card."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ProsusAI" / "finbert"
    folder.parent.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoints.TEXT["bert"](folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    result = command.run("add", "finbert")
    assert result.code == 0, result.err
    assert spec(stack.models, "finbert")["source"]["license"] == "mit"
    assert sum(served.read("finbert", "The company expects sales to fall.").values()) == pytest.approx(1, abs=1e-3)


def test_yolo11n(command: Any, install: Any, served: Any, stack: Any, tmp_path: Path) -> None:
    """The package is given the bare name, by which it fetches the weights itself."""
    install(networks.yolo(tmp_path / "theirs.onnx", free=True, metadata=METADATA))
    assert command("add", "yolo11n") == 0
    assert spec(stack.models, "yolo11n")["source"] == {
        "origin": "yolo11n.pt",
        "license": "AGPL-3.0",
        "sha256": spec(stack.models, "yolo11n")["source"]["sha256"],
    }
    assert served.detect("yolo11n", png(data.coffee()))
