"""`inference-sdk`, as it comes from the package index, against the gateway: both versions of its API."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Calls = list[dict[str, Any]]
Ask = Callable[[Calls], Calls]
DETECTOR, CLASSIFIER = "lite_detector", "efficientnet_lite0"


@pytest.fixture(scope="module")
def ask(stack: Any, client_python: Callable[[str], Path]) -> Ask:
    """Return a function that has the real client make calls."""
    python = client_python("roboflow")

    def made(calls: Calls) -> Calls:
        script = Path(__file__).with_name("ask_roboflow.py")
        asked = json.dumps({"url": f"{stack.url}/roboflow", "calls": calls})
        done = subprocess.run([python, script], input=asked, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answers: Calls = json.loads(done.stdout)
        return answers

    return made


def plain(http: httpx.Client, route: str, image: Path, **query: Any) -> dict[str, Any]:
    """Return the gateway's own answer."""
    answer = http.post(f"/v1/{route}", content=image.read_bytes(), params=query, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def same_boxes(shown: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare the client's boxes, read by supervision, with the plain answer."""
    assert "boxes" in shown, shown
    assert shown["given"]["image"] == expected["image"]
    assert len(shown["boxes"]) == len(expected["predictions"]) > 0
    for mine, row in zip(shown["boxes"], expected["predictions"], strict=True):
        assert (mine["label"], mine["class_id"]) == (row["label"], row["class_id"])
        assert mine["score"] == pytest.approx(row["score"], abs=1e-6)
        assert mine["corners"] == pytest.approx(
            [row["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")], abs=0.01
        )
    names = [row["detection_id"] for row in shown["given"]["predictions"]]
    assert len(set(names)) == len(names)


def test_detections_are_those_of_the_gateway(ask: Ask, http: httpx.Client, samples: Path) -> None:
    """Both APIs, and the asynchronous client, give the objects of the plain answer."""
    image = samples / "astronaut.jpg"
    shown = ask(
        [
            {"image": str(image), "model": DETECTOR},
            {"image": str(image), "model": f"{DETECTOR}/1"},
            {"image": str(image), "model": f"{DETECTOR}/1", "api": "v0"},
            {"image": str(image), "model": f"{DETECTOR}/1", "asynchronous": True},
            {"image": str(image), "model": f"{DETECTOR}/1", "api": "v0", "asynchronous": True},
        ]
    )
    expected = plain(http, "detect", image)
    for one in shown:
        same_boxes(one, expected)


def test_options_of_detections_are_mapped(ask: Ask, http: httpx.Client, samples: Path) -> None:
    """Thresholds, a limit and a class filter change the answer like the gateway's own options."""
    image = samples / "astronaut.jpg"
    many = {"confidence_threshold": 0.05, "iou_threshold": 0.9}
    shown = ask(
        [
            {"image": str(image), "model": DETECTOR, "configuration": many},
            {"image": str(image), "model": f"{DETECTOR}/1", "api": "v0", "configuration": many},
            {
                "image": str(image),
                "model": f"{DETECTOR}/1",
                "api": "v0",
                "configuration": {"confidence_threshold": 5, "iou_threshold": 90},
            },
            {"image": str(image), "model": DETECTOR, "configuration": {**many, "max_detections": 2}},
            {"image": str(image), "model": DETECTOR, "configuration": {**many, "class_filter": ["mouse"]}},
            {"image": str(image), "model": DETECTOR, "configuration": {"confidence_threshold": "default"}},
        ]
    )
    query = {"score_threshold": 0.05, "iou_threshold": 0.9}
    everything = plain(http, "detect", image, **query)
    assert len(everything["predictions"]) > len(plain(http, "detect", image, score_threshold=0.05)["predictions"]) > 2
    for one in shown[:3]:
        same_boxes(one, everything)
    same_boxes(shown[3], plain(http, "detect", image, **query, max_detections=2))
    same_boxes(shown[4], plain(http, "detect", image, **query, classes="mouse"))
    same_boxes(shown[5], plain(http, "detect", image))


def test_classifications_are_those_of_the_gateway(ask: Ask, http: httpx.Client, samples: Path) -> None:
    """Both APIs give the classes of the plain answer, with the best as `top`."""
    image = samples / "coffee.jpg"
    shown = ask(
        [
            {"image": str(image), "model": CLASSIFIER},
            {"image": str(image), "model": f"{CLASSIFIER}/1", "api": "v0"},
        ]
    )
    expected = plain(http, "classify", image)
    for one in shown:
        given = one["given"]
        assert given["image"] == expected["image"]
        rows = [(row["class"], row["class_id"]) for row in given["predictions"]]
        assert rows == [(row["label"], row["class_id"]) for row in expected["predictions"]]
        scores = [row["score"] for row in expected["predictions"]]
        assert [row["confidence"] for row in given["predictions"]] == pytest.approx(scores, abs=1e-6)
        assert (given["top"], given["confidence"]) == (rows[0][0], given["predictions"][0]["confidence"])


def test_several_images_are_several_requests(ask: Ask, samples: Path) -> None:
    """The client, as configured here, sends a list one by one; several images in one request are refused."""
    images = [str(samples / "astronaut.jpg"), str(samples / "chelsea.jpg")]
    single, joined = ask(
        [
            {"image": images, "model": DETECTOR},
            {"image": images, "model": DETECTOR, "configuration": {"max_batch_size": 2}},
        ]
    )
    assert [given["predictions"][0]["class"] for given in single["given"]] == ["person", "cat"]
    assert joined["status"] == 400
    assert "image must be one image: leave max_batch_size at 1." in joined["text"]


REFUSED = [
    (DETECTOR, {"max_candidates": 10}, "max_candidates is not an option of this route."),
    (DETECTOR, {"class_agnostic_nms": True}, "class_agnostic_nms has no equivalent here: leave it off."),
    (DETECTOR, {"visualize_predictions": True}, "visualize_predictions has no equivalent here: leave it off."),
    (DETECTOR, {"disable_preproc_auto_orientation": True}, "disable_preproc_auto_orient has no equivalent here"),
    (DETECTOR, {"confidence_threshold": "best"}, "confidence should be a valid number"),
    (DETECTOR, {"confidence_threshold": 1.5}, "confidence should be less than or equal to 1."),
    (
        DETECTOR,
        {"active_learning_target_dataset": "x"},
        "active_learning_target_dataset is not an option of this route.",
    ),
    (CLASSIFIER, {"confidence_threshold": 0.5}, "confidence is not an option of this route."),
]


def test_options_without_an_equivalent_are_refused(ask: Ask, samples: Path) -> None:
    """Nothing is silently ignored; the client shows the option's name."""
    image = str(samples / "astronaut.jpg")
    shown = ask([{"image": image, "model": model, "configuration": given} for model, given, _ in REFUSED])
    for (_, given, sentence), one in zip(REFUSED, shown, strict=True):
        assert (one.get("raised"), one.get("status")) == ("HTTPCallErrorError", 422), (given, one)
        assert sentence in one["text"]
    first = {"image": image, "model": f"{CLASSIFIER}/1", "api": "v0"}
    drawn, floor = ask(
        [
            {**first, "configuration": {"format": "image"}},
            {**first, "configuration": {"confidence_threshold": 0.5}},
        ]
    )
    assert (drawn["status"], floor["status"]) == (422, 422)
    assert "format should be 'json'." in drawn["text"]
    assert "confidence has no equivalent for a classification." in floor["text"]


def test_problems_are_shown_by_the_client(ask: Ask, samples: Path) -> None:
    """Unknown models, versions and tasks, and bad images, reach the caller with their status and their reason."""
    image = str(samples / "astronaut.jpg")
    calls = [
        ({"image": image, "model": "coco/25"}, 404, "No model of this name serves any task."),
        ({"image": image, "model": f"{DETECTOR}/7"}, 404, "There is no version 7; served: 1."),
        ({"image": image, "model": f"{DETECTOR}/7", "api": "v0"}, 404, "There is no version 7; served: 1."),
        ({"image": image, "model": "minilm_sentiment"}, 404, "serves a task that this client supports."),
        ({"image": "bm8gaW1hZ2U=", "model": DETECTOR}, 422, "The data is not an image"),
        ({"image": "!", "model": DETECTOR}, 400, "The image is not valid base64."),
        ({"image": "!", "model": f"{DETECTOR}/1", "api": "v0"}, 400, "The image is not valid base64."),
    ]
    shown = ask([call for call, _, _ in calls])
    for (call, status, sentence), one in zip(calls, shown, strict=True):
        assert one.get("status") == status, (call, one)
        assert sentence in one["text"]


def test_the_format_is_an_option_of_the_routes(http: httpx.Client, samples: Path) -> None:
    """`?format=roboflow` gives the same shape, from images as the routes take them and from the client's JSON."""
    image = samples / "astronaut.jpg"
    expected = plain(http, "detect", image)["predictions"][0]
    given = plain(http, "detect", image, format="roboflow")
    assert given["predictions"][0]["confidence"] == expected["score"]
    assert plain(http, "classify", image, format="roboflow", top_k=2).keys() >= {"top", "confidence", "predictions"}
    body = {"image": {"type": "base64", "value": base64.b64encode(image.read_bytes()).decode()}, "confidence": 0.05}
    answer = http.post("/v1/detect", params={"format": "roboflow"}, json={**body, "model_id": f"{DETECTOR}/1"})
    assert len(answer.json()["predictions"]) == len(plain(http, "detect", image, score_threshold=0.05)["predictions"])
    unknown = http.post("/v1/detect", params={"format": "roboflow"}, json={**body, "model_id": "nothing"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")
    text = http.post("/v1/sentiment", params={"format": "roboflow"}, json={"text": "good"})
    assert (text.status_code, text.json()["code"]) == (422, "invalid_parameter")


def test_the_query_of_the_first_api_is_checked(http: httpx.Client) -> None:
    """An option that is unknown, repeated or out of its range is refused by name."""
    for query, sentence in (
        ("confidence=0.5&confidence=0.6", "confidence must be given once."),
        ("overlap=101", "overlap should be less than or equal to 100."),
        ("stroke=2", "stroke is not an option of this route."),
    ):
        answer = http.post(f"/roboflow/{DETECTOR}/1?{query}", content=b"", headers={"Content-Type": "text/plain"})
        assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


def test_a_body_of_another_kind_is_refused(http: httpx.Client) -> None:
    """The second API takes JSON, the first base64."""
    for path in ("/roboflow/infer/object_detection", f"/roboflow/{DETECTOR}/1", "/roboflow/model/add"):
        answer = http.post(path, content=b"x", headers={"Content-Type": "image/jpeg"})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
