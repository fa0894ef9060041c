"""The served answers equal an independent computation, one by one and 64 at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest
from tritonclient.grpc import InferenceServerClient

Answer = dict[str, Any]
SCORE, PIXEL = 1e-3, 1.0
PATIENT = {"X-Request-Timeout-Ms": "60000"}  # it is answers that count here, also on a busy machine


def one_by_one(http: httpx.Client, task: str, items: list[Any]) -> list[Answer]:
    """Send each item alone, one after the other."""
    answers = []
    for item in items:
        body = {"json": {"text": item}} if isinstance(item, str) else {"files": {"image": ("image", item)}}
        response = http.post(f"/v1/{task}", params={"top_k": 10} if task == "classify" else {}, **body)
        assert response.status_code == 200, response.text
        answers.append(response.json())
    return answers


def in_batches(http: httpx.Client, task: str, items: list[Any]) -> list[Answer]:
    """Send 64 items a request."""
    answers: list[Answer] = []
    for start in range(0, len(items), 64):
        part = items[start : start + 64]
        texts = isinstance(part[0], str)
        body = {"json": {"texts": part}} if texts else {"files": [("images", ("image", item)) for item in part]}
        params = {"top_k": 10} if task == "classify" else {}
        response = http.post(f"/v1/{task}/batch", params=params, headers=PATIENT, **body)
        assert response.status_code == 200, response.text
        assert [row["index"] for row in response.json()["results"]] == list(range(len(part)))
        assert response.json()["failed"] == 0
        answers += response.json()["results"]
    return answers


def same_boxes(one: Answer, other: Answer) -> bool:
    """Return whether two answers hold the same objects, except those within a thousandth of the threshold."""
    return all(
        any(
            found["label"] == wanted["label"]
            and abs(found["score"] - wanted["score"]) <= SCORE
            and all(abs(found["box"][side] - wanted["box"][side]) <= PIXEL for side in wanted["box"])
            for found in b["predictions"]
        )
        for a, b in ((one, other), (other, one))
        for wanted in a["predictions"]
        if wanted["score"] > 0.3 + SCORE
    )


@pytest.fixture(scope="module")
def singles(stack: Any, pictures: list[bytes], sentences: list[str]) -> dict[str, list[Answer]]:
    """Return the 200 answers to single requests."""
    with stack.client() as http:
        return {
            "classify": one_by_one(http, "classify", pictures),
            "detect": one_by_one(http, "detect", pictures),
            "sentiment": one_by_one(http, "sentiment", sentences),
        }


def test_classification_equals_the_reference(
    singles: dict[str, list[Answer]], pictures: list[bytes], classifier: Any
) -> None:
    """Every served class has the probability that Pillow, ONNX Runtime and numpy give it."""
    for picture, answer in zip(pictures, singles["classify"], strict=True):
        expected = classifier(picture)
        for prediction in answer["predictions"]:
            assert prediction["score"] == pytest.approx(expected[prediction["class_id"]], abs=SCORE)
        best = sorted(expected.values(), reverse=True)[:10]
        assert [prediction["score"] for prediction in answer["predictions"]] == pytest.approx(best, abs=SCORE)


def test_detection_equals_the_reference(singles: dict[str, list[Answer]], pictures: list[bytes], detector: Any) -> None:
    """Loops over the raw network find every served object, and no other."""
    found = 0
    for picture, answer in zip(pictures, singles["detect"], strict=True):
        expected = detector(picture)
        for box in (box for box in expected if box.certain):
            assert any(
                box.label == served["label"]
                and abs(box.score - served["score"]) <= SCORE
                and all(abs(a - b) <= PIXEL for a, b in zip(box.corners, served["box"].values(), strict=True))
                for served in answer["predictions"]
            ), (box, answer)
        wanted = {(box.label, round(box.score, 2)) for box in expected} | {
            (box.label, round(box.score + shift, 2)) for box in expected for shift in (-SCORE, SCORE)
        }
        assert {(served["label"], round(served["score"], 2)) for served in answer["predictions"]} <= wanted
        found += len(answer["predictions"])
    assert found >= 50  # else the pictures would prove nothing


def test_sentiment_equals_the_reference(singles: dict[str, list[Answer]], sentences: list[str], sentiment: Any) -> None:
    """Probabilities, number of tokens and truncation are those of the plain computation."""
    truncated = 0
    for sentence, answer in zip(sentences, singles["sentiment"], strict=True):
        scores, tokens, cut = sentiment(sentence)
        assert {row["label"]: row["score"] for row in answer["scores"]} == pytest.approx(scores, abs=SCORE)
        assert answer["usage"] == {"tokens": tokens, "truncated": cut}
        assert answer["label"] == max(scores, key=lambda label: scores[label])
        truncated += cut
    assert 0 < truncated < len(sentences)


@pytest.mark.parametrize("task", ["classify", "detect", "sentiment"])
def test_batches_answer_as_single_requests_do(
    http: httpx.Client, singles: dict[str, list[Answer]], pictures: list[bytes], sentences: list[str], task: str
) -> None:
    """No answer depends on the other items of its batch."""
    items: list[Any] = sentences if task == "sentiment" else pictures
    for one, other in zip(singles[task], in_batches(http, task, items), strict=True):
        if task == "detect":
            assert same_boxes(one, other)
        elif task == "classify":
            assert {p["class_id"]: p["score"] for p in one["predictions"]} == pytest.approx(
                {p["class_id"]: p["score"] for p in other["predictions"]}, abs=SCORE
            )
        else:
            assert other["label"] == one["label"]
            assert {row["label"]: row["score"] for row in other["scores"]} == pytest.approx(
                {row["label"]: row["score"] for row in one["scores"]}, abs=SCORE
            )


def counts(stack: Any, network: str) -> tuple[int, int]:
    """Return the numbers of inferences and of batches that a network has run."""
    with closing(InferenceServerClient(f"127.0.0.1:{stack.grpc}")) as client:
        (found,) = client.get_inference_statistics(network).model_stats
    return found.inference_count, found.execution_count


def batching(stack: Any, task: str, network: str, items: list[Any], calls: int) -> float:
    """Return the mean batch size of a network while 16 callers keep calling."""
    before = counts(stack, network)

    def work(caller: int) -> None:
        with stack.client() as http:
            one_by_one(http, task, [items[(caller * 7 + call) % len(items)] for call in range(calls)])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    after = counts(stack, network)
    return (after[0] - before[0]) / (after[1] - before[1])


def test_triton_batches_the_requests_of_many_callers(stack: Any, pictures: list[bytes]) -> None:
    """Under a steady load of 16 callers both image networks run several images at a time."""
    assert batching(stack, "classify", "efficientnet_lite0_network", pictures, 15) > 1.5
    assert batching(stack, "detect", "lite_detector_network", pictures, 5) > 1.5


def test_texts_of_mixed_length_batch_like_texts_of_equal_length(stack: Any, sentences: list[str]) -> None:
    """Mixed texts (3 to 128 tokens) batch at least 0.7 times as well as equal ones."""
    equal = batching(stack, "sentiment", "minilm_sentiment_network", ["The camera is wonderful and light."], 40)
    mixed = batching(stack, "sentiment", "minilm_sentiment_network", sentences, 40)
    assert equal > 1.5
    assert mixed / equal >= 0.7
