"""The commands that change the models of a running server: add, list, verify, load, unload, remove."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelctl.reference import agreement
from modelctl.reference.answers import Found

ROOT = Path(__file__).resolve().parents[3]
CLASSIFIER = ROOT / "models" / "efficientnet_lite0_network"
NAME = "second_classifier"
FOLDERS = [NAME, *(f"{NAME}_{step}" for step in ("preprocess", "network", "postprocess"))]
ADD = [
    *("add", str(CLASSIFIER / "1" / "model.onnx"), "--name", NAME, "--task", "image-classification"),
    *("--labels", str(CLASSIFIER / "labels.txt"), "--resize", "shortest_edge_center_crop", "--resize-to", "256"),
    *("--resample", "bicubic"),
]
RATE = 20
"""Requests a second that go on while models come and go."""


@pytest.fixture(scope="module")
def command(stack: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs modelctl on the stack, as a user would."""

    def run(*arguments: str, say: str = "") -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "modelctl", *arguments, "--models", str(stack.models)]
        return subprocess.run(
            whole, cwd=ROOT, env=stack.environment(), input=say, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture(scope="module")
def added(command: Callable[..., Any], stack: Any) -> Iterator[str]:
    """Add a model, and remove it at the end; return the command's output."""
    done = command(*ADD)
    assert done.returncode == 0, done.stderr
    yield done.stderr + done.stdout
    command("remove", NAME, "--yes")
    assert not [name for name in FOLDERS if (stack.models / name).exists()]


def test_an_added_model_is_served_at_once(added: str, stack: Any, coffee: bytes) -> None:
    """When the command returns, the gateway serves the model, with the answer of its original."""
    with stack.client() as http:
        answers = [
            http.post("/v1/classify", params={"model": name}, files={"image": coffee})
            for name in (NAME, "efficientnet_lite0")
        ]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    one, twin = [answer.json()["predictions"] for answer in answers]
    assert [entry["label"] for entry in one] == [entry["label"] for entry in twin]
    assert max(abs(a["score"] - b["score"]) for a, b in zip(one, twin, strict=True)) < 1e-5


def test_the_curl_line_that_is_printed_works(added: str, stack: Any) -> None:
    line = next(line.strip() for line in added.splitlines() if line.strip().startswith("curl "))
    done = subprocess.run(["bash", "-c", line], cwd=stack.models.parent, capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["model"] == NAME, done


def test_list_tells_state_and_origin(added: str, command: Callable[..., Any]) -> None:
    rows = {row["name"]: row for row in json.loads(command("list", "--json").stdout)}
    assert rows[NAME]["state"] == "READY"
    assert (rows[NAME]["task"], rows[NAME]["default"]) == ("image-classification", False)
    assert rows["efficientnet_lite0"]["default"]
    assert NAME in command("list").stdout


def test_verify_agrees(added: str, command: Callable[..., Any]) -> None:
    done = command("verify", NAME)
    assert done.returncode == 0, done.stdout
    assert "answers as its reference" in done.stdout


def test_every_command_prints_json_on_demand(added: str, command: Callable[..., Any], stack: Any) -> None:
    """One JSON value on standard output; all other messages go to standard error."""
    found = json.loads(command("verify", NAME, "--json").stdout)
    assert (found["name"], found["same"], len(found["items"])) == (NAME, True, 3)
    assert all(item["same"] and item["score"] <= found["score"] for item in found["items"])
    unloaded = json.loads(command("unload", NAME, "--json").stdout)
    loaded = json.loads(command("load", NAME, "--json").stdout)
    assert sorted(unloaded[0]["unloaded"]) == sorted(loaded[0]["loaded"]) == sorted(FOLDERS)
    assert loaded[0]["gateway"]
    copy = f"{NAME}_copy"
    row = json.loads(command(*[copy if word == NAME else word for word in ADD], "--json").stdout)
    assert (row["name"], row["task"], row["served"]) == (copy, "image-classification", True)
    assert row["url"] == f"{stack.url}/v1/classify?model={copy}"
    asked = command("remove", copy, "--json")
    assert (asked.returncode, json.loads(asked.stdout)) == (
        1,
        {"error": "--json cannot ask for confirmation: give --yes with it."},
    )
    gone = json.loads(command("remove", copy, "--yes", "--json").stdout)
    assert [Path(folder).name for folder in gone["removed"]] == [name.replace(NAME, copy) for name in FOLDERS]
    assert not (stack.models / copy).exists()


def test_a_mistyped_model_is_told_of(added: str, command: Callable[..., Any]) -> None:
    for words in (("unload", "lite_detectr"), ("verify", "lite_detectr"), ("remove", "lite_detectr", "--yes")):
        done = command(*words)
        assert (done.returncode, done.stderr.rstrip().endswith("Did you mean lite_detector?")) == (1, True), done.stderr


def test_verify_sees_a_step_that_serves_other_labels(added: str, command: Callable[..., Any], stack: Any) -> None:
    """The labels were reversed without the server's knowledge, so its answers have others."""
    labels = stack.models / f"{NAME}_network" / "labels.txt"
    before = labels.read_text()
    try:
        labels.write_text("\n".join(reversed(before.splitlines())) + "\n")
        done = command("verify", NAME)
    finally:
        labels.write_text(before)
    assert done.returncode == 1
    assert "differs from its reference on 3 of 3" in done.stdout


def test_unload_and_load(added: str, command: Callable[..., Any], stack: Any, coffee: bytes) -> None:
    """A model that is unloaded stays in the repository; loaded again it answers again."""
    try:
        assert command("unload", NAME).returncode == 0
        rows = {row["name"]: row for row in json.loads(command("list", "--json").stdout)}
        assert rows[NAME]["state"] != "READY"
        assert (stack.models / NAME).is_dir()
        failed = command("verify", NAME)
        assert failed.returncode == 1
        assert "Is it loaded?" in failed.stderr
    finally:
        assert command("load", NAME).returncode == 0
    with stack.client() as http:
        end = time.monotonic() + 10
        while (answer := http.post("/v1/classify", params={"model": NAME}, files={"image": coffee})).is_error:
            assert time.monotonic() < end, answer.text
            assert answer.status_code in (404, 503)
            time.sleep(0.1)


def test_a_model_that_lint_refuses_is_not_loaded(added: str, command: Callable[..., Any], stack: Any) -> None:
    """The served one goes on serving."""
    config = stack.models / f"{NAME}_network" / "config.pbtxt"
    before = config.read_text()
    try:
        config.write_text(before.replace('name: "input"', 'name: "inptu"'))
        done = command("load", NAME)
    finally:
        config.write_text(before)
    assert done.returncode == 1
    assert "nothing was loaded" in done.stderr
    rows = {row["name"]: row for row in json.loads(command("list", "--json").stdout)}
    assert rows[NAME]["state"] == "READY"


def test_a_model_of_another_repository_is_left_alone(
    added: str, command: Callable[..., Any], stack: Any, tmp_path: Path
) -> None:
    """A served model of the same name from elsewhere is neither replaced nor unloaded."""
    whole = [sys.executable, "-m", "modelctl", *ADD, "--models", str(tmp_path)]
    done = subprocess.run(whole, cwd=ROOT, env=stack.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "from another repository" in done.stderr
    assert not list(tmp_path.iterdir())
    rows = {row["name"]: row for row in json.loads(command("list", "--json").stdout)}
    assert rows[NAME]["state"] == "READY"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("remove", "efficientnet_lite0", "--yes"), "is the default of its task"),
        (("remove", "efficientnet_lite0_network", "--yes"), "is a step of efficientnet_lite0"),
        (("remove", "absent", "--yes"), "absent"),
        (("load", "absent"), "absent"),
        (("unload", "absent"), "absent"),
        (("verify", "absent"), "absent"),
        (("verify", "simple_net"), "serves tensors"),
        (("load", NAME, "--grpc-port", "1"), "No Triton answers on port 1"),
        ((*ADD,), "remove that model first, or give another --name"),
    ],
)
def test_refusals_are_one_sentence(
    added: str, command: Callable[..., Any], arguments: tuple[str, ...], words: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_remove_asks(added: str, command: Callable[..., Any], stack: Any) -> None:
    """Any reply but yes, or the end of the input, changes nothing."""
    for answer in ("n\n", "\n", ""):
        done = command("remove", NAME, say=answer)
        assert done.returncode == 1
        assert "Nothing was removed" in done.stdout
    assert all((stack.models / name).is_dir() for name in FOLDERS)


class Traffic(threading.Thread):
    """Requests at a steady rate to the other models, until stopped; counts the answers."""

    def __init__(self, url: str, picture: bytes) -> None:
        super().__init__()
        self.answers: Counter[str] = Counter()
        self._url, self._picture = url, picture
        self._done = threading.Event()

    def run(self) -> None:
        """Send, each request in a thread of its own, so that a slow one does not hold up the next."""
        threads = []
        begun, number = time.monotonic(), 0
        with httpx.Client(base_url=self._url, timeout=30) as http:
            while not self._done.wait(max(0, begun + number / RATE - time.monotonic())):
                threads.append(threading.Thread(target=self._ask, args=(http, number)))
                threads[-1].start()
                number += 1
            for thread in threads:
                thread.join()

    def _ask(self, http: httpx.Client, number: int) -> None:
        try:
            if number % 4:
                answer = http.post("/v1/sentiment", json={"text": f"Number {number} was a good one."})
            else:
                answer = http.post("/v1/classify", files={"image": self._picture})
            self.answers[str(answer.status_code)] += 1
        except httpx.HTTPError as error:
            self.answers[repr(error)] += 1

    def end(self) -> None:
        """Wait for the last answers."""
        self._done.set()
        self.join()


def test_no_request_is_lost_while_a_model_comes_and_goes(
    command: Callable[..., Any], stack: Any, coffee: bytes
) -> None:
    """Twenty requests a second for other models, while one is added, verified and removed."""
    traffic = Traffic(stack.url, coffee)
    traffic.start()
    try:
        command("remove", NAME, "--yes")  # what the tests before have added
        for arguments in (ADD, ["verify", NAME], ["remove", NAME, "--yes"]):
            done = command(*arguments)
            assert done.returncode == 0, done.stderr
    finally:
        traffic.end()
    assert set(traffic.answers) == {"200"}, traffic.answers
    assert traffic.answers["200"] > 2 * RATE


def found(label: str, score: float, box: tuple[float, ...] = ()) -> Found:
    """Return one finding."""
    return Found(label=label, class_id=-1, score=score, box=box)


BOX = (10.0, 10.0, 20.0, 20.0)


@pytest.mark.parametrize(
    ("served", "expected", "same"),
    [
        ([found("a", 0.9), found("b", 0.1)], [found("a", 0.9), found("b", 0.1)], True),
        ([found("b", 0.9), found("a", 0.1)], [found("a", 0.9), found("b", 0.1)], False),
        ([found("b", 0.5001), found("a", 0.4999)], [found("a", 0.5001), found("b", 0.4999)], True),
        ([found("a", 0.9, BOX)], [found("a", 0.9, (10.0, 10.0, 20.0, 20.9))], True),
        ([found("a", 0.9, BOX)], [found("a", 0.9, (10.0, 10.0, 20.0, 21.1))], False),
        ([], [found("a", 0.9, BOX)], False),
        ([found("a", 0.9, BOX), found("a", 0.8, BOX)], [found("a", 0.9, BOX)], False),
        ([], [found("a", 0.5005, BOX)], True),
        ([], [], True),
        ([found("a", float("nan"))], [found("a", 0.9)], False),
        ([found("a", 0.9, (float("nan"),) * 4)], [found("a", 0.9, BOX)], False),
        ([found("a", float("nan"), BOX)], [], False),
    ],
)
def test_compare(served: list[Found], expected: list[Found], same: bool) -> None:
    """Answers are equal up to rounding, ties and boxes at the threshold."""
    assert agreement.compare("item", served, expected, 0.5).is_within(agreement.Limits(1e-3, 1.0)) is same
