"""The `preprocess` and `postprocess` parts of `model.yaml`: the steps before and after the network."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from modelctl.models.network import Strict

Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
Probability = Annotated[float, Field(ge=0, le=1)]
Activation = Literal["softmax", "sigmoid", "none"]


class ImagePreprocess(Strict):
    """How a picture becomes the network's tensor; see `stages.imaging.Recipe`."""

    width: int | None = Field(default=None, ge=1, description="Of the tensor; omit it with shortest_edge.")
    height: int | None = Field(default=None, ge=1)
    resize: Literal["shortest_edge_center_crop", "letterbox", "letterbox_center", "stretch", "shortest_edge"]
    resize_to: float | None = Field(default=None, gt=0, description="The shorter side before the crop.")
    longest_edge: int | None = Field(default=None, ge=1, description="shortest_edge: the limit for the longer side.")
    multiple_of: int = Field(
        default=1, ge=1, description="shortest_edge: sides are rounded down to a multiple of this."
    )
    rounding: Literal["nearest", "down"] = Field(
        default="nearest", description="Of side lengths that are not whole numbers."
    )
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    pad_value: int = Field(default=114, ge=0, le=255)
    scale: float = 1 / 255
    mean: Channels = Field(default=[0.0, 0.0, 0.0])
    std: Channels = Field(default=[1.0, 1.0, 1.0])
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
            raise ValueError(
                "resize_to: shortest_edge_center_crop and shortest_edge need it, the others do not take it"
            )
        if 0 in self.std or not all(map(math.isfinite, (*self.mean, *self.std, self.scale))):
            raise ValueError("mean, std and scale must be finite numbers, and std not 0")
        if free != (self.longest_edge is not None):
            raise ValueError("longest_edge: shortest_edge needs it, the others do not take it")
        return self

    @property
    def is_identity(self) -> bool:
        """Whether pixels keep their values."""
        return self.scale == 1 and not any(self.mean) and set(self.std) == {1.0}

    @property
    def dims(self) -> list[int]:
        """The tensor's dims without the batch; -1 for sizes that depend on the picture."""
        height, width = self.height or -1, self.width or -1
        return [3, height, width] if self.layout == "NCHW" else [height, width, 3]


class TextPreprocess(Strict):
    """How a text becomes tokens; the tokenizer is `tokenizer.json` in the preprocess step's folder."""

    max_length: int = Field(ge=1, le=1_000_000, description="The number of tokens at which longer texts are cut.")
    pad_id: int = Field(default=0, ge=0, description="The id that fills the places after the text's end.")
    instances: int = Field(default=1, ge=1, le=64)


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
    """How logits become scores for all labels; the labels are `labels.txt` in the network's folder."""

    activation: Activation = "softmax"
    instances: int = Field(default=1, ge=1, le=64)
