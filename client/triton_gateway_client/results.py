"""The gateway's answers as frozen values. Fields that a newer gateway adds are ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

if TYPE_CHECKING:
    import PIL.Image

    from triton_gateway_client.images import ImageInput


class Value(BaseModel):
    """A frozen value that can be written as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that the gateway sent, in JSON's own types."""
        return self.model_dump(mode="json", exclude_unset=True)


class Result(Value):
    """The fields that every task's result has."""

    model: str
    version: str
    request_id: str
    _timing: Mapping[str, float] = PrivateAttr(default_factory=dict)

    @property
    def timing(self) -> Mapping[str, float]:
        """Milliseconds that the gateway spent on each part: `read`, `wait`, `triton`, `encode`.

        An item of a batch has the durations of the whole batch.
        """
        return self._timing

    def with_timing(self, server_timing: str) -> Self:
        """Set `timing` from an answer's `Server-Timing` header; return this result."""
        self._timing = milliseconds_of(server_timing)
        return self


class ImageSize(Value):
    """Pixels of the upright image."""

    width: int
    height: int


class Prediction(Value):
    """One class."""

    label: str
    class_id: int
    score: float


class Classification(Result):
    """The classes of one image, best first."""

    image: ImageSize
    predictions: tuple[Prediction, ...]

    def __iter__(self) -> Iterator[Prediction]:  # type: ignore[override]  # more useful than pydantic's pairs
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def best(self) -> Prediction:
        """The most probable class."""
        return self.predictions[0]

    def draw(self, image: ImageInput) -> PIL.Image.Image:
        """Return a copy of the image, upright and in RGB, with the classes written on it. Needs Pillow."""
        from triton_gateway_client import drawing  # here, because it needs Pillow, which is optional

        return drawing.captioned(image, [f"{each.label} {each.score:.0%}" for each in self.predictions])


class Box(Value):
    """Pixels of the upright image, origin top left."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Detection(Value):
    """One object."""

    label: str
    class_id: int
    score: float
    box: Box


class Detections(Result):
    """The objects of one image, best first; may be empty."""

    image: ImageSize
    predictions: tuple[Detection, ...]

    def __iter__(self) -> Iterator[Detection]:  # type: ignore[override]  # more useful than pydantic's pairs
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def best(self) -> Detection | None:
        """The most probable object; None when there is none."""
        return self.predictions[0] if self.predictions else None

    def draw(self, image: ImageInput) -> PIL.Image.Image:
        """Return a copy of the image, upright and in RGB, with the boxes and their labels drawn. Needs Pillow.

        The boxes are scaled when the image differs in size from the one that was sent.
        """
        from triton_gateway_client import drawing  # here, because it needs Pillow, which is optional

        marks = [
            drawing.Mark(
                (each.box.xmin, each.box.ymin, each.box.xmax, each.box.ymax),
                f"{each.label} {each.score:.0%}",
                each.class_id,
            )
            for each in self.predictions
        ]
        return drawing.framed(image, (self.image.width, self.image.height), marks)


class LabelScore(Value):
    """One label of a text."""

    label: str
    score: float


class Usage(Value):
    """Number of tokens that the model read, and whether the text was truncated."""

    tokens: int
    truncated: bool


class Sentiment(Result):
    """The sentiment of one text: the best label, and all scores, best first."""

    label: str
    score: float
    scores: tuple[LabelScore, ...]
    usage: Usage


class Model(Value):
    """One model of the catalogue. `state` is `ready`, `not_ready` or `unsupported`."""

    name: str
    task: str
    default: bool
    state: str
    reason: str | None = None
    versions: tuple[str, ...]
    steps: tuple[str, ...]
    max_batch_size: int
    url: str


class ModelList(Value):
    """The catalogue."""

    models: tuple[Model, ...]


class ModelHealth(Value):
    """Whether a default model gives its expected answer."""

    model: str
    task: str
    ready: bool
    reason: str | None = None


class Health(Value):
    """Whether the default models give their expected answers. `status` is `ready` or `not_ready`."""

    status: str
    reason: str | None = None
    models: tuple[ModelHealth, ...]

    @property
    def ready(self) -> bool:
        """Whether all default models give their expected answers."""
        return self.status == "ready"


class BatchAnswer(Value):
    """The answer of a batch route: each row is a result or a problem, with the item's index."""

    results: tuple[dict[str, Any], ...]
    failed: int


def milliseconds_of(server_timing: str) -> dict[str, float]:
    """Return the durations, in ms, of a `Server-Timing` header (W3C Server Timing), without metrics that have none."""
    found = {}
    for metric in server_timing.split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.lower() == "dur":
                try:
                    found[name] = float(value.strip('"'))
                except ValueError:
                    continue
    return found
