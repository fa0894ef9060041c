"""The client on the real stack: every kind of input, many at a time, problems, and an overloaded gateway."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.client.conftest import Client
from triton_gateway_client import (
    AsyncGateway,
    Batches,
    Gateway,
    GatewayError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    Sentiment,
)

ROOT = Path(__file__).resolve().parent.parent.parent


def test_results_are_what_the_gateway_sent(stack: Any, client: Client, http: httpx.Client, astronaut: bytes) -> None:
    """Typed results hold the same JSON that a plain HTTP client gets, and the caller's request id."""
    text = "I love this camera."
    for name, item, plain in (
        ("classify", astronaut, http.post("/v1/classify", content=astronaut, headers={"Content-Type": "image/jpeg"})),
        ("detect", astronaut, http.post("/v1/detect", content=astronaut, headers={"Content-Type": "image/jpeg"})),
        ("sentiment", text, http.post("/v1/sentiment", json={"text": text})),
    ):
        found = client(stack.url, name, item, request_id=f"mine-{name}")
        assert found.to_dict() == {**plain.json(), "request_id": f"mine-{name}"}
        assert found.timing.keys() >= {"read", "triton"}


def test_every_kind_of_image_gives_the_same_answer(stack: Any, client: Client, coffee: bytes, tmp_path: Path) -> None:
    """Path, text of a path, bytes, file, PIL image and array."""
    path = tmp_path / "coffee.jpg"
    path.write_bytes(coffee)
    with Image.open(path) as picture, path.open("rb") as file:
        kinds = [path, str(path), coffee, bytearray(coffee), memoryview(coffee), file, io.BytesIO(coffee)]
        best = [client(stack.url, "classify", image, top_k=1).best for image in (*kinds, picture, np.asarray(picture))]
    assert best[0].label == "espresso"
    assert all(each.label == "espresso" and abs(each.score - best[0].score) < 1e-3 for each in best)


def test_options_reach_the_model(stack: Any, client: Client, astronaut: bytes) -> None:
    """Each option has its documented effect."""
    many = client(stack.url, "detect", astronaut, score_threshold=0.02, version=1, model="lite_detector")
    assert len(many) > 2
    assert len(client(stack.url, "detect", astronaut, score_threshold=0.02, max_detections=2)) == 2
    ties = client(stack.url, "detect", astronaut, score_threshold=0.02, classes=["tie", 0])
    assert {each.label for each in ties} <= {"tie", "person"}
    assert len(client(stack.url, "classify", astronaut, top_k=3)) == 3


def test_boxes_are_drawn_on_the_picture(stack: Any, client: Client, astronaut: bytes) -> None:
    """The drawing has the picture's size, and differs from it by the frame."""
    found = client(stack.url, "detect", astronaut)
    drawn = np.asarray(found.draw(astronaut), int)
    plain = np.asarray(Image.open(io.BytesIO(astronaut)), int)
    box = found.best.box
    column = drawn[100:400, round(box.xmin)] - plain[100:400, round(box.xmin)]
    assert drawn.shape == plain.shape
    assert np.abs(column).max(axis=1).all()


def test_many_items_come_back_in_order(stack: Any, client: Client, coffee: bytes, chelsea: bytes) -> None:
    """Over several batches each item has its own answer in its place, and a bad one affects no other."""
    images = [coffee, chelsea, b"no image", "/not/there.jpg", coffee, np.asarray(Image.open(io.BytesIO(chelsea)))]
    options = {"batches": Batches(max_items=2, at_once=2)}
    outcomes = client(stack.url, "classify_many", images, top_k=1, options=options)
    told = [each.code if isinstance(each, GatewayError) else each.best.label for each in outcomes]
    cat = client(stack.url, "classify", chelsea, top_k=1).best.label
    assert told == ["espresso", cat, "image_undecodable", "image_unreadable", "espresso", cat]
    detected = client(stack.url, "detect_many", [coffee, chelsea])
    assert [each.predictions for each in detected] == [
        client(stack.url, "detect", image).predictions for image in (coffee, chelsea)
    ]


def test_any_text_may_be_sent(stack: Any, client: Client) -> None:
    """Every script, quotes and controls; half a surrogate pair fails for its own item only."""
    texts = ["Das ist schön.", "很好", "\u0000\n\"'", "😀", "\ud83d", " ", "fine"]
    outcomes = client(stack.url, "sentiment_many", texts)
    codes = [each.code if isinstance(each, GatewayError) else "" for each in outcomes]
    assert codes == ["", "", "", "", "malformed_request", "text_empty", ""]
    alone = client(stack.url, "sentiment", texts[0], request_id=outcomes[0].request_id)
    assert alone.to_dict() == outcomes[0].to_dict()


def test_batches_larger_than_the_gateway_takes_are_split(stack: Any, client: Client) -> None:
    """A client that wants more in a batch than the gateway takes still gets every answer."""
    outcomes = client(stack.url, "sentiment_many", ["fine"] * 150, options={"batches": Batches(max_items=150)})
    assert [type(each) for each in outcomes] == [Sentiment] * 150


@pytest.mark.usefixtures("settled")
def test_catalogue_and_health(stack: Any, client: Client, http: httpx.Client) -> None:
    """They equal the answers of the routes."""
    assert [each.to_dict() for each in client(stack.url, "models")] == http.get("/v1/models").json()["models"]
    assert client(stack.url, "model", "lite_detector").task == "object-detection"
    assert client(stack.url, "health").to_dict() == http.get("/readyz").json()
    assert client(stack.url, "ready")
    assert client(stack.url, "wait_until_ready", 30).ready
    with pytest.raises(NotFoundError):
        client(stack.url, "model", "no/such model")


def test_problems_become_errors(stack: Any, client: Client, coffee: bytes) -> None:
    """A refusal of a real gateway is raised as its class, with its code and request id."""
    for name, item, options, kind, code in (
        ("classify", b"no image", {}, InvalidInputError, "image_undecodable"),
        ("classify", coffee, {"model": "none"}, NotFoundError, "model_not_found"),
        ("classify", coffee, {"top_k": 0}, InvalidInputError, "invalid_parameter"),
        ("sentiment", " ", {}, InvalidInputError, "text_empty"),
        ("classify", None, {"image_url": "http://images.example/a.jpg"}, InvalidInputError, "invalid_parameter"),
    ):
        with pytest.raises(kind) as caught:
            client(stack.url, name, item, request_id="mine", **options)
        assert (type(caught.value), caught.value.code, caught.value.request_id) == (kind, code, "mine")


@pytest.fixture(scope="module")
def narrow(stack: Any, make_gateway: Callable[..., Any]) -> Iterator[str]:
    """Return a second gateway before the same Triton, through which one item goes at once and one may wait."""
    gateway = make_gateway(stack, GATEWAY_MAX_ITEMS_PER_MODEL="1", GATEWAY_MAX_QUEUE_PER_MODEL="1")
    yield gateway.url
    gateway.stop()


def test_refused_calls_come_back_and_are_served(narrow: str) -> None:
    """With more callers than may wait, some are told when to return; those that return then are served."""

    async def ask(retries: int) -> list[Any]:
        async with AsyncGateway(narrow, retries=retries, timeout=60) as gateway:
            calls = [gateway.sentiment("sleep 0.4", model="misbehaving") for _ in range(6)]
            return await asyncio.gather(*calls, return_exceptions=True)

    refused = [each for each in asyncio.run(ask(0)) if not isinstance(each, Sentiment)]
    assert refused
    assert all(isinstance(each, OverloadedError) and (each.retry_after or 0) >= 1 for each in refused)
    assert [type(each) for each in asyncio.run(ask(8))] == [Sentiment] * 6


def test_threads_may_share_a_client(stack: Any) -> None:
    """Calls of several threads through one client get their own answers."""
    texts = ["I love it.", "I hate it."] * 4
    with Gateway(stack.url) as gateway, ThreadPoolExecutor(4) as pool:
        assert [each.label for each in pool.map(gateway.sentiment, texts)] == ["positive", "negative"] * 4


def numbers(text: str) -> list[float]:
    """Return the numbers of a text."""
    return [float(number) for number in re.findall(r"[0-9]+\.[0-9]+", text)]


@pytest.mark.parametrize("page", ["client/README.md", "docs/client.md"])
def test_examples_print_the_documented_output(
    stack: Any, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block of Python runs and prints the next block: its words, and its numbers to a hundredth."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    found = re.findall(r"```python\n(.*?)```.*?```\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found
    for code, shown in found:
        exec(compile(code.replace("http://127.0.0.1:8080", stack.url), page, "exec"), {"__name__": "example"})
        printed = capsys.readouterr().out
        assert re.sub(r"[0-9.]+", "", printed) == re.sub(r"[0-9.]+", "", shown)
        assert numbers(printed) == pytest.approx(numbers(shown), rel=0.01, abs=0.01)
