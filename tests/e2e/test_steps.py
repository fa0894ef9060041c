"""Every step is a model of its own in Triton: callers with tensors call it directly."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpc
from PIL import Image
from tokenizers import Tokenizer

MODELS = Path(__file__).resolve().parents[2] / "models"
TEXT = "The company expects net sales to fall."


@pytest.fixture(scope="module")
def client(stack: Any) -> Iterator[grpc.InferenceServerClient]:
    """Return NVIDIA's own client, connected to Triton."""
    client = grpc.InferenceServerClient(f"127.0.0.1:{stack.grpc}")
    yield client
    client.close()


def tensor(name: str, array: Any, kind: str) -> grpc.InferInput:
    """Return an input with the values of an array."""
    made = grpc.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def run(name: str, inputs: dict[str, Any]) -> Any:
    """Run a bundled network with ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(MODELS / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def test_the_classification_extension_names_the_labels(client: Any, coffee: bytes) -> None:
    """Triton itself ranks the network's logits, and takes the labels from the network's `label_filename`."""
    picture = Image.open(io.BytesIO(coffee)).resize((224, 224))
    pixels = np.asarray(picture)[None]
    (logits,) = run("efficientnet_lite0_network", {"input": pixels})
    labels = (MODELS / "efficientnet_lite0_network" / "labels.txt").read_text().splitlines()

    wanted = grpc.InferRequestedOutput("output", class_count=3)
    answer = client.infer("efficientnet_lite0_network", [tensor("input", pixels, "UINT8")], outputs=[wanted])
    rows = [row.decode().split(":") for row in answer.as_numpy("output")[0]]
    best = np.argsort(-logits)[:3]
    assert [(int(number), label) for _, number, label in rows] == [(int(one), labels[one]) for one in best]
    assert [float(score) for score, _, _ in rows] == pytest.approx(logits[best].tolist(), abs=1e-3)
    assert rows[0][2] == "espresso"


def test_the_tokenizer_and_the_network_answer_by_themselves(client: Any) -> None:
    """The tokenizer's outputs are the network's inputs; each equals its library."""
    text = np.array([[TEXT.encode()]], np.object_)
    tokens = client.infer("minilm_sentiment_preprocess", [tensor("text", text, "BYTES")])
    expected = Tokenizer.from_file(str(MODELS / "minilm_sentiment_preprocess" / "tokenizer.json"))
    expected.no_padding()
    ids = expected.encode(TEXT).ids
    count = len(ids)
    assert tokens.as_numpy("token_count").tolist() == [[count]]
    assert tokens.as_numpy("truncated").tolist() == [[False]]
    given = {name: tokens.as_numpy(name) for name in ("input_ids", "attention_mask")}
    assert given["input_ids"][0, :count].tolist() == ids
    assert given["attention_mask"].sum() == count

    inputs = [tensor(name, array, "INT64") for name, array in given.items()]
    logits = client.infer("minilm_sentiment_network", inputs).as_numpy("logits")
    np.testing.assert_allclose(logits, run("minilm_sentiment_network", given), atol=1e-4)
    ranked = client.infer(
        "minilm_sentiment_network", inputs, outputs=[grpc.InferRequestedOutput("logits", class_count=1)]
    )
    assert ranked.as_numpy("logits")[0, 0].decode().endswith(":negative")
