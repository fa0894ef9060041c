"""Options of the query: read, cached, and refused with a sentence."""

from __future__ import annotations

import pytest

from app.errors import InvalidParameterError
from app.http import query
from app.tasks.classification import ClassificationOptions
from app.tasks.detection import DetectionOptions


def test_options_are_read() -> None:
    """Numbers, lists and encoded texts."""
    options = query.read(
        DetectionOptions, b"score_threshold=0.5&classes=person&classes=traffic%20light&max_detections=3"
    )
    assert options.model_dump(exclude_none=True) == {
        "score_threshold": 0.5,
        "classes": ["person", "traffic light"],
        "max_detections": 3,
    }
    assert query.read(DetectionOptions, b"classes=0").model_dump(exclude_none=True) == {"classes": ["0"]}
    assert query.read(ClassificationOptions, b"") == ClassificationOptions()


@pytest.mark.parametrize("given", [b"top_k=0", b"model=" + b"m" * 300])
def test_wrong_options_are_refused_every_time(given: bytes) -> None:
    """Short queries are cached, their errors are not."""
    for _ in range(2):
        with pytest.raises(InvalidParameterError):
            query.read(ClassificationOptions, given)


def test_options_of_suppression_are_spelled_exactly() -> None:
    """A flag is true or false; thresholds of classes are a JSON object, which goes to the model as it is."""
    options = query.read(DetectionOptions, b"agnostic_nms=true&class_thresholds=%7B%22person%22:0.6%7D")
    assert options.parameters() == {"agnostic_nms": True, "class_thresholds": '{"person":0.6}'}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (b"agnostic_nms=1", "agnostic_nms must be true or false"),
        (b"class_thresholds=0.5", "class_thresholds must be a JSON object such as"),
        (b"class_thresholds=%7B", "class_thresholds must be a JSON object such as"),
        (b"class_thresholds=%7B%22a%22:2%7D", "class_thresholds must give each label a number from 0 to 1"),
        (b"class_thresholds=%7B%22a%22:true%7D", "class_thresholds must give each label a number from 0 to 1"),
    ],
)
def test_options_of_suppression_that_say_nothing_are_refused(given: bytes, sentence: str) -> None:
    """The gateway knows no labels: an unknown one is refused by the model's step."""
    with pytest.raises(InvalidParameterError, match=sentence):
        query.read(DetectionOptions, given)
