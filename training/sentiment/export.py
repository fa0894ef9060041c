"""Writes the sentiment network as it is served, and in the plain form for TensorRT.

    python -m training.sentiment.export [--weights FILE ...] --out FILE [--plain FILE] [--packed FILE]

    weights --graph.build--> float32 --row_bytes, byte_weights--> int8 --trim--> model.onnx

The weights come from `train.py` (.safetensors) or, by default, from the served network, whose bytes are then written
again. `--plain` writes float32 [N, L] without packing, trimming or int8, because TensorRT needs shapes that do not
depend on data. Convert that file to float16 if needed, then build the plan with the profile
`input_ids:8x128,attention_mask:8x128`. Needs numpy, onnx and safetensors, not torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from safetensors.numpy import load_file

from modelctl.graphs.row_bytes import row_bytes
from modelctl.graphs.trim import trim_to_longest
from training.onnx_store import byte_weights, read_weights
from training.sentiment.graph import TABLES, build, fused

SERVED = Path("models/minilm_sentiment_network/1/model.onnx")
TABLE = 1_000_000  # only the word table has more numbers
Weights = dict[str, npt.NDArray[np.float32]]


def load(paths: Sequence[Path]) -> Weights:
    """Return the weights in the graph's layout: of a served .onnx file, or of state dicts (.safetensors).

    Several state dicts (training runs from the same start) are averaged by name, then rounded to float16.
    """
    if paths[0].suffix == ".onnx":
        return served_weights(paths[0])
    found: dict[str, list[npt.NDArray[np.float32]]] = {}
    for state in map(load_file, paths):
        for name, value in state.items():
            found.setdefault(name, []).append(value.astype(np.float32))
    means = {name: np.mean(values, axis=0, dtype=np.float32) for name, values in found.items()}
    return fused({name: value.astype(np.float16).astype(np.float32) for name, value in means.items()})


def served_weights(path: Path) -> Weights:
    """Return the weights of a served network, without the graph's constants."""
    weights = read_weights(onnx.load(path))
    return {name: w for name, w in weights.items() if name in TABLES or name.endswith((".weight", ".bias"))}


def served(weights: Weights) -> onnx.ModelProto:
    """Return the network that is served, from weights as `load` gives them."""
    return trim_to_longest(byte_weights(row_bytes(build(weights, packed=True)), TABLE))


def main() -> None:
    """Write the requested files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        default=[SERVED],
        help=f"a served network, or state dicts whose equal names are averaged (default: {SERVED})",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plain", type=Path, help="also write the float32 network without packing")
    parser.add_argument("--packed", type=Path, help="also write the float32 network with packing and trimming")
    args = parser.parse_args()
    weights = load(args.weights)
    onnx.save(served(weights), args.out)
    if args.plain:
        onnx.save(build(weights, packed=False), args.plain)
    if args.packed:
        onnx.save(trim_to_longest(build(weights, packed=True)), args.packed)


if __name__ == "__main__":
    main()
