"""The `preprocess` and `postprocess` parts of `model.yaml`: the steps before and after the network."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from modelctl.models.heads import DecoderName
from modelctl.models.network import Strict

Channels = Annotated[list[float], Field(min_length=1, max_length=3)]
Probability = Annotated[float, Field(ge=0, le=1)]
Activation = Literal["softmax", "sigmoid", "none"]


class ImagePreprocess(Strict):
    """How a picture becomes the network's tensor; see `stages.recipe.Recipe`."""

    width: int | None = Field(default=None, ge=1, description="Of the tensor; omit it with shortest_edge.")
    height: int | None = Field(default=None, ge=1)
    resize: Literal[
        "shortest_edge_center_crop",
        "stretch_center_crop",
        "letterbox",
        "letterbox_center",
        "letterbox_square",
        "stretch",
        "shortest_edge",
    ]
    resize_to: float | None = Field(
        default=None, gt=0, description="The shorter side before the crop; of stretch_center_crop, both sides."
    )
    longest_edge: int | None = Field(default=None, ge=1, description="shortest_edge: the limit for the longer side.")
    multiple_of: int = Field(
        default=1, ge=1, description="shortest_edge: sides are rounded down to a multiple of this."
    )
    rounding: Literal["nearest", "down", "torchvision"] = Field(
        default="nearest",
        description="Of side lengths that are not whole numbers; torchvision: sides down, and the crop's corner half "
        "to even.",
    )
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos", "opencv_linear", "opencv_area"] = (
        Field(default="bilinear", description="A filter of Pillow, which smooths, or of OpenCV.")
    )
    pad_value: int = Field(default=114, ge=0, le=255)
    scale: float = 1 / 255
    mean: Channels = Field(default=[0.0, 0.0, 0.0])
    std: Channels = Field(default=[1.0, 1.0, 1.0])
    channel_order: Literal["RGB", "BGR", "GREY"] = Field(
        default="RGB", description="GREY: one channel, with one value each in mean and std."
    )
    alpha: Literal["white", "drop"] = Field(
        default="white", description="Transparency: shown on white, or dropped so that the stored colours show."
    )
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    max_pixels: int = Field(default=50_000_000, ge=1)
    instances: int = Field(default=1, ge=1, le=64)

    @model_validator(mode="before")
    @classmethod
    def _grey_defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("channel_order") == "GREY":
            return {"mean": [0.0], "std": [1.0], **data}
        return data

    @model_validator(mode="after")
    def _sizes(self) -> ImagePreprocess:
        free = self.resize == "shortest_edge"
        if free != (self.width is None) or free != (self.height is None):
            raise ValueError("width and height are needed, except with shortest_edge, which takes neither")
        if (self.resize_to is None) == (free or self.resize.endswith("center_crop")):
            raise ValueError(
                "resize_to: shortest_edge_center_crop, stretch_center_crop and shortest_edge need it, "
                "the others do not take it"
            )
        if self.resize.endswith("center_crop") and (self.resize_to or 0) < max(self.width or 0, self.height or 0):
            raise ValueError("resize_to: it must be at least width and height, which are cropped from it")
        if self.resize == "letterbox_square" and self.width != self.height:
            raise ValueError("letterbox_square needs width and height to be equal")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"mean and std must have a value for each channel, which are {self.channels} in {self.channel_order}"
            )
        if 0 in self.std or not all(map(math.isfinite, (*self.mean, *self.std, self.scale))):
            raise ValueError("mean, std and scale must be finite numbers, and std not 0")
        if free != (self.longest_edge is not None):
            raise ValueError("longest_edge: shortest_edge needs it, the others do not take it")
        return self

    @property
    def channels(self) -> int:
        """How many channels the tensor has."""
        return 1 if self.channel_order == "GREY" else 3

    @property
    def is_identity(self) -> bool:
        """Whether pixels keep their values."""
        return self.scale == 1 and not any(self.mean) and set(self.std) == {1.0}

    @property
    def dims(self) -> list[int]:
        """The tensor's dims without the batch; -1 for sizes that depend on the picture."""
        height, width = self.height or -1, self.width or -1
        return [self.channels, height, width] if self.layout == "NCHW" else [height, width, self.channels]


class TextPreprocess(Strict):
    """How a text becomes tokens; the tokenizer is `tokenizer.json` in the preprocess step's folder."""

    max_length: int = Field(ge=1, le=1_000_000, description="The number of tokens at which longer texts are cut.")
    pad_id: int = Field(default=0, ge=0, description="The id that fills the places after the text's end.")
    truncation_side: Literal["right", "left"] = Field(
        default="right", description="The end at which a longer text is cut."
    )
    instances: int = Field(default=1, ge=1, le=64)


class ClassificationPostprocess(Strict):
    """How logits become labels; the labels are `labels.txt` in the network's folder."""

    activation: Activation = "softmax"
    top_k: int = Field(default=5, ge=1)
    instances: int = Field(default=1, ge=1, le=64)


class DetectionPostprocess(Strict):
    """How a detector's head becomes boxes; see `stages.decoders`."""

    decoder: DecoderName
    activation: Activation | None = None
    box_unit: Literal["pixels", "normalized"] | None = None
    encoded: bool = False
    strides: list[int] | None = None
    box_format: Literal["corners", "centre", "yxyx"] | None = Field(
        default=None, description="end_to_end, detections, scored_boxes: default corners, which is xmin, ymin, ..."
    )
    columns: list[Literal["batch", "class", "score", "box"]] | None = Field(
        default=None, description="end_to_end: what a row holds, in order; default box, score, class."
    )
    background: bool = Field(default=False, description="scored_boxes: the first score is that of no object.")
    first_class: int | None = Field(
        default=None, ge=0, le=1000, description="end_to_end, detections: the id that means the first label; default 0."
    )
    bins: int | None = Field(default=None, ge=2, le=64, description="nanodet: bins of each side; default 8.")
    anchors: list[float] | None = Field(default=None, description="yolofastestv2: width and height of each anchor.")
    nms: bool | None = Field(default=None, description="Suppress overlapping boxes; default: as the decoder needs.")
    score_threshold: Probability = 0.25
    iou_threshold: Probability = 0.45
    max_detections: int = Field(default=100, ge=1, le=1000)
    agnostic_nms: bool = Field(default=False, description="Suppress overlapping boxes of different classes too.")
    class_thresholds: dict[str, Probability] = Field(
        default={}, description="By label: a lowest score that replaces score_threshold for it."
    )
    instances: int = Field(default=1, ge=1, le=64)


class TextPostprocess(Strict):
    """How logits become scores for all labels; the labels are `labels.txt` in the network's folder."""

    activation: Activation = "softmax"
    instances: int = Field(default=1, ge=1, le=64)
