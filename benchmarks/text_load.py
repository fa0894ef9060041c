"""Sends texts of different length to the sentiment ensemble of a running Triton; prints how its network batches them.

    modelctl serve --model minilm_sentiment &
    python -m benchmarks.text_load [--url 127.0.0.1:8001]

16 callers send 640 texts: of 3 to 128 tokens, then all of 64; then one caller sends texts of 16 tokens. Batches are
Triton's own count (`inference_count / execution_count` of `minilm_sentiment_network`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc as triton

MODEL, NETWORK = "minilm_sentiment", "minilm_sentiment_network"
# Each is one token of the tokenizer.
WORDS = ("the", "market", "rose", "while", "costs", "fell", "and", "people", "liked", "new", "cheap", "quiet", "phones")


def counts(client: triton.InferenceServerClient) -> tuple[int, int]:
    """Return the number of inferences that the network has done, and of the batches."""
    statistics = client.get_inference_statistics(NETWORK).model_stats[0]
    return statistics.inference_count, statistics.execution_count


def caller(url: str, seed: int, texts: int, length: Callable[[np.random.Generator], int]) -> list[float]:
    """Send texts one after the other; return each call's milliseconds."""
    chance, client, times = np.random.default_rng(seed), triton.InferenceServerClient(url), []
    for _ in range(texts):
        text = " ".join(chance.choice(WORDS, length(chance) - 2))  # besides [CLS] and [SEP]
        tensor = triton.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], object))
        start = time.perf_counter()
        client.infer(MODEL, [tensor])
        times.append((time.perf_counter() - start) * 1e3)
    return times


def load(url: str, callers: int, texts: int, length: Callable[[np.random.Generator], int]) -> str:
    """Return one line about `callers` sending `texts` in all."""
    client = triton.InferenceServerClient(url)
    before, start = counts(client), time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        futures = [pool.submit(caller, url, seed, texts // callers, length) for seed in range(callers)]
        times = [value for future in futures for value in future.result()]
    seconds, after = time.perf_counter() - start, counts(client)
    done, batches = after[0] - before[0], after[1] - before[1]
    rate, size = len(times) / seconds, done / batches
    return f"{rate:.0f} texts/s, {done} in {batches} batches: {size:.2f} a batch, median {np.median(times):.1f} ms"


def main() -> None:
    """Warm up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="127.0.0.1:8001")
    url = parser.parse_args().url
    load(url, 16, 64, lambda _: 20)
    for _ in range(2):
        print("16 callers, 3 to 128 tokens:", load(url, 16, 640, lambda chance: int(chance.integers(3, 129))))
        print("16 callers, 64 tokens:      ", load(url, 16, 640, lambda _: 64))
    print("1 caller, 16 tokens:        ", load(url, 1, 60, lambda _: 16))


if __name__ == "__main__":
    main()
