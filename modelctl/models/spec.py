"""`models/<name>/model.yaml`: the one source of a model's configurations.

    model.yaml --read--> ModelSpec --modelctl.models.rendering--> config.pbtxt of the ensemble and of its three steps

Keys are few and every one of them is a fact of this model; what all models share is in `modelctl.models.configs`.
Unknown keys are refused. Lengths and sizes are pixels, tokens or items; times say their unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from modelctl.errors import CommandError

FILE = "model.yaml"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
SCHEMA_LINE = "# yaml-language-server: $schema=../../docs/model.schema.json\n"

DataType = Literal["FP32", "FP16", "UINT8", "INT64", "INT32", "BOOL"]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
Probability = Annotated[float, Field(ge=0, le=1)]
LintCode = Annotated[str, Field(pattern=r"^TG[0-9]{3}$")]
DEEPER = re.compile(r"(?P<keys>[a-z_.]+): (?P<text>.*)", re.DOTALL)
"""What a rule on several keys says: below which of them the fault is, then the sentence."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class Strict(BaseModel):
    """What every part of a spec has in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where the weights came from."""

    origin: str = Field(description="A repository, a file, a paper: enough to find them again.")
    license: str = Field(default="unknown", description="The weights' licence, by its SPDX name where it has one.")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="Of the network's model.onnx.")


class Canary(Strict):
    """One input and the label that must come first: readiness asks for it."""

    image: FileName | None = Field(default=None, description="A small picture in the ensemble's folder.")
    text: str | None = Field(default=None, description="A text.")
    label: str | None = Field(default=None, description="What must come first; none: any answer will do.")

    @model_validator(mode="after")
    def _one_input(self) -> Canary:
        if (self.image is None) == (self.text is None):
            raise ValueError("give either image or text")
        return self


class Tensor(Strict):
    """One tensor of the network, as its file names it."""

    name: str = Field(min_length=1)
    dtype: DataType = "FP32"
    dims: list[int] | None = Field(default=None, description="Without the batch; -1 is any. Inputs of steps need none.")


class Instances(Strict):
    """How many copies of the network run, and on what."""

    count: int = Field(default=1, ge=1, le=64)
    kind: Literal["auto", "cpu", "gpu"] = Field(default="auto", description="auto: GPUs where there are some.")


class Batching(Strict):
    """How requests are joined."""

    max_batch_size: int = Field(default=8, ge=1, le=1024)
    queue_delay_us: int = Field(default=0, ge=0, description="How long a request may wait for others, in microseconds.")
    max_queue_size: int | None = Field(
        default=None, ge=1, description="None: the gateway bounds the queue (docs/decisions/0005-queues.md)."
    )


class OnnxRuntime(Strict):
    """How ONNX Runtime runs the network on a CPU."""

    threads: int = Field(default=2, ge=1, le=256, description="For each instance.")
    memory_pattern: bool = Field(default=False, description="Keeps memory for every batch size that occurs.")


class Shapes(Strict):
    """What a TensorRT plan is built for, for one input with free sizes; without the batch."""

    min: list[int]
    opt: list[int]
    max: list[int]


class TensorRT(Strict):
    """The network as a TensorRT plan."""

    precision: Literal["fp32", "fp16"] = "fp16"
    opt_batch: int | None = Field(default=None, ge=1, description="The batch it is tuned for; default: the largest.")
    shapes: dict[str, Shapes] = Field(default_factory=dict, description="For inputs with free sizes.")
    instances: int = Field(default=1, ge=1, le=64)


class Network(Strict):
    """The network between the two steps. Tensors go by the part they play, which the task names."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    batching: Batching = Batching()
    instances: Instances = Instances()
    onnxruntime: OnnxRuntime = OnnxRuntime()
    tensorrt: TensorRT | None = None
    torchscript: bool = Field(default=False, description="There is a model.pt for Triton's PyTorch backend too.")
    lint_ignore: dict[LintCode, str] = Field(
        default_factory=dict, description="What `modelctl lint` is not to say of the network, each with the reason."
    )

    @model_validator(mode="after")
    def _shapes_of_inputs(self) -> Network:
        known = {tensor.name for tensor in self.inputs.values()} | set(self.inputs)
        for name in self.tensorrt.shapes if self.tensorrt else ():
            if name not in known:
                raise ValueError(f"tensorrt.shapes: there is no input {name}: {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _numbered(self) -> Network:
        if self.torchscript:
            for kind, tensors in (("INPUT", self.inputs), ("OUTPUT", self.outputs)):
                for number, tensor in enumerate(tensors.values()):
                    if tensor.name != f"{kind}__{number}":
                        raise ValueError(
                            f"torchscript: Triton's PyTorch backend finds tensors by number: call '{tensor.name}' "
                            f"{kind}__{number}, in the ONNX file too."
                        )
        return self


class ImagePreprocess(Strict):
    """How a picture becomes the network's tensor; see `stages.imaging.Recipe`."""

    width: int | None = Field(default=None, ge=1, description="Of the tensor; none with shortest_edge.")
    height: int | None = Field(default=None, ge=1)
    resize: Literal["shortest_edge_center_crop", "letterbox", "letterbox_center", "stretch", "shortest_edge"]
    resize_to: float | None = Field(default=None, gt=0, description="The shorter side before the crop.")
    longest_edge: int | None = Field(default=None, ge=1, description="shortest_edge: the most that a side may have.")
    multiple_of: int = Field(default=1, ge=1, description="shortest_edge: sides are cut to a multiple of this.")
    rounding: Literal["nearest", "down"] = Field(default="nearest", description="Of sides that are not whole.")
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    pad_value: int = Field(default=114, ge=0, le=255)
    scale: float = 1 / 255
    mean: Channels = [0.0, 0.0, 0.0]
    std: Channels = [1.0, 1.0, 1.0]
    channel_order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    max_pixels: int = Field(default=50_000_000, ge=1)
    instances: int = Field(default=1, ge=1, le=64)

    @model_validator(mode="after")
    def _sizes(self) -> ImagePreprocess:
        free = self.resize == "shortest_edge"
        if free != (self.width is None) or free != (self.height is None):
            raise ValueError("width and height are needed, except with shortest_edge, which takes neither")
        if (self.resize_to is None) == self.resize.startswith("shortest_edge"):
            raise ValueError("resize_to: is for shortest_edge_center_crop and shortest_edge, which need it")
        if 0 in self.std or not all(map(math.isfinite, (*self.mean, *self.std, self.scale))):
            raise ValueError("mean, std and scale must be finite numbers, and std not 0")
        if free != (self.longest_edge is not None):
            raise ValueError("longest_edge: is for shortest_edge, which needs it")
        return self

    @property
    def dims(self) -> list[int]:
        """The tensor's dims without the batch; -1 where pictures decide."""
        height, width = self.height or -1, self.width or -1
        return [3, height, width] if self.layout == "NCHW" else [height, width, 3]


class TextPreprocess(Strict):
    """How a text becomes tokens; the tokenizer is `tokenizer.json` in the preprocess step's folder."""

    max_length: int = Field(ge=1, le=1_000_000, description="The most tokens that the network reads.")
    pad_id: int = Field(default=0, ge=0, description="The id beyond the text's end.")
    instances: int = Field(default=1, ge=1, le=64)


Activation = Literal["softmax", "sigmoid", "none"]


class ClassificationPostprocess(Strict):
    """How logits become labels; the labels are `labels.txt` in the network's folder."""

    activation: Activation = "softmax"
    top_k: int = Field(default=5, ge=1)
    instances: int = Field(default=1, ge=1, le=64)


class DetectionPostprocess(Strict):
    """How a detector's head becomes boxes; see `stages.decoders.Head`."""

    decoder: Literal["yolov5", "yolov8", "yolox", "detr", "end_to_end"]
    activation: Activation | None = None
    box_unit: Literal["pixels", "normalized"] | None = None
    encoded: bool = False
    strides: list[int] | None = None
    score_threshold: Probability = 0.25
    iou_threshold: Probability = 0.45
    max_detections: int = Field(default=100, ge=1, le=1000)
    instances: int = Field(default=1, ge=1, le=64)


class TextPostprocess(Strict):
    """How logits become labels, all of them; the labels are `labels.txt` in the network's folder."""

    activation: Activation = "softmax"
    instances: int = Field(default=1, ge=1, le=64)


class Model(Strict):
    """What every spec has."""

    name: str = Field(pattern=NAME)
    source: Source
    network: Network

    @property
    def network_name(self) -> str:
        """The folder of the network."""
        return f"{self.name}_network"


class Ensemble(Model):
    """A public model: three steps that serve a task."""

    default: bool = Field(default=False, description="The model that serves its task when a request names none.")
    canary: Canary | None = None

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
        return self


class ObjectDetection(Ensemble):
    """An image -> boxes."""

    task: Literal["object-detection"]
    preprocess: ImagePreprocess
    postprocess: DetectionPostprocess

    @model_validator(mode="after")
    def _tensors(self) -> ObjectDetection:
        detr = self.postprocess.decoder == "detr"
        self._require(IMAGE, {frozenset({"logits", "boxes"} if detr else {"head"})})
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
    """A network by itself, reachable by tensors; its parts are called as it calls them."""

    task: Literal["none"]

    @property
    def network_name(self) -> str:
        """The folder of the network, which is the model."""
        return self.name

    @model_validator(mode="after")
    def _tensors(self) -> TensorModel:
        if any(tensor.dims is None for tensor in (*self.network.inputs.values(), *self.network.outputs.values())):
            raise ValueError("network: inputs and outputs need dims")
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
        CommandError: with one line for every fault: file, line, key and what is wrong.

    """
    try:
        data = YAML().load(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CommandError(f"{path}:{line}: {error.problem or 'this is no YAML'}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # ruamel.yaml's constructors raise them for what only looks like a number, a date or a key.
        raise CommandError(
            f"{path}:1: this is no YAML that can be read: {' '.join(str(error).split())[:200]}"
        ) from error
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
            keys = keys[1:]  # the branch that the task chose; it is no key
        if fault["type"] == "value_error" and (deeper := DEEPER.fullmatch(text)):
            keys, text = (*keys, *deeper["keys"].split(".")), deeper["text"]
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
    """Write a spec; what is as by default is left out."""
    data = spec.model_dump(exclude_defaults=True, exclude_none=True)
    first = {"name": spec.name, "task": spec.task}
    yaml = YAML()
    yaml.width = 120
    yaml.default_flow_style = None
    with path.open("w", encoding="utf-8") as file:
        file.write(SCHEMA_LINE)
        yaml.dump({**first, **data}, file)
