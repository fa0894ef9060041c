"""Measures how texts of different length are best batched; the figures of docs/decisions/0002-text-batching.md.

    python -m training.sentiment.export --out served.onnx --plain plain.onnx --packed packed.onnx
    python -m benchmarks.text_batching --plain plain.onnx --packed packed.onnx [--threads 1] [--rounds 12]

16 callers each send their next text, of 3 to 128 tokens, as soon as the last is answered; whenever the network is free
it takes from the queue what Triton's dynamic batcher would (the first text and up to 7 more of its shape). The queue is
simulated, the network's runs are real. The strategies take turns, one batch each, so that other programs slow all of
them alike: trust the ratios. Needs numpy and onnxruntime.

| strategy | a text's shape | network |
|---|---|---|
| own length | its length: only equal lengths batch | plain |
| buckets | 16, 32, 64 or 128, whichever holds it | plain |
| fixed | 128 | plain |
| longest | the longest of the batch: after a 4 ms queue delay in the tokenizer, or by trimming in the network | plain |
| packed | 128; the network trims and runs token-wise steps on real tokens only | float32 and packed, if given |
| served | the same | the shipped file |
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

CALLERS, BATCH, SHORTEST, LONGEST, LONE, DELAY_MS = 16, 8, 3, 128, 16, 4.0
BUCKETS = (16, 32, 64, 128)


@dataclass
class Strategy:
    """How texts are shaped, which network runs them, and its counters."""

    name: str
    network: Any
    shape: Callable[[int], int]
    trims: bool = False
    delay_ms: float = 0
    queue: list[int] = field(default_factory=list)
    texts: int = 0
    batches: int = 0
    busy: float = 0
    lone: list[float] = field(default_factory=list)

    def step(self, random: np.random.Generator) -> None:
        """Fill the queue, take one batch from its head, run it."""
        self.queue += random.integers(SHORTEST, LONGEST + 1, CALLERS - len(self.queue)).tolist()
        first = self.shape(self.queue[0])
        chosen = [index for index, length in enumerate(self.queue) if self.shape(length) == first][:BATCH]
        lengths = [self.queue[index] for index in chosen]
        self.queue = [length for index, length in enumerate(self.queue) if index not in chosen]
        self.busy += self.run(lengths, random)
        self.texts += len(lengths)
        self.batches += 1

    def alone(self, random: np.random.Generator) -> None:
        """Run one text of 16 tokens by itself."""
        self.lone.append(self.run([LONE], random) * 1e3 + self.delay_ms)

    def run(self, lengths: list[int], random: np.random.Generator) -> float:
        """Return the seconds that a batch of texts of these lengths takes."""
        width = max(lengths) if self.trims else self.shape(max(lengths))
        mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
        inputs = {"input_ids": random.integers(1000, 20000, mask.shape) * mask, "attention_mask": mask}
        start = time.perf_counter()
        self.network.run(None, inputs)
        return time.perf_counter() - start

    def line(self, reference: Strategy) -> str:
        """Return one row of the table; throughput also as a multiple of the reference's."""
        rate, base = self.texts / self.busy, reference.texts / reference.busy
        size, lone = self.texts / self.batches, np.median(self.lone)
        return f"| {self.name} | {rate:.0f} ({rate / base:.2f}) | {size:.1f} | {lone:.1f} |"


def session(path: Path, threads: int) -> Any:
    """Return a CPU session set up as the embedded server's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def strategies(plain: Path, packed: Path | None, served: Path, threads: int) -> list[Strategy]:
    """Return the compared strategies; the first, `fixed`, is the reference."""
    network = session(plain, threads)
    made = [
        Strategy("fixed", network, lambda length: LONGEST),
        Strategy("own length", network, lambda length: length),
        Strategy("buckets", network, lambda length: next(size for size in BUCKETS if size >= length)),
        Strategy("longest, after a delay", network, lambda length: LONGEST, trims=True, delay_ms=DELAY_MS),
        Strategy("longest, trimmed in the network", network, lambda length: LONGEST, trims=True),
        Strategy("served", session(served, threads), lambda length: LONGEST),
    ]
    if packed:
        made.insert(-1, Strategy("packed, float32", session(packed, threads), lambda length: LONGEST))
    return made


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plain", type=Path, required=True)
    parser.add_argument("--packed", type=Path, help="float32, packed and trimmed")
    parser.add_argument("--served", type=Path, default=Path("models/minilm_sentiment_network/1/model.onnx"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12, help="batches of each strategy")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    compared = strategies(args.plain, args.packed, args.served, args.threads)
    for strategy in compared:
        strategy.alone(random)
        strategy.lone.clear()
    for _ in range(args.rounds):
        for strategy in compared:
            # The unbatched strategies take one text at a time: as many steps as make about a batch.
            for _ in range(BATCH if strategy.name == "own length" else 1):
                strategy.step(random)
            for _ in range(5):
                strategy.alone(random)
    print(f"{args.threads} thread(s); lone: one text of {LONE} tokens, delay included")
    print("| strategy | texts/s (to fixed) | texts a batch | lone, ms |\n|---|---|---|---|")
    for strategy in compared:
        print(strategy.line(compared[0]))


if __name__ == "__main__":
    main()
