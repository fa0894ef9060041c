"""Defaults of keys that `model.yaml` leaves out are equal in its spec, in the steps and in the gateway.

`modelctl`, `stages` and `app` never import each other, so nothing but these tests holds them to each other.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson

from app.drawing.picture import MAX_PIXELS
from modelctl.models import configs, rendering
from modelctl.models.repository import read_config
from modelctl.models.spec import EnsembleSpec, TensorModel
from modelctl.models.steps import ImagePreprocess
from stages.config import StepConfig
from stages.imaging import Recipe

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "models"
ENSEMBLES = [spec for spec in rendering.specs(MODELS, []) if not isinstance(spec, TensorModel)]
BY_DECODER = {"activation", "box_unit"}
"""Of a detector: the spec has none, so that the decoder decides."""
OF_PREPROCESS = {"width", "height"}
"""Of a detector's tensor: always rendered, from another part of the spec."""
STRIDES = "8,16,32"


@pytest.mark.parametrize(
    "given",
    [
        {"resize": "letterbox", "width": 8, "height": 8},
        {"resize": "shortest_edge", "resize_to": 4, "longest_edge": 8},
    ],
)
def test_pictures_have_the_defaults_of_the_spec(given: dict[str, Any]) -> None:
    """A recipe with only the required keys equals one with all keys at the spec's defaults."""
    spec = ImagePreprocess.model_validate(given)
    whole = {name: value for name, value in spec.model_dump().items() if name != "instances" and value is not None}
    short, long = (
        Recipe.from_parameters({name: configs._text(value) for name, value in values.items()})
        for values in (given, whole)
    )
    assert short.scale == pytest.approx(long.scale, rel=1e-9)  # a configuration has ten digits
    assert short == replace(long, scale=short.scale)


def test_every_default_of_pictures_has_its_key() -> None:
    """A recipe and the spec have the same optional keys."""
    of_stages = {field.name for field in fields(Recipe) if field.default is not MISSING}
    of_spec = {name for name, field in ImagePreprocess.model_fields.items() if not field.is_required()}
    assert of_spec - {"instances"} - OF_PREPROCESS == of_stages


def test_answers_are_drawn_on_pictures_of_every_default_size() -> None:
    """The gateway draws on pictures of as many pixels as models accept by default."""
    assert ImagePreprocess.model_fields["max_pixels"].default == MAX_PIXELS


@pytest.mark.parametrize("part", ["preprocess", "postprocess"])
@pytest.mark.parametrize("spec", ENSEMBLES, ids=lambda spec: spec.name)
def test_steps_have_the_defaults_of_the_spec(monkeypatch: pytest.MonkeyPatch, spec: EnsembleSpec, part: str) -> None:
    """Every parameter that a Python step reads with a default is a key of the spec, with the same default."""
    asked = defaults_of_step(monkeypatch, f"{spec.name}_{part}")
    keys = type(getattr(spec, part)).model_fields
    if part == "postprocess":
        assert asked, "each reads at least its activation"
    for name, default in asked.items():
        if "decoder" in keys and name in OF_PREPROCESS | BY_DECODER:
            assert name in OF_PREPROCESS or keys[name].default is None
        elif name == "strides":
            assert (default, keys[name].default) == (STRIDES, None)
        else:
            assert default in (configs._text(keys[name].default), repr(keys[name].default)), name


def defaults_of_step(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, str]:
    """Load a step of a bundled model; return each parameter that it reads with a default, and the default as text."""
    asked: dict[str, str] = {}
    read = StepConfig.text

    def recorded(config: StepConfig, name: str, default: str | None = None) -> str:
        if default is not None:
            asked[name] = default
        return read(config, name, default)

    config = read_config(MODELS / name / "config.pbtxt")
    stand_in = SimpleNamespace(triton_string_to_numpy=lambda name: name)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in)
    module_spec = importlib.util.spec_from_file_location("step", ROOT / "backends" / config.backend / "model.py")
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    monkeypatch.setattr(StepConfig, "text", recorded)
    step = module.TritonPythonModel()
    text = MessageToJson(config, preserving_proto_field_name=True)
    step.initialize({"model_config": text, "model_repository": str(MODELS / name)})
    if hasattr(step, "finalize"):
        step.finalize()
    return asked
