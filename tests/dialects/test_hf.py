"""`huggingface_hub.InferenceClient` against the gateway, for the three tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient, close_session
from huggingface_hub.errors import HfHubHTTPError

TEXT = "The pictures are sharp and the battery lasts for days."


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceClient]:
    """Return the client; its connections are closed, as a warning is an error here."""
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # which tests of sources switch on
    yield InferenceClient()
    close_session()


def plain(http: httpx.Client, route: str, image: Path, **query: Any) -> list[dict[str, Any]]:
    """Return the gateway's own predictions."""
    answer = http.post(f"/v1/{route}", content=image.read_bytes(), params=query, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["predictions"]
    return rows


def same(shown: list[Any], expected: list[dict[str, Any]]) -> None:
    """Compare labels and scores with the plain answer."""
    assert [row.label for row in shown] == [row["label"] for row in expected]
    assert [row.score for row in shown] == pytest.approx([row["score"] for row in expected], abs=1e-6)


def test_images_are_classified(client: InferenceClient, http: httpx.Client, stack: Any, samples: Path) -> None:
    """As a file, as bytes without a content type, and with `top_k`, which the client sends as JSON."""
    image, url = samples / "coffee.jpg", f"{stack.url}/v1/classify?format=hf"
    expected = plain(http, "classify", image)
    same(client.image_classification(image, model=url), expected)
    same(client.image_classification(image.read_bytes(), model=url), expected)
    same(client.image_classification(image, model=url, top_k=2), expected[:2])
    same(client.image_classification(image, model=f"{url}&model=efficientnet_lite0&top_k=3"), expected[:3])


def test_objects_are_detected(client: InferenceClient, http: httpx.Client, stack: Any, samples: Path) -> None:
    """Boxes are those of the plain answer, cut to whole pixels; `threshold` is `score_threshold`."""
    image, url = samples / "astronaut.jpg", f"{stack.url}/v1/detect?format=hf"
    for shown, expected in (
        (client.object_detection(image, model=url), plain(http, "detect", image)),
        (client.object_detection(image, model=url, threshold=0.05), plain(http, "detect", image, score_threshold=0.05)),
    ):
        assert shown
        same(shown, expected)
        for row, its in zip(shown, expected, strict=True):
            for side, pixel in its["box"].items():
                assert isinstance(row.box[side], int)
                assert 0 <= pixel - row.box[side] < 1
    assert len(client.object_detection(image, model=url, threshold=0.05)) > len(plain(http, "detect", image))


def test_texts_are_classified(client: InferenceClient, http: httpx.Client, stack: Any) -> None:
    """All labels, best first, or `top_k` of them."""
    url = f"{stack.url}/v1/sentiment?format=hf"
    expected = http.post("/v1/sentiment", json={"text": TEXT}).json()["scores"]
    same(client.text_classification(TEXT, model=url), expected)
    same(client.text_classification(TEXT, model=url, top_k=2), expected[:2])


@pytest.mark.parametrize(
    ("query", "options", "status", "sentence"),
    [
        ("", {"function_to_apply": "softmax"}, 422, "parameters.function_to_apply is not an option of this route."),
        ("", {"top_k": 0}, 422, "parameters.top_k should be greater than or equal to 1."),
        ("", {"top_k": 100_000}, 422, "top_k"),
        ("&top_k=2", {"top_k": 2}, 422, "top_k is given in the query and in the body."),
        ("&model=nothing", {}, 404, "No model of this name serves image-classification."),
        ("&version=9", {}, 404, "There is no version 9; served: 1."),
    ],
)
def test_the_client_shows_why(
    client: InferenceClient, stack: Any, samples: Path, query: str, options: dict[str, Any], status: int, sentence: str
) -> None:
    """A refusal is an error of the client with the status and the reason."""
    with pytest.raises(HfHubHTTPError) as raised:
        client.image_classification(
            samples / "coffee.jpg", model=f"{stack.url}/v1/classify?format=hf{query}", **options
        )
    assert raised.value.response.status_code == status
    assert sentence in str(raised.value)


def test_bad_items_are_told(client: InferenceClient, stack: Any) -> None:
    """An image that is none, an empty text."""
    with pytest.raises(HfHubHTTPError, match="The data is not an image"):
        client.image_classification(b"no image", model=f"{stack.url}/v1/classify?format=hf")
    with pytest.raises(HfHubHTTPError, match="The text is empty"):
        client.text_classification(" ", model=f"{stack.url}/v1/sentiment?format=hf")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/classify?format=xml", {"inputs": ""}, "invalid_parameter"),
        ("/v1/classify/batch?format=hf", {"images": []}, "invalid_parameter"),
        ("/v1/sentiment?format=hf", {"text": "good"}, "malformed_request"),
        ("/v1/sentiment?format=hf", {"inputs": ["good", "bad"]}, "malformed_request"),
        ("/v1/sentiment?format=hf", ["good"], "malformed_request"),
        ("/v1/sentiment?format=hf", {"inputs": "good", "options": {}}, "invalid_parameter"),
        ("/v1/sentiment?format=hf", {"inputs": "good", "parameters": []}, "invalid_parameter"),
        ("/v1/classify?format=hf", {"inputs": "!"}, "malformed_request"),
        ("/v1/detect?format=hf", {"inputs": "", "parameters": {"threshold": "0.5"}}, "invalid_parameter"),
        ("/v1/detect?format=hf", {"inputs": "", "parameters": {"top_k": 1}}, "invalid_parameter"),
    ],
)
def test_other_bodies_are_refused(http: httpx.Client, path: str, body: object, code: str) -> None:
    """Bodies that the client never sends are refused, not guessed."""
    assert http.post(path, json=body).json()["code"] == code


def test_names_outside_ascii_fit_the_header(http: httpx.Client) -> None:
    """The header with the reason holds ASCII only."""
    answer = http.post("/v1/sentiment?format=hf&größe=1", json={"inputs": "good"})
    assert (answer.status_code, answer.headers["X-Error-Message"]) == (422, "gr??e is not an option of this route.")


def test_images_need_no_json(http: httpx.Client, samples: Path) -> None:
    """Forms work in every format."""
    image = (samples / "coffee.jpg").read_bytes()
    form = http.post("/v1/classify", params={"format": "hf", "top_k": 1}, files={"image": image})
    assert [row["label"] for row in form.json()] == ["espresso"]
