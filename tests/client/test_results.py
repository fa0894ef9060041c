"""The client's models have exactly the fields of the gateway's OpenAPI document; results can be drawn."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel, ValidationError

from app.errors import ERRORS
from app.http.problems import problem
from app.main import create_app
from app.settings import Settings
from triton_gateway_client import Classification, Detections, Health, InvalidInputError, Model, Sentiment, tasks
from triton_gateway_client.drawing import colour_of, ink_on
from triton_gateway_client.errors import BY_STATUS, GatewayError, Problem, from_problem
from triton_gateway_client.images import encoded, opened
from triton_gateway_client.results import BatchAnswer, ModelList

SERVED: list[tuple[str, str, type[BaseModel]]] = [
    ("post", "/v1/classify", Classification),
    ("post", "/v1/detect", Detections),
    ("post", "/v1/sentiment", Sentiment),
    ("get", "/v1/models", ModelList),
    ("get", "/v1/models/{model}", Model),
    ("get", "/readyz", Health),
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the content of `/openapi.json`, made without a server."""
    return create_app(Settings()).openapi()


def shape(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Return the names and types of a schema; an enumeration of texts counts as a text."""
    if "$ref" in schema:
        return shape(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return {"any of": sorted((shape(each, definitions) for each in schema["anyOf"]), key=str)}
    if schema["type"] == "array":
        return [shape(schema["items"], definitions)]
    if "properties" in schema:
        return {name: shape(value, definitions) for name, value in schema["properties"].items()}
    return schema["type"]


def answer_schema(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    """Return the schema of a route's success; of several formats, the gateway's own."""
    content = document["paths"][path][method]["responses"]["200"]["content"]
    schema: dict[str, Any] = content["application/json"]["schema"]
    own: dict[str, Any] = schema["anyOf"][0] if "anyOf" in schema else schema
    return own


@pytest.mark.parametrize(("method", "path", "model"), SERVED)
def test_models_equal_the_served_schemas(
    document: dict[str, Any], method: str, path: str, model: type[BaseModel]
) -> None:
    """Every served field is in the client's model with its type, and the other way round."""
    served = shape(answer_schema(document, method, path), document["components"]["schemas"])
    ours = model.model_json_schema(mode="serialization")
    assert shape(ours, ours.get("$defs", {})) == served


def test_problems_and_batches_equal_the_served_schemas(document: dict[str, Any]) -> None:
    """The problem, and the two fields of each batch's answer, have the served types."""
    schemas = document["components"]["schemas"]
    assert shape(Problem.model_json_schema(), {}) == shape(schemas["Problem"], schemas)
    for task in (tasks.CLASSIFY, tasks.DETECT, tasks.SENTIMENT):
        batch = answer_schema(document, "post", f"/v1/{task.route}/batch")
        assert shape(batch, schemas).keys() == BatchAnswer.model_fields.keys()


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/classify", tasks.ClassifyBatchOptions),
        ("/v1/detect", tasks.DetectBatchOptions),
        ("/v1/sentiment", tasks.BatchOptions),
    ],
)
def test_options_equal_those_of_the_routes(document: dict[str, Any], path: str, options: Any) -> None:
    """A client takes every option of a route, and no other except its own; formats are for other clients."""
    taken = {each["name"] for each in document["paths"][path]["post"]["parameters"] if each["in"] == "query"}
    assert options.__annotations__.keys() - {"timeout"} == taken - {"format"}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_code_becomes_an_error(error: Any) -> None:
    """Each problem of the gateway becomes the error of its status, with all fields."""
    told = problem(error("Sentence.", model="m", step="network"), "id")
    found = from_problem(Problem.model_validate_json(told.model_dump_json()), 2.0)
    assert type(found) is BY_STATUS.get(error.status, GatewayError)
    assert (found.code, found.status, found.retryable) == (error.code, error.status, error.retryable)
    assert (found.detail, found.request_id, found.model, found.step) == ("Sentence.", "id", "m", "network")
    assert found.retry_after == 2


DETECTED: dict[str, Any] = {
    "model": "m",
    "version": "1",
    "request_id": "r",
    "image": {"width": 200, "height": 100},
    "predictions": [
        {"label": "cat", "class_id": 15, "score": 0.9, "box": {"xmin": 50, "ymin": 40, "xmax": 150, "ymax": 90}}
    ],
}


def test_results_are_frozen_and_ignore_new_fields() -> None:
    """Fields of a newer gateway are ignored, and `to_dict` gives the sent JSON."""
    found = Detections.model_validate({**DETECTED, "colour": "new"})
    assert found.to_dict() == DETECTED
    assert [each.label for each in found] == ["cat"]
    assert found.best == found.predictions[0]
    with pytest.raises(ValidationError, match="frozen"):
        found.model = "other"  # type: ignore[misc]
    assert Detections.model_validate({**DETECTED, "predictions": []}).best is None


@pytest.mark.parametrize("scale", [0.2, 1, 20])
def test_boxes_are_drawn_where_they_are(scale: float) -> None:
    """The frame's pixels are at the box, at any size; the given picture does not change."""
    size = (round(200 * scale), round(100 * scale))
    picture = Image.new("RGB", size)
    drawn = np.asarray(Detections.model_validate(DETECTED).draw(picture)).max(axis=2)
    assert drawn.shape == (size[1], size[0])
    assert not np.asarray(picture).any()
    below_label = drawn[round(70 * scale) :]  # the label is above, or moved down by less than that
    rows, columns = np.nonzero(below_label)
    assert (columns.min(), columns.max()) == (50 * scale, 150 * scale - 1)
    assert rows.max() + round(70 * scale) == 90 * scale - 1
    assert not drawn[round(75 * scale) : round(80 * scale), round(65 * scale) : round(130 * scale)].any()
    assert drawn[: round(45 * scale)].any()


def test_labels_stay_in_the_picture_and_off_each_other() -> None:
    """With many boxes at one corner, each label has its own place and the same size."""
    box = {"xmin": 0.0, "ymin": 0.0, "xmax": 1.0, "ymax": 1.0}
    rows = [{**DETECTED["predictions"][0], "class_id": n, "box": box} for n in range(4)]
    drawn = np.asarray(Detections.model_validate({**DETECTED, "predictions": rows}).draw(Image.new("RGB", (200, 100))))
    areas = [int((drawn == colour_of(n)).all(axis=2).sum()) for n in range(4)]
    assert min(areas) > 300
    assert max(areas) < 1.2 * min(areas)


def test_letters_can_be_read_on_every_colour() -> None:
    """The contrast of a label is at least what WCAG asks for text, 4.5 to 1."""

    def light(colour: tuple[int, int, int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722))) + 0.05

    for class_id in range(1000):
        ground = colour_of(class_id)
        one, other = sorted((light(ground), light(ink_on(ground))))
        assert other / one >= 4.5


def test_classes_are_written_on_the_picture() -> None:
    """The caption is at the upper left, and the rest of the picture is as it was."""
    rows = [{"label": "espresso", "class_id": 967, "score": 0.78}]
    result = Classification.model_validate({**DETECTED, "predictions": rows})
    drawn = np.asarray(result.draw(np.zeros((400, 600, 3), np.uint8)))
    assert drawn[:20, :60].max() == 255
    assert not drawn[100:].any()


def test_pictures_lose_nothing_on_their_way() -> None:
    """Arrays and PIL images become PNG with the same pixels, upright; modes that PNG lacks become RGB."""
    pixels = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
    for given in (pixels, pixels[..., 0], Image.fromarray(pixels), pixels[::-1]):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded(given)))), np.asarray(given))
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 3
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded(turned)))), pixels[::-1, ::-1])
    assert np.array_equal(np.asarray(opened(turned)), pixels[::-1, ::-1])
    assert Image.open(io.BytesIO(encoded(Image.fromarray(pixels).convert("CMYK")))).mode == "RGB"
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert opened(clear).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2, 3)), np.zeros((2, 2, 5), np.uint8), 3, io.StringIO("text"), None, "https://images.example/a.jpg"],
    ids=lambda wrong: type(wrong).__name__,
)
def test_arguments_that_are_not_images_are_refused(wrong: Any) -> None:
    """The client names the type before it sends anything."""
    with pytest.raises((TypeError, ValueError)):
        encoded(wrong)


def test_errors_survive_pickling() -> None:
    """They arrive complete from other processes."""
    error = InvalidInputError("Sentence.", code="text_empty", status=422, request_id="r", model="m")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.__dict__) == (InvalidInputError, error.__dict__)
