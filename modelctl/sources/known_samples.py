"""What the project's own samples show or say, and whether a model that knows these things says so.

labels of ImageNet, COCO, Pascal VOC or moods -> the samples that such a model must answer rightly -> a warning
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelctl.models.spec import EnsembleSpec, ImageClassification, ObjectDetection
from modelctl.reference.answers import Found, iou
from modelctl.reference.examined import Examined

OVERLAP = 0.5
IMAGENET_SIZES = (1000, 1001)
COCO_SIZES = range(78, 93)
"""80 classes; 90 or 91 where the numbering has gaps; one more with a background."""
VOC_SIZES = (20, 21)
WORDNET = re.compile(r"n\d{8}")
FIRST = "check --channel-order, --scale, --mean and --std first, then --resize and the order of --labels"
FIRST_OF_BOXES = f"{FIRST[: -len('--labels')]}--labels, and --decoder and --activation"


@dataclass(frozen=True)
class Known:
    """What one sample shows.

    Attributes:
        what: in words.
        classes: ImageNet's names and WordNet numbers for it; empty where it has none.
        label: COCO's.
        box: xmin, ymin, xmax, ymax as parts of the picture's width and height.

    """

    what: str
    classes: tuple[str, ...]
    label: str
    box: tuple[float, float, float, float]


CATS = (
    *("tabby", "tabby cat", "tiger cat", "persian cat", "siamese cat", "egyptian cat"),
    *("n02123045", "n02123159", "n02123394", "n02123597", "n02124075"),
)
CUPS = ("espresso", "cup", "coffee mug", "n07920052", "n07930864", "n03063599")
SAMPLES: Mapping[str, Known] = {
    "astronaut.jpg": Known("a person", (), "person", (0.02, 0.02, 0.72, 1.0)),
    "chelsea.jpg": Known("a cat", CATS, "cat", (0.0, 0.0, 0.94, 1.0)),
    "coffee.jpg": Known("a cup of espresso", CUPS, "cup", (0.27, 0.04, 0.71, 0.77)),
}

MOODS = {"1": "positive", "2": "negative", "4": "positive", "5": "negative"}
"""Of the sample texts, by their number: a product's, and a company's."""
OPPOSITE = {"positive": "negative", "negative": "positive"}
MIN_WRONG_MOODS = 2
"""A model of reviews may read the news wrongly, and the reverse."""


def faults(spec: EnsembleSpec, labels: Sequence[str], examined: Mapping[str, Examined]) -> list[str]:
    """Return a sentence when known samples are answered wrongly; empty where the labels are of no known set."""
    if isinstance(spec, ObjectDetection):
        return _detector(labels, examined)
    return _classifier(labels, examined) if isinstance(spec, ImageClassification) else _moods(labels, examined)


def _classifier(labels: Sequence[str], examined: Mapping[str, Examined]) -> list[str]:
    words = [names(label) for label in labels]
    there = set().union(*words)
    if len(labels) not in IMAGENET_SIZES or not (there & set(CATS) and there & set(CUPS)):
        return []
    wrong = [
        f"{name} shows {known.what} and is answered {one.found[0].label} {one.found[0].score:.3f}"
        for name, known, one in _pairs(examined)
        if known.classes and not names(one.found[0].label) & set(known.classes)
    ]
    return [f"{'; '.join(wrong)}: {FIRST}."] if wrong else []


def _moods(labels: Sequence[str], examined: Mapping[str, Examined]) -> list[str]:
    """Return a sentence when texts are answered with the opposite of their mood; neutral is never wrong."""
    if not set(OPPOSITE) <= {_plain(label) for label in labels}:
        return []
    wrong = [
        f"'{name}' is {mood} and is answered {one.found[0].label} {one.found[0].score:.3f}"
        for name, one in examined.items()
        if (mood := MOODS.get(name.partition(":")[0])) and _plain(one.found[0].label) == OPPOSITE[mood]
    ]
    hint = "check the order of --labels and --tokenizer first"
    return [f"{'; '.join(wrong)}: {hint}."] if len(wrong) >= MIN_WRONG_MOODS else []


def shown(labels: Sequence[str], examined: Mapping[str, Examined]) -> list[str]:
    """Return what the samples show that a detector of COCO's or Pascal VOC's labels must find; empty for others."""
    there = {_plain(label) for label in labels}
    coco = len(labels) in COCO_SIZES and {"person", "cat", "cup", "toothbrush"} <= there
    voc = len(labels) in VOC_SIZES and {"person", "cat", "aeroplane"} <= there
    return [known.what for _, known, _ in _pairs(examined) if known.label in there] if coco or voc else []


def _detector(labels: Sequence[str], examined: Mapping[str, Examined]) -> list[str]:
    expected = shown(labels, examined)
    wrong = [
        f"{name} shows {known.what} {fault}"
        for name, known, one in _pairs(examined)
        if known.what in expected and (fault := _miss(known, one))
    ]
    return [f"{'; '.join(wrong)}: {FIRST_OF_BOXES}."] if wrong else []


def _miss(known: Known, one: Examined) -> str:
    assert one.place is not None  # noqa: S101 - pictures have one
    same = [found for found in one.found if _plain(found.label) == known.label]
    if not same:
        answered = f"answered {_said(one.found[0])}" if one.found else "no box is found"
        return f"and {'is ' if one.found else ''}{answered}"
    box = np.array(known.box) * np.tile(one.place.picture, 2)
    if max(iou(np.array(found.box), box) for found in same) >= OVERLAP:
        return ""
    return f"elsewhere than {_said(same[0])}"


def _said(found: Found) -> str:
    return f"{found.label} {found.score:.3f} [{', '.join(f'{side:.0f}' for side in found.box)}]"


def _pairs(examined: Mapping[str, Examined]) -> list[tuple[str, Known, Examined]]:
    return [(name, known, examined[name]) for name, known in SAMPLES.items() if name in examined]


def names(label: str) -> set[str]:
    """Return all names in a label such as 'n02123045 tabby, tabby cat', in lower case."""
    numbers = set(WORDNET.findall(label))
    return numbers | {_plain(part) for part in WORDNET.sub("", label).split(",")} - {""}


def _plain(label: str) -> str:
    return " ".join(re.sub(r"[_\-:]", " ", label.lower()).split())
