"""Measures what folded recipes save; the figures of docs/decisions/0018-pixels-between-steps.md.

    python -m benchmarks.folding [--rounds 6] [--requests 48] [MODEL ...]

Each model is served beside a twin without the nodes `fold/...`, whose step normalises by the recipe in
`network.folded`. The two take turns on one embedded Triton, so that other programs slow both alike: trust the ratios.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tritonclient.grpc import InferenceServerClient, InferInput

from benchmarks.stack import ROOT, Stack
from modelctl.embedded import processes
from modelctl.models import rendering
from modelctl.models import spec as specs

MODELS, PICTURE = ROOT / "models", ROOT / "docs" / "samples" / "coffee.jpg"
STEPS = ("", "_preprocess", "_network", "_postprocess")
CALLERS = (1, 8)
PREFIX = "fold/"
Cost = dict[tuple[str, int], list[float]]


def copy(name: str, folder: Path) -> None:
    """Copy a model into the repository `folder`, and write its twin `plain_<name>` beside it."""
    twin = f"plain_{name}"
    for step in STEPS:
        for target in (name, twin):
            shutil.copytree(MODELS / f"{name}{step}", folder / f"{target}{step}")
    model: Any = specs.read(folder / name / specs.FILE)
    record, image = model.network.folded, model.network.inputs["image"]
    recipe = record.model_dump(exclude={"dtype"})
    how = model.preprocess.model_copy(update=recipe)
    inputs = {"image": image.model_copy(update={"dtype": record.dtype})}
    network = model.network.model_copy(update={"inputs": inputs, "folded": None})
    changes = {"name": twin, "default": False, "preprocess": how, "network": network}
    model = model.model_copy(update=changes)
    cut(folder / model.network_name / "1" / "model.onnx", image.name, how.dims)
    specs.write(model, folder / twin / specs.FILE)
    rendering.write(specs.read(folder / twin / specs.FILE), folder)


def cut(path: Path, name: str, dims: list[int]) -> None:
    """Take the folded nodes out of a network, whose input `name` becomes FP32 [N, *dims]."""
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if not node.name.startswith(PREFIX)]
    for node in nodes:
        node.input[:] = [one.removeprefix(PREFIX) for one in node.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (entry,) = (entry for entry in model.graph.input if entry.name == name)
    entry.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *dims]))
    onnx.save(model, path)


def ask(client: InferenceServerClient, model: str, requests: int) -> None:
    """Send the picture so many times."""
    given = InferInput("image", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[PICTURE.read_bytes()]], np.object_))
    for _ in range(requests):
        client.infer(model, [given])


def measure(stack: Stack, names: list[str], rounds: int, requests: int) -> Iterator[tuple[str, int, float]]:
    """Yield model, callers, and CPU milliseconds per request of Triton and all steps; twins take turns."""
    clients = [InferenceServerClient(stack.address) for _ in range(max(CALLERS))]
    for turn in range(rounds):
        for callers in CALLERS:
            for name in names:
                pair = (name, f"plain_{name}")
                for model in pair if turn % 2 else pair[::-1]:
                    ask(clients[0], model, 2)
                    each = max(1, requests // callers)
                    before = processes.processor_seconds(stack.triton_group)
                    with ThreadPoolExecutor(callers) as pool:
                        list(pool.map(ask, clients[:callers], [model] * callers, [each] * callers))
                    spent = processes.processor_seconds(stack.triton_group) - before
                    yield model, callers, 1e3 * spent / (each * callers)


def table(cost: Cost) -> list[str]:
    """Return the lines of a table; `cost` holds each model before its twin."""
    lines = ["| model @ callers | CPU, ms | without folding, ms | ratio, median of rounds |", "|---|---|---|---|"]
    for (key, own), (_, plain) in list(pairwise(cost.items()))[::2]:
        ratio = statistics.median(a / b for a, b in zip(own, plain, strict=True))
        row = f"{statistics.median(own):.1f} | {statistics.median(plain):.1f} | {ratio:.2f}"
        lines.append(f"| {key[0]} @ {key[1]} | {row} |")
    return lines


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=["efficientnet_lite0", "lite_detector"], metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=48, help="of each model in each round")
    options = parser.parse_args()
    cost: Cost = {}
    for name in options.models:
        for callers in CALLERS:
            cost |= {(name, callers): [], (f"plain_{name}", callers): []}
    with tempfile.TemporaryDirectory() as work:
        repository = Path(work) / "models"
        for name in options.models:
            copy(name, repository)
        with Stack(Path(work), repository, ROOT / "backends") as stack:
            for model, callers, spent in measure(stack, options.models, options.rounds, options.requests):
                cost[model, callers].append(spent)
    print(*table(cost), sep="\n")


if __name__ == "__main__":
    main()
