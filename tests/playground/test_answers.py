"""The playground as a person uses it: real clicks, real answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def rows(visit: Any) -> list[tuple[str, str]]:
    """Return label and score of the visible rows or bars."""
    shown = visit.page.locator("#answer li:visible")
    return [(one.locator(".name").inner_text(), one.locator(".score").inner_text()) for one in shown.all()]


def test_a_sample_is_classified(visit: Any) -> None:
    """One click shows the labels as bars, with lengths by their scores."""
    answer = visit.sample("coffee")
    expected = [(found["label"], f"{found['score'] * 100:.1f} %") for found in answer["predictions"]]
    assert rows(visit) == expected
    assert expected[0][0] == "espresso"
    assert visit.status() == f"espresso, {expected[0][1]}."
    track, bar = visit.page.locator(".bar").first, visit.page.locator(".bar span").first
    share = bar.bounding_box()["width"] / track.bounding_box()["width"]
    assert share == pytest.approx(answer["predictions"][0]["score"], abs=0.01)


def test_options_are_sent(visit: Any) -> None:
    """The number of classes, and the picked model and version."""
    visit.sample("coffee")
    visit.page.fill("#top_k", "2")
    visit.page.select_option("#version", "1")
    assert len(visit.answer(visit.page.click, "#ask")["predictions"]) == 2
    assert visit.asked()[-1].endswith("/v1/classify?version=1&top_k=2")
    visit.pick("detect")
    visit.page.wait_for_selector(".rows")
    for name, value in {"floor": "0.01", "iou_threshold": "1", "max_detections": "3", "classes": "person, 1"}.items():
        visit.page.fill(f"#{name}", value)
    assert len(visit.sample("astronaut")["predictions"]) == 3
    query = "score_threshold=0.01&iou_threshold=1&max_detections=3&classes=person&classes=1"
    assert visit.asked()[-1].endswith(query)


def test_boxes_lie_where_the_answer_says(visit: Any) -> None:
    """Every box has its rectangle over the picture; the slider hides boxes without a request."""
    visit.pick("detect")
    visit.page.fill("#floor", "0.02")
    answer = visit.sample("astronaut")
    found = answer["predictions"]
    assert len(found) > 3
    assert visit.page.locator("#boxes .box").count() == len(found)
    visit.page.evaluate("document.getElementById('picture').decode()")
    image = visit.page.locator("#picture").bounding_box()
    scale = image["width"] / answer["image"]["width"]
    person = found[0]["box"]
    drawn = visit.page.locator("g:visible .box").first.bounding_box()
    assert drawn["x"] - image["x"] == pytest.approx(person["xmin"] * scale, abs=4)
    assert drawn["width"] == pytest.approx((person["xmax"] - person["xmin"]) * scale, abs=8)
    assert image["height"] == pytest.approx(answer["image"]["height"] * scale, abs=2)
    asked = visit.asked()
    for threshold in ("0.02", "0.05", "0.3", "0.88", "1"):
        visit.page.locator("#threshold").fill(threshold)
        expected = [(one["label"], f"{one['score']:.2f}") for one in found if one["score"] >= float(threshold)]
        assert rows(visit) == expected
        assert visit.page.locator("#boxes .box:visible").count() == len(expected)
        assert visit.status().startswith(f"{len(expected)} of {len(found)} boxes have")
    assert visit.asked() == asked


def test_box_and_row_light_up_together(visit: Any) -> None:
    """By the pointer on either, and by keyboard focus."""
    visit.pick("detect")
    visit.sample("astronaut")
    visit.page.hover(".rows button")
    assert visit.page.locator("g.lit").count() == 1
    visit.page.hover("h1")
    assert visit.page.locator(".lit").count() == 0
    visit.page.hover("g:visible .box")
    assert visit.page.locator("li.lit").count() == 1
    visit.page.hover("h1")
    visit.page.focus(".rows button")
    assert visit.page.locator("g.lit").count() == 1


def test_a_text_is_read(visit: Any) -> None:
    """Each class has its bar; a truncation is shown."""
    visit.pick("sentiment")
    answer = visit.answer(visit.page.click, "[data-text]")
    assert rows(visit) == [(one["label"], f"{one['score'] * 100:.1f} %") for one in answer["scores"]]
    assert {label for label, _ in rows(visit)} == {"positive", "neutral", "negative"}
    visit.page.fill("#text", "dreadful " * 300)
    answer = visit.answer(visit.page.press, "#text", "Control+Enter")
    assert visit.status().startswith(f"{answer['label']}, ")
    assert visit.status().endswith("128 tokens were read, the rest was cut off.")


def test_pictures_arrive_by_every_way(visit: Any, chelsea: bytes) -> None:
    """Chosen, dropped anywhere, and pasted: the same bytes get the same answer."""
    file = {"name": "cat.jpg", "mimeType": "image/jpeg", "buffer": chelsea}
    answers = [visit.answer(visit.page.set_input_files, f"#{name}", file) for name in ("file", "camera")]
    give = """([bytes, event]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "cat.jpg", { type: "image/jpeg" }));
      document.body.dispatchEvent(event === "drop"
        ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
    }"""
    answers += [visit.answer(visit.page.evaluate, give, [list(chelsea), event]) for event in ("drop", "paste")]
    assert [answer["predictions"] for answer in answers] == [answers[0]["predictions"]] * 4
    assert visit.page.inner_text("#code-hint") == "First save the pasted picture as picture.jpeg."


def test_pictures_that_the_browser_cannot_show_are_answered(visit: Any) -> None:
    """A TIFF: its boxes are drawn on a plain background of the right shape."""
    buffer = io.BytesIO()
    Image.open(ROOT / "docs/samples/astronaut.jpg").resize((500, 250)).save(buffer, "TIFF")
    visit.pick("detect")
    file = {"name": "a.tiff", "mimeType": "image/tiff", "buffer": buffer.getvalue()}
    answer = visit.answer(visit.page.set_input_files, "#file", file)
    visit.page.wait_for_selector("#picture", state="hidden")
    assert visit.page.locator("#boxes .box").count() == len(answer["predictions"]) > 0
    ground = visit.page.locator("#figure").bounding_box()
    assert ground["width"] / ground["height"] == pytest.approx(2, abs=0.02)


def test_the_picture_with_its_boxes_is_saved(visit: Any) -> None:
    """The button saves the answer to `Accept: image/jpeg` for the visible boxes."""
    visit.pick("detect")
    visit.sample("astronaut")
    with visit.page.expect_download() as caught:
        visit.page.click("#save")
    assert caught.value.suggested_filename == "astronaut-boxes.jpg"
    image = (ROOT / "docs/samples/astronaut.jpg").read_bytes()
    expected = httpx.post(
        f"{visit.url}/v1/detect?score_threshold=0.3",
        content=image,
        headers={"Content-Type": "image/jpeg", "Accept": "image/jpeg"},
    )
    assert caught.value.path().read_bytes() == expected.content


def test_problems_are_shown(visit: Any) -> None:
    """With the sentence, the code and the request id; the next answer removes them."""
    visit.expected = ["status of 422"]
    visit.pick("detect")
    visit.sample("astronaut")
    visit.page.fill("#iou_threshold", "2")
    problem = visit.answer(visit.page.click, "#ask")
    shown = visit.page.inner_text(".problem")
    assert problem["code"] == "invalid_parameter"
    assert all(problem[name] in shown for name in ("title", "detail", "code", "request_id"))
    assert visit.page.locator("#boxes .box").count() == 0
    assert not visit.page.is_visible("#details")
    visit.page.fill("#iou_threshold", "")
    file = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    assert visit.answer(visit.page.set_input_files, "#file", file)["code"] == "image_undecodable"
    assert "image_undecodable" in visit.page.inner_text(".problem")
    visit.sample("astronaut")
    assert visit.page.locator(".problem").count() == 0


def test_an_absent_gateway_is_shown(visit: Any) -> None:
    """No answer at all becomes a sentence too."""
    visit.expected = ["ERR_INTERNET_DISCONNECTED"]
    visit.pick("sentiment")
    visit.page.context.set_offline(True)
    visit.page.click("[data-text]")
    visit.page.wait_for_selector(".problem")
    assert "The gateway cannot be reached." in visit.page.inner_text(".problem")


def test_the_time_adds_up(visit: Any) -> None:
    """The server's spans and the rest are the browser's total."""
    visit.sample("coffee")
    spans = {
        one.locator(".name").inner_text(): float(one.locator(".score").inner_text().removesuffix(" ms"))
        for one in visit.page.locator(".spans li").all()
    }
    assert spans.keys() == {"read", "wait", "triton", "encode", "rest"}
    total = float(visit.page.inner_text("#timing p").split(" ")[0])
    assert sum(spans.values()) == pytest.approx(total, abs=0.5)
    assert spans["triton"] > 0


@pytest.mark.usefixtures("settled")
def test_the_catalogue_shows_the_state_of_every_model(visit: Any, http: httpx.Client) -> None:
    """As in `/v1/models`; unsupported models cannot be picked."""
    words = {"ready": "ready", "unsupported": "cannot be served", "not_ready": "not ready"}
    models = http.get("/v1/models").json()["models"]
    assert {model["state"] for model in models} >= {"ready", "unsupported"}
    for model in models:
        card = visit.page.locator(f"[data-model='{model['name']}']")
        assert card.locator(".pill").first.inner_text() == words[model["state"]]
        assert model["task"] in card.inner_text()
        if model.get("reason"):
            assert model["reason"] in card.inner_text()
    tasks = {"image-classification": "classify", "object-detection": "detect", "text-classification": "sentiment"}
    for name, task in tasks.items():
        visit.pick(task)
        options = {
            option.get_attribute("value"): option.is_disabled() for option in visit.page.locator("#model option").all()
        }
        assert options == {model["name"]: model["state"] != "ready" for model in models if model["task"] == name}
        default = next(model["name"] for model in models if model["task"] == name and model["default"])
        assert visit.page.input_value("#model") == default
    assert visit.page.inner_text("#readiness") == "Ready"


def test_files_have_their_types_and_policy(http: httpx.Client) -> None:
    """Types, a strict policy, no foreign address, and an ETag that saves the second load."""
    folder = ROOT / "app/static/playground"
    paths = {"/": folder / "index.html"}
    paths |= {f"/playground/{path.name}": path for path in folder.iterdir() if path.is_file()}
    types = {".html": "text/html", ".css": "text/css", ".js": "javascript", ".svg": "image/svg+xml"}
    for path, file in paths.items():
        response = http.get(path)
        assert response.content == file.read_bytes()
        assert types[file.suffix] in response.headers["Content-Type"]
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "https://" not in response.text
    tag = http.get("/playground/main.js").headers["ETag"]
    assert http.get("/playground/main.js", headers={"If-None-Match": tag}).status_code == 304
    missing = http.get("/playground/missing.js")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    for sample in (ROOT / "docs/samples").iterdir():
        assert http.get(f"/playground/samples/{sample.name}").content == sample.read_bytes()
