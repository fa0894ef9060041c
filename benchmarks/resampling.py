"""Measures the CPU time of the filters with which the preprocess step resizes pictures; the figures of docs/models.md.

    python -m benchmarks.resampling [--rounds 20]

The filters take turns, so that other programs slow all of them alike. It is CPU time of this process, of noise in the
named sizes, without decoding.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from PIL import Image

from stages.resampling import filter_of, resize

FILTERS = ("bilinear", "bicubic", "opencv_linear", "opencv_area")
SIZES = (((600, 400), (224, 224)), ((600, 400), (640, 427)), ((1280, 720), (512, 512)), ((4000, 3000), (640, 480)))


def measure(rounds: int) -> dict[tuple[str, str], float]:
    """Return the median CPU time in milliseconds by sizes and filter."""
    source = np.random.default_rng(0)
    made: dict[tuple[str, str], float] = {}
    for before, after in SIZES:
        image = Image.fromarray(source.integers(0, 256, (before[1], before[0], 3), dtype=np.uint8))
        times: dict[str, list[float]] = {name: [] for name in FILTERS}
        for _ in range(rounds):
            for name in FILTERS:
                start = time.process_time()
                resize(image, after, filter_of(name))
                times[name].append((time.process_time() - start) * 1e3)
        row = f"{before[0]} x {before[1]} to {after[0]} x {after[1]}"
        made |= {(row, name): float(np.median(values)) for name, values in times.items()}
    return made


def table(made: dict[tuple[str, str], float]) -> str:
    """Return the times as a table in Markdown."""
    lines = ["| CPU ms | " + " | ".join(f"`{name}`" for name in FILTERS) + " |", "|---" * (len(FILTERS) + 1) + "|"]
    rows = dict.fromkeys(row for row, _ in made)
    lines += [f"| {row} | " + " | ".join(f"{made[row, name]:.1f}" for name in FILTERS) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    print(table(measure(parser.parse_args().rounds)))
