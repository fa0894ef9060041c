"""The `network` part of `model.yaml`: its tensors, and how Triton runs it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DataType = Literal["FP32", "FP16", "UINT8", "INT8", "INT64", "INT32", "BOOL"]
LintCode = Annotated[str, Field(pattern=r"^TG[0-9]{3}$")]


class Strict(BaseModel):
    """The base of every part of a spec: it refuses unknown keys and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tensor(Strict):
    """One tensor of the network, by its name in the network's file."""

    name: str = Field(min_length=1)
    dtype: DataType = "FP32"
    dims: list[int] | None = Field(
        default=None, description="Without the batch; -1 is any size. Inputs that a preprocess step fills need none."
    )


class Instances(Strict):
    """How many copies of the network run, and on which devices."""

    count: int = Field(default=1, ge=1, le=64)
    kind: Literal["auto", "cpu", "gpu"] = Field(default="auto", description="auto: GPUs if the machine has any.")


class Batching(Strict):
    """How Triton batches requests."""

    max_batch_size: int = Field(
        default=8, ge=0, le=1024, description="0: the first axis is no batch, and dims hold it. Only without a task."
    )
    queue_delay_us: int = Field(
        default=0, ge=0, description="How long a request may wait to be batched, in microseconds."
    )
    max_queue_size: int | None = Field(
        default=None,
        ge=1,
        description="By default unlimited: the gateway bounds the queue (docs/decisions/0005-queues.md).",
    )


class OnnxRuntime(Strict):
    """How ONNX Runtime runs the network on a CPU."""

    threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Threads per instance. In the container several threads spin while they wait: docs/instances.md.",
    )
    memory_pattern: bool = Field(default=False, description="Keep a memory plan for every batch size that occurs.")


class Shapes(Strict):
    """The shapes of one input with free sizes for which a TensorRT plan is built, without the batch."""

    min: list[int]
    opt: list[int]
    max: list[int]


class TensorRT(Strict):
    """The network as a TensorRT plan."""

    precision: Literal["fp32", "fp16"] = "fp16"
    opt_batch: int | None = Field(
        default=None, ge=1, description="The batch size it is tuned for; default: max_batch_size."
    )
    shapes: dict[str, Shapes] = Field(default_factory=dict, description="For inputs with free sizes.")
    instances: int = Field(default=1, ge=1, le=64)


class Folded(Strict):
    """The recipe that `modelctl add` put into the network's file; for people, since the steps no longer see it."""

    dtype: Literal["FP32", "FP16"] = Field(default="FP32", description="Of the input that the file had before.")
    scale: float
    mean: list[float]
    std: list[float]
    channel_order: str = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"


class Network(Strict):
    """The network between the two steps. Its tensors are keyed by role, such as `logits`; the task names them."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    batching: Batching = Batching()
    instances: Instances = Instances()
    onnxruntime: OnnxRuntime = OnnxRuntime()
    tensorrt: TensorRT | None = None
    folded: Folded | None = Field(
        default=None,
        description="What the file itself does with pixels: (x * scale - mean) / std, channel order, layout. A record.",
    )
    torchscript: bool = Field(default=False, description="Whether model.pt exists too, for Triton's PyTorch backend.")
    lint_ignore: dict[LintCode, str] = Field(
        default_factory=dict, description="Rules that `modelctl lint` does not apply to the network: code and reason."
    )

    @model_validator(mode="after")
    def _shapes_of_inputs(self) -> Network:
        known = {tensor.name for tensor in self.inputs.values()} | set(self.inputs)
        for name in self.tensorrt.shapes if self.tensorrt else ():
            if name not in known:
                raise ValueError(f"tensorrt.shapes: there is no input {name}; there are {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _folded_into_bytes(self) -> Network:
        image = self.inputs.get("image")
        if self.folded and (image is None or image.dtype != "UINT8"):
            raise ValueError("folded: a network with its recipe inside takes an image of UINT8")
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
