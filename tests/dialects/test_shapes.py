"""Every dialect's answers have the types of the OpenAPI document, and the document has `format`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from app.dialects import BY_NAME as BY_DIALECT
from app.dialects import DIALECTS, hf
from app.dialects.base import Call, Dialect, DialectRequest
from app.errors import GatewayError, InvalidParameterError
from app.http.problems import problem
from app.main import create_app
from app.settings import Settings
from app.tasks import BY_NAME, TASKS
from app.tasks.base import Task

PAIRS = [(dialect, BY_NAME[name]) for dialect in DIALECTS for name in dialect.answers]


@pytest.mark.parametrize(("dialect", "task"), PAIRS, ids=[f"{dialect.name}-{task.route}" for dialect, task in PAIRS])
def test_answers_are_of_their_type(dialect: Dialect, task: Task) -> None:
    """No field is missing, and there is no other."""
    told = dialect.writers[task.name](task.example, Call(1000, 0.01, DialectRequest()))
    adapter = TypeAdapter(dialect.answers[task.name])
    assert adapter.dump_python(adapter.validate_python(told, strict=True), by_alias=True) == told
    assert dialect.readers.keys() == dialect.writers.keys() == dialect.answers.keys()


HALF = "\ud800"  # of a surrogate pair: JSON can say it, UTF-8 cannot
IMAGE = {"type": "base64", "value": ""}


@pytest.mark.parametrize(
    ("dialect", "task", "body", "code"),
    [
        ("hf", "text-classification", {"inputs": "good", HALF: 1}, "malformed_request"),
        ("hf", "text-classification", {"inputs": "good", "parameters": {HALF: 1}}, "invalid_parameter"),
        ("roboflow", "object-detection", {"image": IMAGE, "model_id": HALF}, "invalid_parameter"),
        ("roboflow", "object-detection", {"image": IMAGE, "class_filter": [HALF]}, "invalid_parameter"),
        ("roboflow", "object-detection", {"image": IMAGE, "confidence": float("nan")}, "invalid_parameter"),
        ("roboflow", "object-detection", {"image": IMAGE, "confidence": True}, "invalid_parameter"),
        ("nim", "object-detection", {"input": [{"type": "image_url", "url": f"data:{HALF}"}]}, "malformed_request"),
    ],
)
def test_refusals_can_always_be_written(dialect: str, task: str, body: dict[str, Any], code: str) -> None:
    """No body leads to a problem that cannot be encoded, which would be a bug of the gateway."""
    with pytest.raises(GatewayError) as raised:
        BY_DIALECT[dialect].readers[task](body)
    assert raised.value.code == code
    assert problem(raised.value, "id").model_dump_json().encode()


def test_the_document_has_the_bodies_of_roboflow() -> None:
    """These routes read the body themselves, so the document is written by hand, without open references."""
    paths = create_app(Settings()).openapi()["paths"]
    bodies = {path: told["post"]["requestBody"]["content"] for path, told in paths.items() if "/infer/" in path}
    assert bodies.keys() == {"/roboflow/infer/classification", "/roboflow/infer/object_detection"}
    for content in bodies.values():
        schema = content["application/json"]["schema"]
        assert schema["required"] == ["image"]
        assert schema["properties"]["image"]["required"] == ["type", "value"]
        assert "$ref" not in str(schema)
    first = paths["/roboflow/{model}/{version}"]["post"]
    assert {option["name"] for option in first["parameters"]} >= {"model", "version", "confidence", "overlap"}
    assert "$ref" not in str(first["parameters"])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_document_has_the_formats(task: Task) -> None:
    """Single routes have the option with its values, and an answer for each; batches have neither."""
    paths = create_app(Settings()).openapi()["paths"]

    def option(path: str) -> list[dict[str, Any]]:
        return [parameter for parameter in paths[path]["post"]["parameters"] if parameter["name"] == "format"]

    names = {dialect.name for dialect in DIALECTS if task.name in dialect.answers}
    (single,) = option(f"/v1/{task.route}")
    values = single["schema"]["anyOf"][0]
    assert set(values.get("enum", [values.get("const")])) == names
    assert option(f"/v1/{task.route}/batch") == []
    answer = paths[f"/v1/{task.route}"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert len(answer["anyOf"]) == len(names) + 1


@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\x7f", "\u00e9"])
def test_input_cannot_break_a_header(character: str) -> None:
    """The Hub's header quotes it, in printable ASCII."""
    (value,) = hf.problem_headers(InvalidParameterError(f"a{character}b is not an option of this route.")).values()
    assert value == "a?b is not an option of this route."
