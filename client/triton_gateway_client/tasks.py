"""The calls of the gateway's routes as steps (`exchange`), for both clients.

    item -> bytes (an image file, or a text as JSON) -> Payload -> Reply -> result

The clients run the steps.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from triton_gateway_client import errors, images
from triton_gateway_client.errors import DeadlineExceededError, GatewayError
from triton_gateway_client.exchange import Deadline, Payload, Reply, Request, Send, Steps, Wait, Work, call, late
from triton_gateway_client.results import Classification, Detections, Health, Model, ModelList, Result, Sentiment, Value

R = TypeVar("R", bound=Result)
V = TypeVar("V", bound=Value)

JSON, RAW = "application/json", "application/octet-stream"
REQUEST_ID = re.compile(r"[!-~]{1,128}")
POLL_S = 0.2
PROBE_TIMEOUT_S = 5.0


class BatchOptions(TypedDict, total=False):
    """Options of every task; None means the default.

    Attributes:
        model: the model's name (default: the task's default model).
        version: the model's version (default: the newest).
        timeout: seconds for the whole call, retries included (default: the client's).

    """

    model: str | None
    version: str | int | None
    timeout: float | None


class ClassifyBatchOptions(BatchOptions, total=False):
    """Options of many classifications. `top_k`: number of classes, 5 by default."""

    top_k: int | None


class DetectBatchOptions(BatchOptions, total=False):
    """Options of many detections (default: the model's own values).

    Attributes:
        score_threshold: minimum score, 0 to 1.
        iou_threshold: maximum overlap (IoU) of two boxes of one class, 0 to 1.
        max_detections: maximum number of boxes.
        classes: labels or class ids to look for.
        agnostic_nms: whether boxes of different classes suppress each other too.
        class_thresholds: minimum score by label or class id, instead of `score_threshold`.

    """

    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    classes: Sequence[str | int] | None
    agnostic_nms: bool | None
    class_thresholds: Mapping[str, float] | None


class Options(BatchOptions, total=False):
    """Options of one call. `request_id`: 1 to 128 visible ASCII characters, for the logs; a new one by default."""

    request_id: str | None


class ClassifyOptions(Options, ClassifyBatchOptions, total=False):
    """Options of one classification."""


class DetectOptions(Options, DetectBatchOptions, total=False):
    """Options of one detection."""


@dataclass(frozen=True)
class Task(Generic[R]):
    """One task: its route, the type of its results, and how items become bytes and bytes become a body."""

    route: str
    result: type[R]
    encode: Callable[[Any], bytes]
    one: Callable[[bytes], Payload]
    many: Callable[[Sequence[bytes]], Payload]


def _image(image: bytes) -> Payload:
    return Payload(image, RAW)


def _images(several: Sequence[bytes]) -> Payload:
    return Payload(files=[("images", (str(index), image)) for index, image in enumerate(several)])


def _json_text(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"a text must be str, not {type(text).__name__}")
    return json.dumps(text).encode()


def _text(text: bytes) -> Payload:
    return Payload(b'{"text":' + text + b"}", JSON)


def _texts(several: Sequence[bytes]) -> Payload:
    return Payload(b'{"texts":[' + b",".join(several) + b"]}", JSON)


CLASSIFY = Task("classify", Classification, images.encoded, _image, _images)
DETECT = Task("detect", Detections, images.encoded, _image, _images)
SENTIMENT = Task("sentiment", Sentiment, _json_text, _text, _texts)


@dataclass(frozen=True)
class Defaults:
    """Timeout and retries of calls that do not set their own."""

    timeout: float
    retries: int

    def deadline(self, timeout: float | None) -> Deadline:
        """Return the deadline of a call that starts now."""
        return Deadline(self.timeout if timeout is None else timeout)


def one(defaults: Defaults, task: Task[R], item: object, image_url: str | None, options: Mapping[str, Any]) -> Steps[R]:
    """Ask for the result of one item.

    Raises:
        GatewayError: when the call fails.
        OSError: when the item is a file that cannot be read.
        TypeError, ValueError: when an argument is invalid.

    """
    deadline = defaults.deadline(options.get("timeout"))
    request_id = options.get("request_id") or new_request_id()
    if not REQUEST_ID.fullmatch(request_id):
        raise ValueError("request_id must be 1 to 128 visible ASCII characters")
    if item is not None and image_url is not None:
        raise TypeError("give an image or image_url, not both")
    if image_url is None:
        payload = task.one((yield Work(lambda: task.encode(item))))
    else:
        payload = Payload(json.dumps({"image_url": image_url}).encode(), JSON)
    request = Request("POST", f"/v1/{task.route}", request_id, query(options), payload)
    reply = yield from call(request, deadline, defaults.retries)
    return parsed(task.result, reply, request_id).with_timing(reply.headers.get("server-timing", ""))


def models(defaults: Defaults) -> Steps[list[Model]]:
    """Ask for the catalogue."""
    request = Request("GET", "/v1/models", new_request_id())
    reply = yield from call(request, defaults.deadline(None), defaults.retries)
    return list(parsed(ModelList, reply, request.request_id).models)


def model(defaults: Defaults, name: str) -> Steps[Model]:
    """Ask for one model of the catalogue."""
    request = Request("GET", f"/v1/models/{quote(name, safe='')}", new_request_id())
    reply = yield from call(request, defaults.deadline(None), defaults.retries)
    return parsed(Model, reply, request.request_id)


def health(deadline: Deadline) -> Steps[Health]:
    """Ask once whether the default models give their expected answers; the answer may be no.

    Raises:
        GatewayError: when there is no such answer.

    """
    request = Request("GET", "/readyz", new_request_id())
    outcome: Reply | GatewayError = (yield Send(request, deadline)) if deadline.left() > 0 else late(request)
    if isinstance(outcome, GatewayError):
        raise outcome
    try:
        return Health.model_validate_json(outcome.body)
    except ValidationError as error:
        raise errors.from_answer(outcome.status, outcome.headers, outcome.body, request.request_id) from error


def ready() -> Steps[bool]:
    """Ask whether the gateway answers and is ready."""
    try:
        found = yield from health(Deadline(PROBE_TIMEOUT_S))
    except GatewayError:
        return False
    return found.ready


def wait_until_ready(timeout: float) -> Steps[Health]:
    """Ask until the gateway is ready.

    Raises:
        DeadlineExceededError: when the gateway is not ready within `timeout` seconds; the detail is the reason.

    """
    deadline, reason = Deadline(timeout), "no answer"
    while deadline.left() > 0:
        try:
            found = yield from health(Deadline(min(PROBE_TIMEOUT_S, max(0.001, deadline.left()))))
        except GatewayError as error:
            reason = str(error)
        else:
            if found.ready:
                return found
            reasons = [f"{each.model}: {each.reason}" for each in found.models if not each.ready]
            reason = "; ".join([*([found.reason] if found.reason else []), *reasons])
        yield Wait(max(0.0, min(POLL_S, deadline.left())))
    raise DeadlineExceededError(f"Not ready after {timeout:g} s: {reason}", code="deadline_exceeded", retryable=True)


def parsed(kind: type[V], reply: Reply, request_id: str) -> V:
    """Return the answer's body as a value.

    Raises:
        GatewayError: when the body is not a valid value of that type.

    """
    try:
        return kind.model_validate_json(reply.body)
    except ValidationError as error:
        raise errors.unexpected(reply.status, request_id) from error


def query(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that belong in the query string."""
    apart = ("timeout", "request_id")
    given = {name: value for name, value in options.items() if value is not None and name not in apart}
    # One option holds an object; all others are texts, numbers, or lists of them.
    return {name: json.dumps(value) if isinstance(value, Mapping) else value for name, value in given.items()}


def new_request_id() -> str:
    """Return an id for a call."""
    return str(uuid.uuid4())
