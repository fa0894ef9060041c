"""The right answers to well-known inputs, by every input form and option."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data


def test_coffee_is_espresso(http: httpx.Client, coffee: bytes) -> None:
    """The cup of coffee is an espresso, and a header shows where the time went."""
    response = http.post("/v1/classify", files={"image": ("coffee.jpg", coffee, "image/jpeg")})
    answer = response.json()
    assert answer["predictions"][0]["label"] == "espresso"
    assert 0.7 <= answer["predictions"][0]["score"] <= 0.85
    assert answer["image"] == {"width": 600, "height": 400}
    assert [prediction["score"] for prediction in answer["predictions"]] == sorted(
        (prediction["score"] for prediction in answer["predictions"]), reverse=True
    )
    assert len(answer["predictions"]) == 5
    assert response.headers["X-Request-ID"] == answer["request_id"]
    assert {part.partition(";")[0] for part in response.headers["Server-Timing"].split(", ")} >= {"read", "triton"}


def test_chelsea_is_a_cat(http: httpx.Client, chelsea: bytes) -> None:
    """The cat is an Egyptian cat or a tabby, among the first three."""
    answer = http.post("/v1/classify", content=chelsea, headers={"Content-Type": "image/jpeg"}).json()
    assert {"Egyptian cat", "tabby"} & {prediction["label"] for prediction in answer["predictions"][:3]}


def test_astronaut_is_a_person(http: httpx.Client, astronaut: bytes) -> None:
    """A person is found, and her box covers her face and suit."""
    answer = http.post("/v1/detect", files={"image": ("astronaut.jpg", astronaut)}).json()
    person = next(prediction for prediction in answer["predictions"] if prediction["label"] == "person")
    assert person["box"]["xmin"] < 180
    assert person["box"]["ymin"] < 80
    assert person["box"]["xmax"] > 300
    assert person["box"]["ymax"] > 400


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this camera, the pictures are wonderful.", "positive"),
        ("The phone broke after two days and support never answered.", "negative"),
        ("The parcel contains a cable and a manual.", "neutral"),
        ("Operating profit rose to EUR 13.1 mn from EUR 8.7 mn.", "positive"),
        ("The company slashed its forecast and shares plunged.", "negative"),
        ("The annual general meeting will be held on 12 May.", "neutral"),
    ],
)
def test_clear_sentences_get_their_sentiment(http: httpx.Client, text: str, label: str) -> None:
    """Unambiguous sentences about products and finance are classified correctly."""
    assert http.post("/v1/sentiment", json={"text": text}).json()["label"] == label


def test_every_form_of_an_image_gives_the_same_answer(http: httpx.Client, coffee: bytes) -> None:
    """Multipart, raw bytes, base64 and a data: URL of one picture."""
    text = base64.b64encode(coffee).decode()
    forms: list[dict[str, Any]] = [
        {"files": {"image": ("coffee.jpg", coffee, "image/jpeg")}},
        {"content": coffee, "headers": {"Content-Type": "image/jpeg"}},
        {"content": coffee, "headers": {"Content-Type": "application/octet-stream"}},
        {"json": {"image": text}},
        {"json": {"image": f"data:image/jpeg;base64,{text}"}},
    ]
    answers = [http.post("/v1/classify", **form).json()["predictions"] for form in forms]
    assert answers == [answers[0]] * len(forms)


def test_options_do_what_they_say(http: httpx.Client, astronaut: bytes) -> None:
    """top_k, thresholds, max_detections and classes each shape the answer."""
    files = {"image": ("astronaut.jpg", astronaut)}

    def ask(route: str, **query: Any) -> list[dict[str, Any]]:
        response = http.post(f"/v1/{route}", files=files, params=query)
        assert response.status_code == 200, response.text
        predictions: list[dict[str, Any]] = response.json()["predictions"]
        return predictions

    assert len(ask("classify", top_k=1000)) == 1000
    assert sum(prediction["score"] for prediction in ask("classify", top_k=1000)) == pytest.approx(1, abs=1e-3)
    everything = ask("detect", score_threshold=0.05)
    assert len(everything) > len(ask("detect"))
    assert {p["label"] for p in ask("detect", score_threshold=0.05, classes="person")} == {"person"}
    assert ask("detect", score_threshold=0.05, classes=["0"]) == ask("detect", score_threshold=0.05, classes="person")
    assert ask("detect", score_threshold=0.05, max_detections=1) == everything[:1]
    assert ask("detect", score_threshold=1) == []
    assert len(ask("detect", score_threshold=0.05, iou_threshold=1)) > len(everything)
    both = ask("detect", score_threshold=0.05, iou_threshold=0, agnostic_nms="true")
    assert len(both) < len(ask("detect", score_threshold=0.05, iou_threshold=0))
    only = ask("detect", score_threshold=1, class_thresholds='{"person": 0.05}')
    assert only == ask("detect", score_threshold=0.05, classes="person")
    refused = http.post("/v1/detect", files=files, params={"class_thresholds": '{"unicorn": 0.5}'})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    assert "class_thresholds names 'unicorn'" in refused.json()["detail"]
    assert ask("classify", model="efficientnet_lite0", version="1") == ask("classify")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_boxes(http: httpx.Client, orientation: int) -> None:
    """A picture that is stored turned or mirrored, with EXIF, is detected upright."""
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    picture = Image.fromarray(data.astronaut()).crop((0, 0, 500, 400))
    stored = picture if undo is None else picture.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned, plain = io.BytesIO(), io.BytesIO()
    stored.save(turned, "PNG", exif=exif)
    picture.save(plain, "PNG")
    assert ImageOps.exif_transpose(Image.open(turned)).tobytes() == picture.tobytes()
    answers = [
        http.post("/v1/detect", files={"image": ("picture.png", body.getvalue())}).json() for body in (turned, plain)
    ]
    assert answers[0]["predictions"] == answers[1]["predictions"]
    assert answers[0]["predictions"]
    assert answers[0]["image"] == {"width": 500, "height": 400}


def test_long_texts_are_truncated_and_say_so(http: httpx.Client) -> None:
    """Past the model's limit a text is cut, and the answer tells."""
    answer = http.post("/v1/sentiment", json={"text": "good " * 1000}).json()
    assert answer["usage"] == {"tokens": 128, "truncated": True}


def test_the_catalogue_lists_the_served_models(http: httpx.Client) -> None:
    """Every model with a task is listed with its state; simple_net has no task and is not listed."""
    models = {model["name"]: model for model in http.get("/v1/models").json()["models"]}
    assert models["efficientnet_lite0"]["default"]
    assert models["lite_detector"]["task"] == "object-detection"
    assert models["minilm_sentiment"]["steps"] == [
        "minilm_sentiment_preprocess",
        "minilm_sentiment_network",
        "minilm_sentiment_postprocess",
    ]
    assert models["wrong_contract"]["state"] == "unsupported"
    assert "simple_net" not in models
    assert http.get("/v1/models/lite_detector").json() == models["lite_detector"]


def test_simple_net_answers_through_triton(stack: Any) -> None:
    """The smallest tensor model is reachable at Triton itself."""
    answer = stack.infer("simple_net", INPUT__0=np.array([[0.5, -1.5]], np.float32))
    assert answer["OUTPUT__0"].shape == (1, 2)


def test_pages_and_probes(http: httpx.Client) -> None:
    """Probes answer, the docs load nothing from elsewhere, and the metrics count."""
    assert http.get("/livez").json() == {"status": "alive"}
    for path in ("/readyz", "/healthz", "/health"):
        assert http.get(path).status_code == 200
    page = http.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{asset}" in page
        assert http.get(f"/docs/assets/{asset}").status_code == 200
    assert 'gateway_requests_total{code="",model="",route="/livez",status="200"}' in http.get("/metrics").text
