"""Warnings on a model's answers: what is wrong with them whatever the pictures or texts show.

    examined samples --judge--> sentences, each with the options to check; none where nothing is suspicious

No rule compares two recipes by their scores: the surest recipe is seldom the right one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from modelctl.models.spec import EnsembleSpec, ImageClassification, ObjectDetection, TextClassification
from modelctl.models.steps import DetectionPostprocess
from modelctl.reference.answers import Found, iou
from modelctl.reference.examined import Array, Examined
from modelctl.sources import known_samples

EXACTLY_ONE = 1 - 1e-6
SUM_OF_PROBABILITIES = 5e-3
MANY_CLASSES = 10
"""From here on, a first score that a softmax of probabilities could give is no answer."""
MANY_SAMPLES = 5
MANY_TRUE = 0.25
"""Part of the classes that a sigmoid finds true of every sample, where the scores were made for a softmax."""
ALIKE = 0.01
"""Scores that differ by less are the same answer."""
CORNER = 0.06
"""Part of the tensor's side: undecoded boxes of YOLOX, and normalised ones, lie within it."""
OUTSIDE = 0.25
"""Part of a box's area beyond the picture; a right box crosses the edge by a few pixels."""
TWINS = 0.8
"""Overlap of two boxes of one label that are the same object: only NMS that is missing leaves them."""
MOST = 0.5
"""A fault of this part of all boxes is the head's, not a box's."""


def judge(spec: EnsembleSpec, labels: Sequence[str], examined: Mapping[str, Examined]) -> list[str]:
    """Return a sentence for each doubt about the answers to the samples."""
    if not examined:
        return []
    all_of_them = list(examined.values())
    if isinstance(spec, ObjectDetection):
        if not any(one.found for one in all_of_them):
            shown = known_samples.shown(labels, examined)
            return [_no_box(spec.postprocess, shown), *_geometry(all_of_them)]
        own = _detections(spec.postprocess, len(labels), all_of_them)
    else:
        own = _rankings(spec, all_of_them)
    return [*own, *known_samples.faults(spec, labels, examined)]


def _no_box(settings: DetectionPostprocess, shown: Sequence[str]) -> str:
    seen = f", and they show {', '.join(shown)}" if shown else ""
    hint = "" if shown else " If no sample shows its classes, give a picture that does: --expect PICTURE=LABEL."
    return (
        f"No box in any sample, with a score threshold of {settings.score_threshold:g}{seen}: the weights, --scale, "
        f"--mean, --std, --decoder, --activation or --box-unit may be wrong.{hint}"
    )


def _rankings(spec: ImageClassification | TextClassification, examined: Sequence[Examined]) -> list[str]:
    activation = spec.postprocess.activation
    recipe = "--tokenizer" if isinstance(spec, TextClassification) else "--scale, --mean, --std and --layout"
    logits = np.stack([one.logits for one in examined])
    first = [one.found[0] for one in examined]
    tops, classes = np.array([one.score for one in first]), logits.shape[-1]
    raw = _activation_faults(activation, logits)
    if raw:
        return raw
    found = []
    if len(first) > 1 and (tops >= EXACTLY_ONE).all():
        found.append(f"Every sample's first score is exactly 1: check --activation, {recipe}.")
    true = int((logits > 0).sum(axis=-1).min())
    if activation == "sigmoid" and classes >= MANY_CLASSES and true > MANY_TRUE * classes:
        found.append(f"At least {true} of {classes} classes have a score above 0.5: check --activation (softmax).")
    if activation == "softmax" and _is_flat(tops, classes):
        found.append(
            f"Every sample's scores are flat (the first is {tops.max():.3g} at most, of {classes} classes): "
            f"check --activation, {recipe}."
        )
    if len(first) > 1 and len({one.label for one in first}) == 1 and _is_telling(tops, classes):
        found.append(
            f"Every sample is answered {first[0].label} ({tops.min():.3f} to {tops.max():.3f}): check {recipe}."
        )
    return found


def _activation_faults(activation: str, logits: Array) -> list[str]:
    """Return a sentence where the outputs show that the activation is the wrong one."""
    low, high, classes = logits.min(), logits.max(), logits.shape[-1]
    within = low >= -SUM_OF_PROBABILITIES and high <= 1 + SUM_OF_PROBABILITIES
    if activation == "none":
        return (
            []
            if within
            else [f"The outputs lie between {low:.3g} and {high:.3g} and are cut to 0 to 1: check --activation none."]
        )
    if classes > 1 and within and np.allclose(logits.sum(axis=-1), 1, atol=SUM_OF_PROBABILITIES):
        return [f"The outputs are probabilities, which the {activation} flattens: give --activation none."]
    if within and low >= 0 and activation == "sigmoid":
        return ["The outputs lie between 0 and 1, and the sigmoid makes them 0.5 to 0.73: give --activation none."]
    return []


def _is_flat(tops: Array, classes: int) -> bool:
    limit = math.e / (math.e + classes - 1) if classes >= MANY_CLASSES else 1.1 / classes
    return classes > 1 and bool((tops <= limit).all())


def _is_telling(tops: Array, classes: int) -> bool:
    """Tell whether one label for everything is suspicious: of two classes, a few samples may well have the same."""
    return classes > 1 and (classes > 2 or len(tops) >= MANY_SAMPLES or float(np.ptp(tops)) < ALIKE)


def _detections(settings: DetectionPostprocess, classes: int, examined: Sequence[Examined]) -> list[str]:
    found = [box for one in examined for box in one.found]
    doubts = _geometry(examined)
    full = sum(len(one.found) >= settings.max_detections for one in examined)
    if full:
        doubts.append(
            f"{full} of {len(examined)} samples have as many boxes as --max-detections allows "
            f"({settings.max_detections}): check --decoder and --activation."
        )
    scores = np.array([box.score for box in found])
    if scores.max() > 1 + SUM_OF_PROBABILITIES:
        doubts.append(f"Scores reach {scores.max():.3g}, above 1: check --decoder and --activation.")
    elif len(scores) > 1 and (scores >= EXACTLY_ONE).all():
        doubts.append(f"All {len(scores)} scores are exactly 1: check --activation and --scale.")
    twins = sum(_has_twin(box, one.found) for one in examined for box in one.found)
    if twins > MOST * len(found) and (settings.iou_threshold or 0) <= TWINS:
        doubts.append(
            f"{twins} of {len(found)} boxes are there twice or more: its head is before NMS, check --decoder."
        )
    labels, seen = {box.label for box in found}, sum(bool(one.found) for one in examined)
    if len(labels) == 1 and classes > 2 and seen > 2:
        doubts.append(f"Every box in {seen} samples is {found[0].label}: check --decoder, --scale and the labels.")
    return doubts


def _has_twin(box: Found, others: Sequence[Found]) -> bool:
    same = (other for other in others if other is not box and other.label == box.label)
    return any(iou(np.array(box.box), np.array(other.box)) > TWINS for other in same)


def _geometry(examined: Sequence[Examined]) -> list[str]:
    """Return a sentence where most candidates lie where no box can lie."""
    boxes = np.concatenate([one.boxes for one in examined])
    if not len(boxes):
        return []
    sides = np.concatenate([np.tile(one.place.tensor, (len(one.boxes), 2)) for one in examined if one.place])
    count = f"of {len(boxes)} candidates"
    if (np.abs(boxes) <= np.maximum(2, CORNER * sides)).all():
        return [
            f"All boxes ({count}) lie within {np.abs(boxes).max():.2g} pixels of the network's upper left corner: "
            "check --box-unit (normalized) and --encoded."
        ]
    turned = ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])).sum()
    if turned > MOST * len(boxes):
        return [f"{turned} {count} end before they begin (right of left, or below of above): check --decoder."]
    outside = sum(_outside(one) for one in examined)
    if outside > MOST * len(boxes):
        return [
            f"{outside} {count} lie outside the picture by more than a quarter: check --decoder (corners or centres), "
            "--box-unit, --encoded and --resize."
        ]
    return []


def _outside(one: Examined) -> int:
    """Return how many candidates lie outside the picture by more than `OUTSIDE` of their area."""
    if one.place is None or not len(one.boxes):
        return 0
    boxes = one.in_picture
    inside = boxes.clip(0, np.tile(one.place.picture, 2))
    whole, part = (np.prod(np.maximum(each[:, 2:] - each[:, :2], 0), axis=1) for each in (boxes, inside))
    return int((part < (1 - OUTSIDE) * whole).sum())
