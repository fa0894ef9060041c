"""The requests of `python -m benchmarks tasks`: one for each workload, as a file that the load generator posts.

Workloads of texts are named after their length in tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from modelctl.errors import CommandError

PICTURES = Path("docs/samples")
# Each is one token of the tokenizer.
WORDS = ("the", "market", "rose", "while", "costs", "fell", "and", "people", "liked", "new", "cheap", "quiet", "phones")
SPECIAL_TOKENS = 2
SCORE = 0.02


@dataclass(frozen=True)
class Workload:
    """One kind of request.

    Attributes:
        name: its name in ratios.
        task: the last part of its route.
        body: the file to post.
        headers: of the request.

    """

    name: str
    task: str
    body: Path
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path of its URL."""
        return f"/v1/{self.task}"


NAMES = ("classify 600x400", "classify 1080p", "detect", "sentiment 16 tokens", "sentiment 128 tokens")
QUICK = ("classify 600x400", "detect", "sentiment 16 tokens")
TASKS = ("classify", "detect", "sentiment")


def write(folder: Path, names: list[str]) -> list[Workload]:
    """Write the requests' bodies to a folder; raises CommandError when the sample pictures are missing."""
    return [_write(folder, name) for name in names]


def _write(folder: Path, name: str) -> Workload:
    task, *rest = name.split()
    file = folder / f"{name.replace(' ', '-')}{'.json' if task == 'sentiment' else '.jpg'}"
    if task == "sentiment":
        file.write_text(json.dumps({"text": text(int(rest[0]))}), "utf-8")
        return Workload(name, task, file, {"Content-Type": "application/json"})
    try:
        if rest == ["1080p"]:
            with Image.open(PICTURES / "coffee.jpg") as picture:
                picture.resize((1920, 1080), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        else:
            file.write_bytes((PICTURES / ("astronaut.jpg" if task == "detect" else "coffee.jpg")).read_bytes())
    except OSError as error:
        raise CommandError(f"{error.filename} is missing: run this in the project's folder.") from error
    return Workload(name, task, file, {"Content-Type": "image/jpeg"})


def text(tokens: int) -> str:
    """Return a text of `tokens` tokens, with the special ones."""
    return " ".join(WORDS[number % len(WORDS)] for number in range(tokens - SPECIAL_TOKENS))


def same(answer: Any, wanted: Any) -> bool:
    """Return whether two answers have the same labels in the same order, with scores within `SCORE`.

    An answer may be a list with one element, from a peer whose API takes batches.
    """
    ours, theirs = _labels(answer), _labels(wanted)
    return (
        bool(ours)
        and [label for label, _ in ours] == [label for label, _ in theirs]
        and all(abs(one[1] - other[1]) <= SCORE for one, other in zip(ours, theirs, strict=True))
    )


def _labels(answer: Any) -> list[tuple[str, float]]:
    if isinstance(answer, list) and len(answer) == 1:
        (answer,) = answer
    if not isinstance(answer, dict):
        return []
    rows = answer.get("predictions") or answer.get("scores") or []
    return [(row["label"], row["score"]) for row in rows]
