"""The steps of `modelctl add` around a server: what is said when one fails, what is left. (The server is played.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import pytest
from sample_files import contents, labels
from test_ways_out import HOW

from modelctl import cli
from modelctl.embedded import running
from modelctl.embedded.running import Running
from modelctl.embedded.triton import TritonError
from modelctl.errors import CommandError
from modelctl.lint.linter import lint
from modelctl.models.tasks import TASKS
from modelctl.reference import served
from modelctl.reference.answers import Found
from modelctl.sources import addition


class Played:
    """A Triton that knows some models, and perhaps unloads none."""

    def __init__(self, *known: str, keeps: bool = False) -> None:
        self.known = dict.fromkeys(known, "")
        self.keeps = keeps

    def states(self) -> dict[str, str]:
        """Return the models that it knows."""
        return self.known

    def unload(self, _: str) -> None:
        """Unload a model, or fail as a closed connection does."""
        if self.keeps:
            raise TritonError("Socket closed")

    def is_live(self) -> bool:
        """Answer."""
        return True

    def close(self) -> None:
        """End."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty repository; nobody listens where the gateway would be."""
    monkeypatch.setenv("GATEWAY_PORT", "1")
    (tmp_path / "place" / "models").mkdir(parents=True)
    return tmp_path / "place" / "models"


def play(monkeypatch: pytest.MonkeyPatch, triton: Played, answer: Any = None) -> None:
    """Let a played Triton serve, whose answers `answer` compares; by default they are right."""
    monkeypatch.setattr(running, "reach", lambda _: Running(triton))  # type: ignore[arg-type]
    monkeypatch.setattr(served, "check", answer or (lambda *_: None))


def add(repository: Path, *words: object) -> int:
    """Add the small classifier."""
    path = networks.classifier(repository.parent.parent / "net.onnx")
    given = (path, *HOW, "--labels", labels(path.parent, 6), "--models", repository, *words)
    options = cli.build(["add"]).parse_args(["add", *map(str, given)])
    return addition.add(options)


def refusal(repository: Path, *words: object) -> str:
    """Return the sentence that refuses to add it; nothing is left behind."""
    with pytest.raises(CommandError) as caught:
        add(repository, *words)
    assert contents(repository.parent) == {"models": "folder"}
    return str(caught.value)


def test_files_that_lint_refuses_are_not_added(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first error is in the sentence. (What `add` writes has none, so that one is made here.)"""

    def broken(made: Path) -> Any:
        (made / "net_network" / "config.pbtxt").write_text("name: [")
        return lint(made)

    monkeypatch.setattr(addition, "lint", broken)
    said = refusal(repository, "--no-load")
    assert said.startswith(
        "net was not added, at the step 'check': modelctl lint finds an error in the written files: "
    )
    assert said.endswith(". The repository is as before.")


def test_a_model_of_another_repository_is_left_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another --name, which is proposed, is taken."""
    play(monkeypatch, Played("net", "other"))
    said = refusal(repository)
    assert said == (
        "net was not added, at the step 'load': The running server has a model net from another repository: give "
        "--name, --grpc-port or --models. The repository is as before."
    )
    monkeypatch.setattr(Running, "load", lambda *_: None)
    assert add(repository, "--name", "mine") == 0


def test_a_server_of_another_repository_does_not_load(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not see the folders."""
    play(monkeypatch, Played())
    said = refusal(repository)
    assert "at the step 'load': The running server does not know net: it serves another repository." in said


def test_a_server_that_keeps_the_model_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are gone, and the sentence asks for a restart."""

    def fail(*_: object) -> None:
        raise CommandError("no.")

    play(monkeypatch, Played(keeps=True))
    monkeypatch.setattr(Running, "load", fail)
    said = refusal(repository)
    assert said == (
        "net was not added, at the step 'load': no. The repository is as before. The running server may still hold the "
        "model (Triton does not unload net: Socket closed): restart it."
    )


def test_a_gateway_that_does_not_find_the_model_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is added all the same, because Triton serves it."""
    play(monkeypatch, Played())
    monkeypatch.setattr(Running, "load", lambda *_: None)
    monkeypatch.setattr(running, "wait_for_gateway", lambda _: False)
    assert add(repository) == 0
    said = capsys.readouterr()
    assert "the gateway does not serve it yet: see GET /readyz" in said.err
    assert f"net is served: POST http://127.0.0.1:1/v1/{TASKS['image-classification'].route}?model=net" in said.out


class Other:
    """A connection to a model whose answers are another's, or that fails."""

    error: str | None = None

    def __init__(self, _: str) -> None:
        """Connect."""

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def answer(self, spec: Any, _: bytes) -> list[Found]:
        """Return one sure label."""
        if self.error:
            raise TritonError(self.error)
        return [Found(f"label {number}", number, float(number == 5)) for number in range(6)]

    def tensor(self, spec: Any, item: bytes) -> Any:
        """Return what the reference prepares."""
        from modelctl.reference.pictures import prepare

        return prepare(item, spec.preprocess, spec.network.inputs["image"].dtype)[0]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (None, "The served model does not answer as its network does ("),
        ("in ensemble 'net', it broke", "The served model fails: in ensemble 'net', it broke. The repository is"),
    ],
)
def test_answers_of_another_model_are_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch, error: str | None, sentence: str
) -> None:
    """The model is taken out again."""
    check = served.check
    play(monkeypatch, Played(), check)
    monkeypatch.setattr(Running, "load", lambda *_: None)
    monkeypatch.setattr(served, "Served", type("Made", (Other,), {"error": error}))
    assert f"net was not added, at the step 'ask': {sentence}" in refusal(repository)
