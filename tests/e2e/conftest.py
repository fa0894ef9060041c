"""Two hundred varied inputs and their expected answers by Pillow, ONNX Runtime and numpy, without the product."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from PIL import Image, ImageOps
from skimage import data
from tokenizers import Tokenizer

MODELS = Path(__file__).resolve().parent.parent.parent / "models"
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
Array = npt.NDArray[Any]


def session(name: str) -> ort.InferenceSession:
    """Open a bundled network; without the nodes in front that normalise a picture, which these references do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    model = onnx.load(MODELS / name / "1" / "model.onnx")
    nodes = [node for node in model.graph.node if not node.name.startswith("fold/")]
    if len(nodes) < len(model.graph.node):
        (entry,) = model.graph.input
        for node in nodes:
            node.input[:] = [one.removeprefix("fold/") for one in node.input]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        size = entry.type.tensor_type.shape.dim[1].dim_value
        shape = ["N", 3, size, size]
        entry.CopyFrom(onnx.helper.make_tensor_value_info(entry.name, onnx.TensorProto.FLOAT, shape))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def labels(name: str) -> list[str]:
    """Return a bundled network's labels."""
    return (MODELS / name / "labels.txt").read_text().splitlines()


def upright(encoded: bytes) -> Image.Image:
    """Return an image upright, on white, in RGB."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def normalised(image: Image.Image) -> Array:
    """Return [1, 3, h, w] as the networks were trained."""
    return ((np.asarray(image) / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)


class ReferenceClassifier:
    """The expected answers of `efficientnet_lite0`."""

    def __init__(self) -> None:
        self._session = session("efficientnet_lite0_network")
        self._labels = labels("efficientnet_lite0_network")

    def __call__(self, encoded: bytes) -> dict[str, float]:
        """Return the probability of every label... of its index, as labels may repeat."""
        image = upright(encoded)
        scale = 256 / min(image.size)
        size = (max(256, round(image.width * scale)), max(256, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
        x, y = (image.width - 224) // 2, (image.height - 224) // 2
        (logits,) = self._session.run(None, {"input": normalised(image.crop((x, y, x + 224, y + 224)))})[0]
        odds = np.exp(logits - logits.max())
        return dict(enumerate((odds / odds.sum()).tolist()))


@dataclass
class Box:
    """One detection."""

    label: str
    score: float
    corners: tuple[float, ...]
    certain: bool = True
    """False when a threshold decides about it by less than a thousandth."""


def overlap(a: Array, b: Array) -> float:
    """Return the intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


class ReferenceDetector:
    """The expected answers of `lite_detector`, computed by loops."""

    threshold, iou = 0.3, 0.5

    def __init__(self) -> None:
        self._session = session("lite_detector_network")
        self._labels = labels("lite_detector_network")

    def __call__(self, encoded: bytes) -> list[Box]:
        image = upright(encoded)
        scale = 416 / max(image.size)
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        canvas = Image.new("RGB", (416, 416), (114, 114, 114))
        canvas.paste(image.resize(size, Image.Resampling.BILINEAR))
        (rows,) = self._session.run(None, {"images": normalised(canvas)})[0]
        ratio = np.array([size[0] / image.width, size[1] / image.height] * 2)
        return self._kept(rows, ratio, image.size)

    def _kept(self, rows: Array, ratio: Array, size: tuple[int, int]) -> list[Box]:
        candidates = []
        for row in rows.astype(np.float64):
            best = int(row[5:].argmax())
            score = row[4] * row[5 + best]
            if score > self.threshold - 1e-3:
                cx, cy, w, h = row[:4]
                corners = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) / ratio
                candidates.append((float(score), best, corners))
        kept: list[tuple[float, int, Array, bool]] = []
        for score, best, corners in sorted(candidates, key=lambda candidate: -candidate[0]):
            rivals = [(overlap(corners, other), sure) for _, label, other, sure in kept if label == best]
            if any(value > self.iou + 1e-3 and sure for value, sure in rivals):
                continue
            sure = score > self.threshold + 1e-3 and not any(value > self.iou - 1e-3 for value, _ in rivals)
            kept.append((score, best, corners, sure))
        width, height = size
        limits = np.array([width, height, width, height])
        return [
            Box(self._labels[best], score, tuple(np.clip(corners, 0, limits).tolist()), sure)
            for score, best, corners, sure in kept
        ]


class ReferenceSentiment:
    """The expected answers of `minilm_sentiment`."""

    def __init__(self) -> None:
        self._session = session("minilm_sentiment_network")
        self._labels = labels("minilm_sentiment_network")
        self._tokenizer = Tokenizer.from_file(str(MODELS / "minilm_sentiment_preprocess" / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, text: str) -> tuple[dict[str, float], int, bool]:
        """Return the probabilities, the number of tokens, and whether the text was truncated."""
        full = self._tokenizer.encode(text).ids
        ids = np.array([[*full[:127], full[-1]] if len(full) > 128 else full])
        (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        odds = np.exp(logits - logits.max())
        return dict(zip(self._labels, (odds / odds.sum()).tolist(), strict=True)), ids.size, len(full) > 128


@pytest.fixture(scope="session")
def classifier() -> ReferenceClassifier:
    """Return the reference."""
    return ReferenceClassifier()


@pytest.fixture(scope="session")
def detector() -> ReferenceDetector:
    """Return the reference."""
    return ReferenceDetector()


@pytest.fixture(scope="session")
def sentiment() -> ReferenceSentiment:
    """Return the reference."""
    return ReferenceSentiment()


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _transparent(image: Image.Image) -> Image.Image:
    alpha = Image.linear_gradient("L").resize(image.size)
    image = image.copy()
    image.putalpha(alpha)
    return image


WRITERS: tuple[Callable[[Image.Image], bytes], ...] = (
    lambda image: save(image, "JPEG", quality=88),
    lambda image: save(image, "JPEG", quality=60, exif=_exif(6)),
    lambda image: save(image.convert("L"), "JPEG"),
    lambda image: save(image.convert("CMYK"), "JPEG"),
    lambda image: save(image, "PNG"),
    lambda image: save(_transparent(image), "PNG"),
    lambda image: save(image.quantize(64), "PNG"),
    lambda image: save(image, "WEBP", quality=80),
    lambda image: save(_transparent(image), "WEBP", lossless=True),
    lambda image: save(image, "GIF"),
    lambda image: save(image, "BMP"),
    lambda image: save(image, "TIFF"),
    lambda image: save(image, "AVIF"),
    lambda image: save(image, "JPEG", progressive=True, exif=_exif(3)),
)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Return 70 image files: parts of three photographs at many sizes, in every format and mode."""
    chance = random.Random(7)
    photographs = [Image.fromarray(photo) for photo in (data.coffee(), data.astronaut(), data.chelsea())]
    made = []
    for number in range(70):
        photo = photographs[number % 3]
        width, height = (chance.randint(size // 2, size) for size in photo.size)
        x, y = chance.randint(0, photo.width - width), chance.randint(0, photo.height - height)
        zoom = chance.uniform(0.5, 2)
        size = (round(width * zoom), round(height * zoom))
        part = photo.crop((x, y, x + width, y + height)).resize(size, Image.Resampling.LANCZOS)
        made.append(WRITERS[number % len(WRITERS)](part))
    return made


OPENINGS = (
    "The camera",
    "Quarterly revenue",
    "My new phone",
    "This film",
    "The company",
    "Our hotel room",
    "The update",
)
MIDDLES = ("is", "was", "turned out to be", "has never been", "became", "is said to be", "looks")
ENDINGS = (
    "wonderful",
    "a disappointment",
    "as expected",
    "worse than before",
    "blue",
    "up 12 %",
    "broken",
    "excellent",
)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Return 60 texts of 3 to over 128 tokens, some with accents, emoji and line ends."""
    chance = random.Random(11)
    made = []
    for number in range(60):
        count = 1 + number // 3
        parts = [f"{chance.choice(OPENINGS)} {chance.choice(MIDDLES)} {chance.choice(ENDINGS)}" for _ in range(count)]
        made.append(("😀 Ünïcode\n" if number % 10 == 9 else "") + ". ".join(parts) + ".")
    made[0], made[1] = "Great", "Awful!"
    return made
