"""What the reference says of answers that are not as expected, and of items that it cannot ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelctl.errors import CommandError
from modelctl.models.expectation import Expectation
from modelctl.reference import samples
from modelctl.reference.answers import Found
from modelctl.reference.expected import unmet

CAT = Expectation(image="cat.jpg", label="cat")
PLACE = Expectation(image="cat.jpg", label="cat", box=[0, 0, 10, 10])


@pytest.mark.parametrize(
    ("expected", "found", "sentence"),
    [
        (CAT, [], "cat.jpg: expected cat, no box was found"),
        (CAT, [Found("dog", 1, 0.9)], "cat.jpg: expected cat, answered dog 0.900"),
        (CAT, [Found("dog", 1, 0.9, (0, 0, 9, 9))], "cat.jpg: expected cat, the best of 1 boxes is dog 0.900"),
        (
            PLACE,
            [Found("cat", 0, 0.9, (5, 0, 15, 10)), Found("cat", 0, 0.8, (50, 50, 60, 60))],
            "cat.jpg: expected cat at 0,0,10,10, its boxes overlap that by 0.33 at most",
        ),
        (PLACE, [Found("dog", 1, 0.9, (0, 0, 9, 9)), Found("cat", 0, 0.3, (0, 0, 10, 9))], ""),
        (CAT, [Found("cat", 0, 0.9), Found("dog", 1, 0.1)], ""),
    ],
)
def test_an_answer_that_is_not_as_expected_is_told(expected: Expectation, found: list[Found], sentence: str) -> None:
    """Without any box, of another label, or elsewhere; a right one is not told."""
    assert unmet(expected, found) == sentence


def test_items_of_another_kind_are_refused(tmp_path: Path) -> None:
    """The option that is proposed is taken."""
    (tmp_path / "texts.txt").write_text("One.\n\nTwo.\n")
    with pytest.raises(CommandError, match=r"^The model takes pictures: give --images\.$"):
        samples.inputs(True, None, tmp_path / "texts.txt")
    with pytest.raises(CommandError, match=r"^The model takes texts: give --texts\.$"):
        samples.inputs(False, tmp_path, None)
    assert list(samples.inputs(False, None, tmp_path / "texts.txt").values()) == [b"One.", b"Two."]
    with pytest.raises(CommandError, match=rf"^There are no pictures in {tmp_path}\.$"):
        samples.inputs(True, tmp_path, None)


def test_items_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """With the reason of the system."""
    with pytest.raises(CommandError, match=r"^The texts cannot be read: .*No such file"):
        samples.inputs(False, None, tmp_path / "no.txt")
    with pytest.raises(CommandError, match=r"^The pictures cannot be read: .*No such file"):
        samples.inputs(True, tmp_path / "no", None)
