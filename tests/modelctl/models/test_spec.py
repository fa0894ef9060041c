"""A model's spec: errors are reported by file, line and key; valid specs pass unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from modelctl.errors import CommandError
from modelctl.models import configs, rendering, spec

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
CLASSIFIER = """\
name: shop
task: image-classification
source: {origin: a file, license: MIT}
preprocess:
  width: 224
  height: 224
  resize: stretch
network:
  inputs:
    image: {name: x}
  outputs:
    logits: {name: y, dims: [10]}
"""


def at(folder: Path, text: str, name: str = "shop") -> Path:
    """Write a spec into its model's folder."""
    path = folder / name / "model.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_smallest_spec_is_enough(tmp_path: Path) -> None:
    model = spec.read(at(tmp_path, CLASSIFIER))
    assert isinstance(model, spec.ImageClassification)
    assert (model.network_name, model.default, model.network.batching.max_batch_size) == ("shop_network", False, 8)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("  width: 224", "  widht: 224", 5, "preprocess.widht", "Extra inputs"),
        ("  width: 224", "  width: big", 5, "preprocess.width", "valid integer"),
        ("  width: 224", "  width: 0", 5, "preprocess.width", "greater than or equal to 1"),
        ("resize: stretch", "resize: squeeze", 7, "preprocess.resize", "'stretch'"),
        ("task: image-classification", "task: image-clasification", 2, "task", "object-detection"),
        ("task: image-classification\n", "", 1, "task", "task"),
        ("name: shop", "name: a/b", 1, "name", "match pattern"),
        ("    image: {name: x}", "    picture: {name: x}", 9, "network.inputs", "the task needs image"),
        ("dims: [10]", "dims: [ten]", 12, "network.outputs.logits.dims.0", "valid integer"),
        (", dims: [10]", "", 11, "network.outputs", "dims are needed"),
        ("license: MIT", "license: MIT, sha256: abc", 3, "source.sha256", "match pattern"),
        ("network:\n", "network:\n  lint_ignore: {TG5: no}\n", 9, "network.lint_ignore.TG5", "match pattern"),
        ("network:\n", "network:\n  torchscript: true\n", 9, "network.torchscript", "call 'x' INPUT__0"),
        (
            "network:\n",
            "network:\n  batching: {max_batch_size: 0}\n",
            9,
            "network.batching.max_batch_size",
            "a task needs 1 or more",
        ),
        ("  height: 224\n", "", 4, "preprocess", "width and height are needed, except with shortest_edge, which takes"),
        (
            "  height: 224\n",
            "  height: 224\n  longest_edge: 300\n",
            7,
            "preprocess.longest_edge",
            "shortest_edge needs it, the others do not take it",
        ),
        ("  height: 224\n", "  height: 224\n  std: [1, 0, 1]\n", 4, "preprocess", "std not 0"),
        ("  height: 224\n", "  height: 224\n  mean: [.nan, 0, 1]\n", 4, "preprocess", "finite"),
        ("preprocess:\n", "canary: {text: hello}\npreprocess:\n", 4, "canary", "the task takes image"),
        ("preprocess:\n", "expect: [{text: a, label: b}]\npreprocess:\n", 4, "expect", "the task takes image"),
        (
            "preprocess:\n",
            "expect: [{image: a, text: b, label: c}]\npreprocess:\n",
            4,
            "expect.0",
            "give either image or text",
        ),
        (
            "preprocess:\n",
            "expect: [{image: a, label: b, box: [0, 0, 1, 1]}]\npreprocess:\n",
            4,
            "expect",
            "only a detector has a box",
        ),
        (
            "preprocess:\n",
            "expect: [{image: a, label: b, box: [2, 0, 1, 1]}]\npreprocess:\n",
            4,
            "expect.0.box",
            "with xmin < xmax",
        ),
        ("image: {name: x}", "image: {name: x, dtype: UINT8}", 4, "preprocess", "so scale must be 1, mean 0 and std 1"),
        (
            "network:\n",
            "network:\n  folded: {scale: 1.0, mean: [0, 0, 0], std: [1, 1, 1]}\n",
            9,
            "network.folded",
            "takes an image of UINT8",
        ),
        (
            "network:\n",
            "network:\n  tensorrt: {shapes: {imgae: {min: [1], opt: [1], max: [1]}}}\n",
            9,
            "network.tensorrt.shapes",
            "there is no input imgae; there are image, x",
        ),
    ],
)
def test_a_fault_is_said_by_line_and_key(tmp_path: Path, old: str, new: str, line: int, key: str, words: str) -> None:
    path = at(tmp_path, CLASSIFIER.replace(old, new, 1))
    with pytest.raises(CommandError) as caught:
        spec.read(path)
    sentences = [sentence for sentence in str(caught.value).splitlines() if words in sentence]
    assert sentences, caught.value
    assert sentences[0].startswith(f"{path}:{line}: {key}"), caught.value


@pytest.mark.parametrize(
    ("text", "line"),
    [("name: [shop", 1), ("name: shop\nname: shop", 2), ("a: b: c", 1), ("- 1\n- 2\n", 1), ("", 1), ("&a [*a]", 1)],
)
def test_what_is_no_mapping_is_said_too(tmp_path: Path, text: str, line: int) -> None:
    path = at(tmp_path, text)
    with pytest.raises(CommandError, match=rf"^{path}:{line}: "):
        spec.read(path)


def test_a_spec_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is missing or not text, and text that only looks like YAML."""
    path = at(tmp_path, "")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match=rf"^{path} cannot be read: "):
        spec.read(path)
    path.write_text("name: 2001-99-99\n")
    with pytest.raises(CommandError, match=rf"^{path}:1: this is not valid YAML: "):
        spec.read(path)


def test_a_tensor_model_names_all_of_its_dims(tmp_path: Path) -> None:
    path = at(tmp_path, WHOLE.replace(", dims: [16, 3]", ""), "rows")
    with pytest.raises(CommandError, match=rf"^{path}:4: network: inputs and outputs need dims"):
        spec.read(path)


WHOLE = """name: rows
task: none
source: {origin: here}
network:
  inputs: {x: {name: x, dims: [1, 3]}}
  outputs: {y: {name: y, dims: [16, 3]}}
  batching: {max_batch_size: 0}
"""


def test_a_model_without_a_batch_has_no_batching(tmp_path: Path) -> None:
    """Dims hold every axis, and the warm-up is one item of them."""
    model = spec.read(at(tmp_path, WHOLE, "rows"))
    config = configs.network(model)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([1, 3], [16, 3])
    assert [warmup.batch_size for warmup in config.model_warmup] == [1]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("{max_batch_size: 0, queue_delay_us: 5}", "the queue's keys have no effect with max_batch_size 0"),
        ("{max_batch_size: 0, max_queue_size: 5}", "the queue's keys have no effect with max_batch_size 0"),
        ("{max_batch_size: 0}\n  tensorrt: {}", "a plan needs a batch as its first axis"),
    ],
)
def test_what_needs_a_batch_is_refused_without_one(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        spec.read(at(tmp_path, WHOLE.replace("{max_batch_size: 0}", more), "rows"))


def test_every_fault_is_said_at_once(tmp_path: Path) -> None:
    path = at(tmp_path, CLASSIFIER.replace("width: 224", "width: big").replace("resize: stretch", "resize: no"))
    with pytest.raises(CommandError) as caught:
        spec.read(path)
    assert len(str(caught.value).splitlines()) == 2


def test_the_folder_has_the_model_s_name(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="the folder is called mine, the model shop"):
        spec.read(at(tmp_path, CLASSIFIER, "mine"))


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/model.yaml")), ids=lambda path: path.parent.name)
def test_a_spec_that_is_written_is_read_as_the_same(path: Path, tmp_path: Path) -> None:
    model = spec.read(path)
    copy = tmp_path / model.name / "model.yaml"
    copy.parent.mkdir()
    spec.write(model, copy)
    assert spec.read(copy) == model


def test_the_schema_that_editors_read_is_that_of_the_code() -> None:
    committed = json.loads((ROOT / "docs" / "model.schema.json").read_text())
    assert committed == spec.schema(), "run: modelctl render --schema docs/model.schema.json"


def test_our_configurations_are_as_their_specs_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["modelctl", "render", "--check", "--models", str(MODELS)])
    from modelctl.__main__ import main

    assert main() == 0, capsys.readouterr().out


def test_check_names_what_differs_and_render_mends_it(tmp_path: Path) -> None:
    at(tmp_path, CLASSIFIER)
    (model,) = rendering.specs(tmp_path, ["shop"])
    names = {str(path.relative_to(tmp_path)) for path, _ in rendering.differing(model, tmp_path)}
    assert {f"shop{step}/config.pbtxt" for step in ("", "_preprocess", "_network", "_postprocess")} <= names
    rendering.write(model, tmp_path)
    assert not rendering.differing(model, tmp_path)
    config = tmp_path / "shop_network" / "config.pbtxt"
    before = config.read_bytes()
    config.write_bytes(before.replace(b"max_batch_size: 8", b"max_batch_size: 9"))
    assert [path for path, _ in rendering.differing(model, tmp_path)] == [config]
    rendering.write(model, tmp_path)
    assert config.read_bytes() == before


def test_a_variant_that_is_no_longer_wanted_is_removed(tmp_path: Path) -> None:
    """Rendered files go with their reason; files written by hand stay."""
    path = at(tmp_path, CLASSIFIER.replace("network:\n", "network:\n  tensorrt: {precision: fp16}\n"))
    (model,) = rendering.specs(tmp_path, [])
    rendering.write(model, tmp_path)
    variant = tmp_path / "shop_network" / "configs" / "tensorrt.pbtxt"
    by_hand = variant.with_name("mine.pbtxt")
    by_hand.write_bytes(variant.read_bytes().partition(b"\n")[2])
    path.write_text(CLASSIFIER)
    (model,) = rendering.specs(tmp_path, [])
    assert rendering.differing(model, tmp_path) == [(variant, None)]
    rendering.write(model, tmp_path)
    assert (variant.exists(), by_hand.exists()) == (False, True)


def test_one_model_is_the_default(tmp_path: Path) -> None:
    at(tmp_path, CLASSIFIER.replace("name: shop", "name: shop\ndefault: true"))
    at(tmp_path, CLASSIFIER.replace("name: shop", "name: other\ndefault: true"), "other")
    with pytest.raises(CommandError, match="other and shop are both the default for image-classification"):
        rendering.specs(tmp_path, [])


def test_a_model_without_a_spec_is_named(tmp_path: Path) -> None:
    at(tmp_path, CLASSIFIER)
    with pytest.raises(CommandError, match=r"no .*absent/model\.yaml; models with one: shop"):
        rendering.specs(tmp_path, ["absent"])


def test_a_written_spec_names_its_schema(tmp_path: Path) -> None:
    model = spec.read(at(tmp_path, CLASSIFIER))
    spec.write(model, tmp_path / "shop" / "model.yaml")
    first, *_ = (tmp_path / "shop" / "model.yaml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=../../docs/model.schema.json"
    assert YAML(typ="safe").load((tmp_path / "shop" / "model.yaml").read_text())["name"] == "shop"
