"""NVIDIA's AIPerf, as it comes from the package index, drives the gateway as a NIM for object detection."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

SIDES = ("x_min", "y_min", "x_max", "y_max")


def fractions(plain: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Return the plain answer's boxes and scores by label, as fractions of the image."""
    width, height = plain["image"]["width"], plain["image"]["height"]
    found: dict[str, list[list[float]]] = {}
    for row in plain["predictions"]:
        box = row["box"]
        corners = [box["xmin"] / width, box["ymin"] / height, box["xmax"] / width, box["ymax"] / height]
        found.setdefault(row["label"], []).append([*corners, row["score"]])
    return found


def same(answer: dict[str, Any], plain: dict[str, Any]) -> None:
    """Compare one answer with the plain one."""
    (entry,) = answer["data"]
    expected = fractions(plain)
    assert entry["index"] == 0
    assert entry["bounding_boxes"].keys() == expected.keys()
    for label, boxes in entry["bounding_boxes"].items():
        shown = [[box[name] for name in (*SIDES, "confidence")] for box in boxes]
        assert len(shown) == len(expected[label])
        for one, its in zip(shown, expected[label], strict=True):
            assert one == pytest.approx(its, abs=1e-6)


def infer(http: httpx.Client, *images: str, **query: Any) -> httpx.Response:
    """Send images as data: URLs, like AIPerf."""
    body = {"input": [{"type": "image_url", "url": image} for image in images]}
    return http.post("/v1/detect", params={"format": "nim", **query}, json=body)


def url(image: bytes) -> str:
    """Return an image as a data: URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def test_aiperf_measures_the_gateway(
    stack: Any, http: httpx.Client, samples: Path, tmp_path: Path, client_python: Callable[[str], Path]
) -> None:
    """Every request of a run succeeds, and AIPerf got the plain answers to its images."""
    prompts = tmp_path / "images.jsonl"
    names = ("astronaut.jpg", "chelsea.jpg")
    prompts.write_text("".join(json.dumps({"image": str(samples / name)}) + "\n" for name in names))
    command = [
        *(client_python("aiperf"), "-m", "aiperf", "profile", "--model", "lite_detector", "--url", stack.url),
        *("--endpoint-type", "image_retrieval", "--custom-endpoint", "/v1/detect?format=nim"),
        *("--input-file", prompts, "--custom-dataset-type", "single_turn", "--export-level", "raw"),
        *("--request-count", "6", "--concurrency", "2", "--ui", "none", "--artifact-dir", tmp_path / "out"),
        *("--no-gpu-telemetry", "--no-server-metrics"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "out" / "profile_export_aiperf.json").read_text())
    assert report["request_count"]["avg"] == 6
    assert not report.get("error_request_count")
    records = [json.loads(line) for line in (tmp_path / "out" / "profile_export_raw.jsonl").read_text().splitlines()]
    assert len(records) == 6
    labels = set()
    for record in records:
        assert record["status"] == 200
        answer = json.loads(record["responses"][0]["text"])
        sent = record["payload"]["input"][0]["url"]
        same(answer, http.post("/v1/detect", json={"image": sent}).json())
        labels |= answer["data"][0]["bounding_boxes"].keys()
    assert labels >= {"person", "cat"}


def test_options_of_the_query_hold(http: httpx.Client, astronaut: bytes) -> None:
    """The body has no options; those of the query work, and the answer has the input's size."""
    given = infer(http, url(astronaut), score_threshold=0.05).json()
    plain = http.post("/v1/detect", params={"score_threshold": 0.05}, files={"image": astronaut}).json()
    assert len(plain["predictions"]) > 1
    same(given, plain)
    assert given["usage"]["images_size_mb"] == pytest.approx(len(astronaut) / 2**20, abs=1e-6)
    nothing = infer(http, url(astronaut), score_threshold=1).json()
    assert nothing["data"] == [{"index": 0, "bounding_boxes": {}}]


def test_other_bodies_are_refused(http: httpx.Client, astronaut: bytes) -> None:
    """One image, as a data: URL; nothing else."""
    one = url(astronaut)
    for answer, sentence in (
        (infer(http, one, one), "input must hold one image."),
        (infer(http), "input must hold one image."),
        (infer(http, "https://images.example/a.jpg"), "input.0.url"),
        (http.post("/v1/detect?format=nim", json={"image": one}), "input is missing."),
        (http.post("/v1/detect?format=nim", json={"input": [{"type": "text", "url": one}]}), "input.0.type"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert sentence in answer.json()["detail"]
    more = http.post("/v1/detect?format=nim", json={"input": [{"type": "image_url", "url": one}], "threshold": 0.5})
    assert (more.status_code, more.json()["detail"]) == (422, "threshold is not an option of this route.")
    assert http.post("/v1/classify?format=nim", json={}).status_code == 422
