"""`models/<name>/model.yaml`: the one source of a model's configurations.

    model.yaml --read--> ModelSpec --modelctl.models.rendering--> config.pbtxt of the ensemble and of its three steps

The keys of the network are in `modelctl.models.network`, those of its two steps in `modelctl.models.steps`. Every key
is a fact about one model; constants that all models share are in `modelctl.models.configs`. Unknown keys are refused.
Sizes and lengths are in pixels, tokens or items; keys of times name their unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from modelctl.errors import CommandError
from modelctl.models.expectation import Expectation
from modelctl.models.heads import HEADS
from modelctl.models.network import Network, Strict
from modelctl.models.steps import (
    ClassificationPostprocess,
    DetectionPostprocess,
    ImagePreprocess,
    TextPostprocess,
    TextPreprocess,
)

FILE = "model.yaml"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
SCHEMA_LINE = "# yaml-language-server: $schema=../../docs/model.schema.json\n"
KEYS_AND_TEXT = re.compile(r"(?P<keys>[a-z_.]+): (?P<text>.*)", re.DOTALL)
"""The message of a validator of several keys: the key at fault, below the validated part, then a sentence."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class Source(Strict):
    """Where the weights came from."""

    origin: str = Field(description="A repository, a file, a paper: enough to find them again.")
    license: str = Field(default="unknown", description="The weights' licence, by its SPDX name where it has one.")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="Of the network's file model.onnx.")


class Canary(Strict):
    """One input and the label that must come first; `/readyz` checks it."""

    image: FileName | None = Field(default=None, description="A small picture in the ensemble's folder.")
    text: str | None = Field(default=None, description="A text.")
    label: str | None = Field(
        default=None, description="The label that must come first; without it any answer is accepted."
    )

    @model_validator(mode="after")
    def _one_input(self) -> Canary:
        if (self.image is None) == (self.text is None):
            raise ValueError("give either image or text")
        return self


class Model(Strict):
    """The keys of every model."""

    name: str = Field(pattern=NAME)
    source: Source
    network: Network

    @property
    def network_name(self) -> str:
        """The folder of the network."""
        return f"{self.name}_network"


class Ensemble(Model):
    """A public model: three steps that serve a task."""

    default: bool = Field(default=False, description="Whether it answers requests for its task that name no model.")
    canary: Canary | None = None
    expect: list[Expectation] = Field(
        default_factory=list, description="Right answers, which `modelctl add` and `modelctl verify` check."
    )

    @model_validator(mode="after")
    def _expectations_of_the_task(self) -> Ensemble:
        takes_text = "input_ids" in self.network.inputs
        for number, one in enumerate(self.expect):
            if (one.text is not None) != takes_text:
                raise ValueError(f"expect: the task takes {'text' if takes_text else 'image'}, see number {number + 1}")
            if one.box is not None and getattr(self, "task", None) != "object-detection":
                raise ValueError(f"expect: only a detector has a box, see number {number + 1}")
        return self

    @model_validator(mode="after")
    def _batch_of_a_task(self) -> Ensemble:
        if self.network.batching.max_batch_size < 1:
            raise ValueError("network.batching.max_batch_size: a task needs 1 or more")
        return self

    @model_validator(mode="after")
    def _canary_of_the_task(self) -> Ensemble:
        takes_text = "input_ids" in self.network.inputs
        if self.canary is not None and (self.canary.text is not None) != takes_text:
            raise ValueError(f"canary: the task takes {'text' if takes_text else 'image'}")
        return self

    def _require(self, inputs: set[frozenset[str]], outputs: set[frozenset[str]]) -> None:
        for kind, wanted, given in (
            ("inputs", inputs, self.network.inputs),
            ("outputs", outputs, self.network.outputs),
        ):
            if frozenset(given) not in wanted:
                names = " or ".join(" and ".join(sorted(one)) for one in sorted(wanted, key=len))
                raise ValueError(f"network.{kind}: the task needs {names}")
        if any(tensor.dims is None for tensor in self.network.outputs.values()):
            raise ValueError("network.outputs: dims are needed")

    def _require_bytes(self, preprocess: ImagePreprocess) -> None:
        image = self.network.inputs["image"]
        if image.dtype == "UINT8" and not preprocess.is_identity:
            raise ValueError("preprocess: the image is UINT8, so scale must be 1, mean 0 and std 1")


IMAGE = {frozenset({"image"})}
LOGITS = {frozenset({"logits"})}
TEXT = {frozenset({"input_ids"}) | extra for extra in map(frozenset, ((), ("attention_mask",), ("token_type_ids",)))}
TEXT |= {frozenset({"input_ids", "attention_mask", "token_type_ids"})}


class ImageClassification(Ensemble):
    """An image -> labels."""

    task: Literal["image-classification"]
    preprocess: ImagePreprocess
    postprocess: ClassificationPostprocess = ClassificationPostprocess()

    @model_validator(mode="after")
    def _tensors(self) -> ImageClassification:
        self._require(IMAGE, LOGITS)
        self._require_bytes(self.preprocess)
        return self


class ObjectDetection(Ensemble):
    """An image -> boxes."""

    task: Literal["object-detection"]
    preprocess: ImagePreprocess
    postprocess: DetectionPostprocess

    @model_validator(mode="after")
    def _tensors(self) -> ObjectDetection:
        self._require(IMAGE, HEADS[self.postprocess.decoder].outputs)
        self._require_bytes(self.preprocess)
        return self


class TextClassification(Ensemble):
    """A text -> labels with their scores."""

    task: Literal["text-classification"]
    preprocess: TextPreprocess
    postprocess: TextPostprocess = TextPostprocess()

    @model_validator(mode="after")
    def _tensors(self) -> TextClassification:
        self._require(TEXT, LOGITS)
        return self


class TensorModel(Model):
    """A network without steps: callers send and get its tensors, by their names in the network's file."""

    task: Literal["none"]

    @property
    def network_name(self) -> str:
        """The folder of the network, which is the model's own."""
        return self.name

    @model_validator(mode="after")
    def _tensors(self) -> TensorModel:
        if any(tensor.dims is None for tensor in (*self.network.inputs.values(), *self.network.outputs.values())):
            raise ValueError("network: inputs and outputs need dims")
        return self

    @model_validator(mode="after")
    def _no_batch(self) -> TensorModel:
        batching = self.network.batching
        if not batching.max_batch_size:
            if batching.queue_delay_us or batching.max_queue_size:
                raise ValueError("network.batching: the queue's keys have no effect with max_batch_size 0: omit them")
            if self.network.tensorrt:
                raise ValueError(
                    "network.tensorrt: a plan needs a batch as its first axis, so max_batch_size of 1 or more"
                )
        return self


EnsembleSpec = ImageClassification | ObjectDetection | TextClassification
ModelSpec = EnsembleSpec | TensorModel
ADAPTER: TypeAdapter[ModelSpec] = TypeAdapter(Annotated[ModelSpec, Field(discriminator="task")])


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `model.yaml`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FILE, **ADAPTER.json_schema()}


def read(path: Path) -> ModelSpec:
    """Read and check a spec.

    Raises:
        CommandError: one line per fault, with file, line, key and reason.

    """
    try:
        data = YAML().load(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CommandError(f"{path}:{line}: {error.problem or 'this is not YAML'}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # ruamel.yaml's constructors raise these for text that only looks like a number, a date or a key.
        raise CommandError(f"{path}:1: this is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    try:
        spec = ADAPTER.validate_python(data)
    except ValidationError as error:
        raise CommandError("\n".join(_faults(path, data, error))) from None
    if spec.name != path.parent.name:
        raise CommandError(f"{path}:1: name: the folder is called {path.parent.name}, the model {spec.name}")
    return spec


def _faults(path: Path, data: Any, error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False):
        keys, text = fault["loc"], fault["msg"].removeprefix("Value error, ")
        if isinstance(data, Mapping) and keys[:1] == (data.get("task"),):
            keys = keys[1:]  # pydantic names the branch of the union that the task selects; the file has no such key
        if fault["type"] == "value_error" and (match := KEYS_AND_TEXT.fullmatch(text)):
            keys, text = (*keys, *match["keys"].split(".")), match["text"]
        keys = keys or ("task",)
        lines.append(f"{path}:{_line(data, keys)}: {'.'.join(map(str, keys))}: {text}")
    return lines


def _line(data: Any, keys: tuple[int | str, ...]) -> int:
    """Return the line of the deepest key that the file has, counted from 1."""
    line = 0
    for key in keys:
        if isinstance(data, CommentedMap) and key in data:
            line = data.lc.key(key)[0]
        elif isinstance(data, CommentedSeq) and isinstance(key, int) and key < len(data):
            line = data.lc.item(key)[0]
        else:
            break
        data = data[key]
    return line + 1


def write(spec: ModelSpec, path: Path) -> None:
    """Write a spec, without the keys that have their default value."""
    data = spec.model_dump(exclude_defaults=True, exclude_none=True)
    first = {"name": spec.name, "task": spec.task}
    yaml = YAML()
    yaml.width = 120
    yaml.default_flow_style = None
    with path.open("w", encoding="utf-8") as file:
        file.write(SCHEMA_LINE)
        yaml.dump({**first, **data}, file)
