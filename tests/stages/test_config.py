"""A step's configuration becomes typed values; an error in it keeps the model from loading, with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.config import ConfigError, StepConfig, Tensor


def step(repository: Path, **parameters: str) -> StepConfig:
    """Return a configuration in Triton's form."""
    config = {
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
        "input": [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["1000"]}],
        "output": [{"name": "label", "data_type": "TYPE_STRING", "dims": [-1]}],
    }
    return StepConfig.of({"model_config": json.dumps(config), "model_repository": str(repository / "x_postprocess")})


def test_tensors_and_the_repository_are_read(tmp_path: Path) -> None:
    """Dims may be written as text, and the repository is the parent of the model's own folder."""
    config = step(tmp_path)
    assert config.inputs == {"logits": Tensor("FP32", (1000,))}
    assert config.outputs == {"label": Tensor("STRING", (-1,))}
    assert config.repository == tmp_path


def test_parameters_have_types_and_defaults(tmp_path: Path) -> None:
    """A parameter that is given wins over its default."""
    config = step(tmp_path, size="224", share="0.5", kind="b")
    assert (config.integer("size", 1, 300), config.integer("other", 1, 9, 7)) == (224, 7)
    assert (config.number("share", 0, 1), config.number("other", 0, 1, 0.25)) == (0.5, 0.25)
    assert (config.choice("kind", ("a", "b")), config.choice("other", ("a", "b"), "a")) == ("b", "a")


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "-1", "301", "2.5"])
def test_invalid_numbers_are_refused(tmp_path: Path, text: str) -> None:
    """The sentence names the parameter and its value."""
    with pytest.raises(ConfigError, match=f"'size'.*'{text}'"):
        step(tmp_path, size=text).integer("size", 0, 300)


def test_missing_and_unknown_parameters_are_named(tmp_path: Path) -> None:
    """Both sentences name the parameter."""
    with pytest.raises(ConfigError, match="'size' is missing"):
        step(tmp_path).integer("size", 1, 300)
    with pytest.raises(ConfigError, match="'kind' must be one of a, b, not 'c'"):
        step(tmp_path, kind="c").choice("kind", ("a", "b"))


def test_labels_are_the_lines_of_their_file(tmp_path: Path) -> None:
    """Both kinds of line ends, and a missing last one, are accepted."""
    (tmp_path / "labels.txt").write_bytes("chat\r\nchien é\n\n".encode())
    assert step(tmp_path, labels="labels.txt").labels(2) == ["chat", "chien é"]
    assert step(tmp_path, labels="labels.txt").labels(-1) == ["chat", "chien é"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a\nb\nc\n", "has 3 labels, the network 2 classes"),
        (b"a\n", "has 1 labels, the network 2 classes"),
        (b"a\n\nb\n", "has an empty line 2"),
        (b"\xff\n\xfe\n", "is not UTF-8"),
        (None, "not a file in the repository"),
    ],
)
def test_labels_that_do_not_fit_the_network_are_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    """One label too many or too few would shift the names of all classes."""
    if content is not None:
        (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        step(tmp_path, labels="labels.txt").labels(2)
