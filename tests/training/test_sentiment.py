"""The shipped sentiment network gives a text the same answer in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelctl.graphs.trim import trim_to_longest
from training.sentiment import export, graph

SHIPPED = Path(__file__).parents[2] / "models/minilm_sentiment_network/1/model.onnx"
LENGTHS = [3, 128, 16, 40, 5, 77, 9, 25]


def session(model: str | bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def texts(lengths: list[int], vocabulary: int, width: int = 128) -> dict[str, Any]:
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": np.random.default_rng(5).integers(1, vocabulary, mask.shape) * mask, "attention_mask": mask}


def part(inputs: dict[str, Any], chosen: Any) -> dict[str, Any]:
    return {name: value[chosen] for name, value in inputs.items()}


@pytest.fixture(scope="module")
def shipped() -> Any:
    return session(str(SHIPPED))


def test_the_shipped_file_is_made_again_from_its_own_weights() -> None:
    assert export.served(export.load([SHIPPED])).SerializeToString() == SHIPPED.read_bytes()


def test_the_shipped_network_answers_a_text_alone_as_among_others(shipped: Any) -> None:
    inputs = texts(LENGTHS, 30000)
    together = shipped.run(None, inputs)[0]
    alone = np.concatenate([shipped.run(None, part(inputs, [i]))[0] for i in range(len(LENGTHS))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_shipped_network_does_not_see_padding(shipped: Any) -> None:
    padded = texts([16, 9], 30000)
    bare = {name: value[:, :16] for name, value in padded.items()}
    np.testing.assert_allclose(shipped.run(None, padded)[0], shipped.run(None, bare)[0], atol=1e-5)


def test_packed_and_plain_graphs_give_equal_answers() -> None:
    weights = random_weights(vocabulary=60)
    plain = session(graph.build(weights, packed=False).SerializeToString())
    packed = session(trim_to_longest(graph.build(weights, packed=True)).SerializeToString())
    inputs = texts(LENGTHS, 60)
    np.testing.assert_allclose(packed.run(None, inputs)[0], plain.run(None, inputs)[0], atol=1e-4)


def random_weights(vocabulary: int) -> dict[str, Any]:
    """Return weights in the layout that `graph.fused` makes, small enough to be quick."""
    random, width, wide = np.random.default_rng(2), graph.WIDTH, 4 * graph.WIDTH
    shapes: dict[str, tuple[int, ...]] = {"words": (vocabulary, width), "places": (graph.LONGEST, width)}
    shapes |= {"head.weight": (width, 3), "head.bias": (3,), "ln.weight": (width,), "ln.bias": (width,)}
    for layer in (f"layers.{index}." for index in range(graph.LAYERS)):
        sizes = {"qkv": (width, 3 * width), "o": (width, width), "up": (width, wide), "down": (wide, width)}
        for name, size in sizes.items():
            shapes |= {f"{layer}{name}.weight": size, f"{layer}{name}.bias": size[1:]}
        shapes |= {f"{layer}{norm}.{kind}": (width,) for norm in ("ln1", "ln2") for kind in ("weight", "bias")}
    return {name: (random.standard_normal(shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}
