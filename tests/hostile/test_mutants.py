"""Nearly valid files: none of any format takes a second of CPU time, wherever it is decoded."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator

import mutants
import psutil
import pytest
from broken import FULL
from living import words

from stages import pictures
from stages.serving import RefusalError

COUNT = 500 if FULL else 30
MOST_S = 1.0
PARAMETERS = {"resize": "shortest_edge_center_crop", "resize_to": "256", "width": "224", "height": "224"}


@pytest.fixture
def decoder(pillow: None) -> Iterator[pictures.Pictures]:
    """Return the decoder of a step."""
    made = pictures.Pictures(PARAMETERS)
    yield made
    made.close()


def cpu_s() -> float:
    """Return the CPU time of this process, and of its children, living and dead."""
    dead = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = time.process_time() + dead.ru_utime + dead.ru_stime
    for child in psutil.Process().children():
        if "stages.pictures" in words(child):  # a stack that other tests share has processes too
            times = child.cpu_times()
            used += times.user + times.system
    return used


@pytest.mark.parametrize("kind", mutants.FORMATS)
def test_no_mutant_takes_a_second(decoder: pictures.Pictures, kind: str) -> None:
    """Each is served or refused for its own fault; some are served, so mutants get past the checks."""
    answers: Counter[str] = Counter()
    took = []
    for number, file in enumerate(mutants.mutants(kind, COUNT, seed=3)):
        begun = cpu_s()
        try:
            decoder.prepare(file, {}, time.monotonic() + 60)
            code = "served"
        except RefusalError as refusal:
            code = refusal.code
        took.append((cpu_s() - begun, number))
        answers[code] += 1
    print(f"{kind}: {dict(answers)}, slowest {max(took)[0]:.2f} s (number {max(took)[1]})")
    assert answers.keys() <= {"served", "image_undecodable", "image_too_large"}
    assert answers["served"]
    assert max(took)[0] < MOST_S
