"""The OpenAPI document: every code has an example, and every example fits its schema."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from app.api.openapi import batch_example, batch_model
from app.errors import BY_CODE, ERRORS, GatewayError
from app.http.problems import Problem, problem
from app.main import create_app
from app.settings import Settings
from app.tasks import TASKS
from app.tasks.base import Task


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the document; no server is needed for it."""
    return create_app(Settings()).openapi()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_success_examples_fit_their_models(document: dict[str, Any], task: Task) -> None:
    """The example answers are valid answers, and they are in the document."""
    for path, model, example in (
        (f"/v1/{task.route}", task.result, task.example),
        (f"/v1/{task.route}/batch", batch_model(task), batch_example(task)),
    ):
        assert issubclass(model, BaseModel)
        model.model_validate(example)
        shown = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["example"]
        assert shown == example


def test_problem_examples_are_problems(document: dict[str, Any]) -> None:
    """Every example is a problem under its own status, and all codes of the task routes have one."""
    seen = set()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    responses = [item for operation in operations for item in operation["responses"].items()]
    for status, response in responses:
        problems = response.get("content", {}).get("application/problem+json", {})
        for code, example in problems.get("examples", {}).items():
            shown = Problem.model_validate(example["value"])
            assert (str(shown.status), shown.code) == (status, code)
            seen.add(code)
    assert set(BY_CODE) - seen == {"not_found", "method_not_allowed", "draining"}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_error_is_complete(error: type[GatewayError]) -> None:
    """Each class has a status, a title and a sentence, and retryable errors have a time for the next try."""
    told = problem(error("Sentence."), "id")
    assert 400 <= told.status < 600
    assert told.title
    assert error.__doc__
    assert (error.retry_after_s is not None) == (told.status in (429, 503))


def test_pictures_are_documented(document: dict[str, Any]) -> None:
    """Only the route for one detection offers pictures."""
    answers = {path: item["post"]["responses"]["200"] for path, item in document["paths"].items() if "post" in item}
    kinds = {path: answer["content"].keys() for path, answer in answers.items()}
    assert kinds.pop("/v1/detect") == {"application/json", "image/jpeg", "image/png"}
    assert set(map(tuple, kinds.values())) == {("application/json",)}


def test_references_resolve(document: dict[str, Any]) -> None:
    """Every referenced schema exists."""
    import json
    import re

    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_headers_are_documented(document: dict[str, Any], task: Task) -> None:
    """The task routes document the headers that they read and those of their answers."""
    for path in (f"/v1/{task.route}", f"/v1/{task.route}/batch"):
        operation = document["paths"][path]["post"]
        headers = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"}
        assert headers == {"X-Request-ID", "X-Request-Timeout-Ms", "traceparent"}
        assert {"model", "version"} <= {parameter["name"] for parameter in operation["parameters"]}
        responses = operation["responses"]
        assert responses["200"]["headers"].keys() == {"X-Request-ID", "Server-Timing"}
        assert all("Retry-After" in responses[status]["headers"] for status in ("429", "503"))


def test_images_by_url_are_documented(document: dict[str, Any]) -> None:
    """JSON takes an image or its URL, with an example of each; batches take images only."""
    bodies = document["paths"]["/v1/detect"]["post"]["requestBody"]["content"]
    forms = bodies["application/json"]["schema"]["oneOf"]
    assert [form["required"] for form in forms] == [["image"], ["image_url"]]
    assert bodies["application/json"]["examples"].keys() == {"image", "image_url"}
    batch = document["paths"]["/v1/detect/batch"]["post"]["requestBody"]["content"]
    assert batch["application/json"]["schema"]["required"] == ["images"]


def test_every_probe_is_documented(document: dict[str, Any]) -> None:
    """All paths of readiness are in the document."""
    assert {"/livez", "/readyz", "/healthz", "/health", "/metrics"} <= document["paths"].keys()
