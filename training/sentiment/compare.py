"""Measures the ways to store the sentiment network: size, memory, speed, agreement with float32, effect of neighbours.

    python -m training.sentiment.compare --float32 plain.onnx
        --tokenizer models/minilm_sentiment_preprocess/tokenizer.json --work FOLDER [--data FOLDER] [--also FILE ...]

`export.py --plain` writes the float32 file. The files of `--also` are measured beside the variants. The texts are
sentences written by rule, with a seed that was not trained on, and the hand-written ones of `texts.txt` (label, tab,
text; `-` for no label). Speed is measured with one thread. The variants take turns, so that other load on the machine
affects all alike; the ratios are more reliable than the milliseconds.
"""

from __future__ import annotations

import argparse
import logging
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from tokenizers import Tokenizer

from training.sentiment.labels import LABELS
from training.sentiment.readers import READERS
from training.sentiment.scoring import score, score_binary
from training.sentiment.synthetic import synthetic
from training.sentiment.variants import makers

Floats = npt.NDArray[np.float32]
FRESH_SEED, CALIBRATION_SEED, LENGTH = 2026, 77, 128
MEMORY = """
import onnxruntime, pathlib, sys
pages = lambda: int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * 4096
before = pages()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])
print((pages() - before) / 1e6)
"""


def hand_written() -> list[tuple[str, int]]:
    """Return (text, class) of `texts.txt`; class -1 for no label."""
    lines = Path(__file__).with_name("texts.txt").read_text(encoding="utf8").splitlines()
    rows = [line.split("\t", 1) for line in lines]
    return [(text, LABELS.index(label) if label in LABELS else -1) for label, text in rows]


def tokenize(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's token ids, at most LENGTH of them, unpadded."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def feed(rows: Sequence[Sequence[int]], length: int | None = None) -> dict[str, npt.NDArray[np.int64]]:
    """Return `input_ids` and `attention_mask` [n, L], padded on the right to the longest or to `length`."""
    ids = np.zeros((len(rows), length or max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def session(path: Path, threads: int = 1) -> Any:
    """Return a CPU session with that many threads, which do not spin while they wait."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def alone(network: Any, rows: Sequence[Sequence[int]]) -> Floats:
    """Return the logits [n, 3] of each text run by itself."""
    return np.concatenate([network.run(None, feed([row]))[0] for row in rows])


def together(network: Any, rows: Sequence[Sequence[int]], seed: int, length: int | None, size: int = 8) -> Floats:
    """Return the logits [n, 3] of texts run in random batches, padded to the longest or to `length`."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    made = np.zeros((len(rows), 3), np.float32)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        made[part] = network.run(None, feed([rows[index] for index in part], length))[0]
    return made


def softmax(logits: Floats) -> Floats:
    """Return probabilities over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def latencies(networks: dict[str, Any], length: int, batch: int, rounds: int) -> dict[str, float]:
    """Return each network's median milliseconds a call, the networks taking turns."""
    random_ids = np.random.default_rng(0).integers(1000, 20000, (batch, length))
    inputs = feed(random_ids.tolist())
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(rounds + 2):
        for name, network in networks.items():
            start = time.perf_counter()
            network.run(None, inputs)
            if turn >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: float(np.median(values)) for name, values in times.items()}


def memory(path: Path) -> float:
    """Return the megabytes by which a fresh process grows when it loads the model."""
    run = subprocess.run([sys.executable, "-c", MEMORY, str(path)], check=True, capture_output=True, text=True)
    return float(run.stdout)


def report(networks: dict[str, Any], rows: Sequence[Sequence[int]], labels: Sequence[int]) -> None:
    """Print agreement with float32, accuracy, and the effect of neighbours and padding on the logits."""
    truth = np.array(labels)
    made = sum(label >= 0 for label in labels)
    expected = alone(networks["float32"], rows)
    sample = list(rows[:: max(1, len(rows) // 300)])
    for name, network in networks.items():
        logits = alone(network, rows)
        same = logits.argmax(1) == expected.argmax(1)
        apart = np.abs(softmax(logits) - softmax(expected)).max()
        right = (logits.argmax(1) == truth)[truth >= 0].mean()
        lone = alone(network, sample)
        moved = max(
            float(np.abs(together(network, sample, seed, length) - lone).max())
            for seed, length in ((1, None), (2, None), (3, LENGTH))
        )
        print(
            f"{name:8s} top-1 as float32 {same.mean():.4f}  largest probability difference {apart:.4f}  "
            f"right {right:.4f} of {made}  moved by neighbours {moved:.1e} (largest logit {np.abs(lone).max():.1f})",
            flush=True,
        )


def report_data(networks: dict[str, Any], tokenizer: Path, folder: Path) -> None:
    """Print accuracy on the held-out part of each public data set that lies in `folder`."""
    for name, (read, subfolder) in READERS.items():
        if not (folder / subfolder).is_dir():
            continue
        texts = read(folder / subfolder, "test")
        rows, labels = tokenize(tokenizer, [text for text, _ in texts]), [label for _, label in texts]
        for variant, network in networks.items():
            logits = alone(network, rows)
            polarity = score_binary(logits, labels)["accuracy"]
            print(f"{name:12s} {variant:8s} {score(logits, labels)} polarity {polarity}", flush=True)


def main() -> None:
    """Make the variants, measure them, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("float32", "tokenizer", "work"):
        parser.add_argument("--" + name, type=Path, required=True)
    parser.add_argument("--texts", type=int, default=2000, help="sentences written by rule")
    parser.add_argument("--data", type=Path, help="the public data sets, in the folders that readers.py names")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="further files to measure as they are")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # the quantiser logs every node
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    calibration = [text for text, _ in synthetic(200, CALIBRATION_SEED)] + [text for text, _ in hand_written()[::3]]
    feeds = [feed([row]) for row in tokenize(args.tokenizer, calibration)]
    paths = {name: args.work / f"{name}.onnx" for name in makers(args.float32, feeds)}
    for name, make in makers(args.float32, feeds).items():
        onnx.save(make(), str(paths[name]))
        print(f"{name:8s} {paths[name].stat().st_size / 1e6:6.2f} MB, loaded {memory(paths[name]):6.1f} MB", flush=True)
    networks = {name: session(path) for name, path in (paths | {also.stem: also for also in args.also}).items()}
    for length in (16, 32, 64, 128):
        for batch in (1, 8):
            times = latencies(networks, length, batch, args.rounds)
            shown = "  ".join(f"{name} {ms:6.1f} ({ms / times['float32']:.2f})" for name, ms in times.items())
            print(f"L {length:3d} batch {batch}: {shown}", flush=True)
    texts = synthetic(args.texts, FRESH_SEED) + hand_written()
    report(networks, tokenize(args.tokenizer, [text for text, _ in texts]), [label for _, label in texts])
    if args.data:
        report_data(networks, args.tokenizer, args.data)


if __name__ == "__main__":
    main()
