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
