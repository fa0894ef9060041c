"""`modelctl add` shows what a model answers, warns, asks, draws, and keeps what its user expects."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from PIL import Image
from sample_files import contents, labels, png, spec
from skimage import data
from test_onnx import UNIT, WORDS, tokenizer

from modelctl.reference.agreement import agreement

HOW = ("--resize", "letterbox_center", *UNIT, "--decoder", "end_to_end")
NO_BOX = "WARNING: No box in any sample, with a score threshold of 1"


def detector(folder: Path, *options: str) -> tuple[str, ...]:
    """Return the small end-to-end detector with options."""
    path = networks.end_to_end(folder / "boxes.onnx")
    return (str(path), *HOW, "--labels", labels(folder, 3), *options)


def picture(folder: Path, name: str = "my own.png") -> Path:
    """Write a picture of the user's own."""
    path = folder / name
    path.write_bytes(png(data.astronaut()))
    return path


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Return a function that puts a person at the terminal; it returns the list of questions that they are asked."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def sit(answer: str) -> list[str]:
        asked: list[str] = []
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("builtins.input", lambda question: (asked.append(question), answer)[1])
        return asked

    return sit


def test_the_answers_are_shown_and_drawn(command: Any, stack: Any, tmp_path: Path) -> None:
    """On the screen with boxes, in JSON in full, and as pictures of their own size; warnings go onto the card."""
    drawn = tmp_path / "new" / "drawn"
    result = command.run("add", *detector(tmp_path), "--json", "--save-pictures", str(drawn))
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert list(found["answers"]) == ["astronaut.jpg", "chelsea.jpg", "coffee.jpg"]
    first = found["answers"]["coffee.jpg"][0]
    sides = ", ".join(f"{side:.0f}" for side in first["box"])
    assert f"coffee.jpg: {first['label']} {first['score']:.3f} [{sides}], " in result.err
    for name in found["answers"]:
        picture = Image.open(drawn / name.replace(".jpg", ".png"))
        plain = Image.open(Path("modelctl/samples") / name)
        assert picture.size == plain.size
        assert np.abs(np.asarray(picture, int) - np.asarray(plain.convert("RGB"), int)).max() > 100
    card = (stack.models / "boxes" / "MODEL_CARD.md").read_text()
    assert all(f"Warning of `modelctl add`: {warning}" in card for warning in found["warnings"])


def test_nothing_found_is_said_and_asked_about(
    command: Any, stack: Any, tmp_path: Path, person: Callable[[str], list[str]]
) -> None:
    """A head without any box: warned of without a terminal, not served when a person says no, served with --yes."""
    before = contents(stack.models)
    asked = person("n")
    result = command.run("add", *detector(tmp_path, "--score-threshold", "1"))
    assert (result.code, asked) == (1, ["Serve it all the same? [y/N] "])
    assert "coffee.jpg: no box\n" in result.err
    assert NO_BOX in result.err
    assert "no box in any sample, so nothing was compared" in result.err
    assert "first labels agree" not in result.err
    text = (
        "boxes was not added, at the step 'judge': The warnings were not accepted: correct the options, or give --yes."
    )
    assert result.sentence == f"{text} The repository is as before."
    assert contents(stack.models) == before
    result = command.run("add", *detector(tmp_path, "--score-threshold", "1", "--yes"))
    assert (result.code, len(asked), NO_BOX in result.err) == (0, 1, True), result.err
    said = command.run("verify", "boxes", "--grpc-port", str(stack.grpc))
    assert said.code == 0
    assert "boxes finds no box in any item, nor does its reference: nothing was compared." in said.out
    assert "same" not in said.out


def test_a_person_can_accept_and_is_not_asked_without_warnings(
    command: Any, tmp_path: Path, person: Callable[[str], list[str]]
) -> None:
    asked = person("y")
    accepted = command.run("add", *detector(tmp_path, "--score-threshold", "1"), "--name", "empty")
    assert (accepted.code, len(asked)) == (0, 1), accepted.err
    plain = command.run("add", *detector(tmp_path), "--name", "fine")
    assert (plain.code, "WARNING" in plain.err, len(asked)) == (0, False, 1), plain.err


def best_of(command: Any, tmp_path: Path, own: Path) -> dict[str, Any]:
    """Return the best box in a picture of one's own, found by an expectation that is not met."""
    result = command.run("add", *detector(tmp_path), "--expect-box", f"{own}=label 0:0,0,1,1", "--name", "probe")
    assert result.code == 1
    line = next(line for line in result.err.splitlines() if "expect_1_my_own.png: " in line)
    label, score, *box = line.split(": ", 1)[1].replace(",", "").replace("[", "").replace("]", "").split()[1:7]
    return {"label": f"label {label}", "score": float(score), "box": [float(side) for side in box]}


def test_expectations_are_kept_and_checked(command: Any, served: Any, stack: Any, tmp_path: Path) -> None:
    """The picture lies beside the model, and verify holds the served answers against it."""
    own = picture(tmp_path)
    best = best_of(command, tmp_path, own)
    sides = ",".join(f"{side:g}" for side in best["box"])
    wanted = ("--expect", f"{own}={best['label']}", "--expect-box", f"{own}={best['label']}:{sides}")
    result = command.run("add", *detector(tmp_path, *wanted))
    assert result.code == 0, result.err
    kept = spec(stack.models, "boxes")["expect"]
    assert kept == [
        {"image": "expect_1_my_own.png", "label": best["label"]},
        {"image": "expect_2_my_own.png", "label": best["label"], "box": best["box"]},
    ]
    folder = stack.models / "boxes"
    assert (folder / "expect_2_my_own.png").read_bytes() == own.read_bytes()
    assert command.run("render", "boxes", "--check").code == 0
    port = ("--grpc-port", str(stack.grpc))
    said = command.run("verify", "boxes", *port)
    assert (said.code, "2 of 2 answers are as model.yaml expects." in said.out) == (0, True), said.out
    shutil.copy(Path("modelctl/samples/coffee.jpg"), folder / "expect_2_my_own.png")
    Image.new("RGB", (64, 64)).save(folder / "expect_1_my_own.png")
    said = command.run("verify", "boxes", *port, "--json")
    found = json.loads(said.out)
    assert (said.code, found["same"], found["expected"]) == (1, True, 2)
    assert found["unmet"]
    (folder / "expect_1_my_own.png").unlink()
    said = command.run("verify", "boxes", *port)
    assert said.code == 1
    assert (
        "The expected picture expect_1_my_own.png cannot be read (No such file or directory): put it into" in said.err
    )


def test_an_expectation_that_is_not_met_is_refused(command: Any, stack: Any, tmp_path: Path) -> None:
    """Of boxes by their place, of a classifier and of texts by the first label; nothing is left behind."""
    own = picture(tmp_path)
    before = contents(stack.models)
    result = command.run("add", *detector(tmp_path), "--expect-box", f"{own}=label 0:0,0,1,1")
    assert "at the step 'judge': The model does not answer as expected: expect_1_my_own.png: expected label 0" in (
        result.sentence
    )
    net = str(networks.classifier(tmp_path / "net.onnx"))
    how = (net, "--resize", "stretch", *UNIT, "--labels", labels(tmp_path, 6))
    told = [command.run("add", *how, "--expect", f"{own}=label {number}") for number in range(6)]
    assert sorted(result.code for result in told) == [0, 1, 1, 1, 1, 1]
    assert all(", answered label " in result.sentence for result in told if result.code)
    text = str(networks.reader(tmp_path / "text.onnx", vocabulary=len(WORDS)))
    how = (
        text,
        "--tokenizer",
        tokenizer(tmp_path),
        "--labels",
        labels(tmp_path, 3),
        "--max-length",
        "12",
        "--activation",
        "softmax",
    )
    told = [command.run("add", *how, "--expect", f"profit rose = a good year=label {number}") for number in range(3)]
    assert sorted(result.code for result in told) == [0, 1, 1]
    assert spec(stack.models, "text")["expect"][0]["text"] == "profit rose = a good year"
    assert set(contents(stack.models)) - set(before) != set()


def test_an_option_against_the_files_own_word_is_warned_of(command: Any, tmp_path: Path) -> None:
    """Ultralytics writes into its files how pictures are prepared."""
    said = {"author": "Ultralytics", "task": "detect", "names": "{0: 'a', 1: 'b', 2: 'c'}", "imgsz": "[64, 64]"}
    path = str(networks.yolo(tmp_path / "yolo.onnx", metadata=said))
    result = command.run("add", path, "--std", "2")
    assert result.code == 0, result.err
    assert "WARNING: --std 2,2,2 overrules the file, which says 1,1,1: omit it unless the file is wrong." in result.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--expect", "{own}"), "'{own}' is not of the form --expect PICTURE=LABEL."),
        (("--expect-box", "{own}=label 0"), "' is not of the form --expect-box PICTURE=LABEL:X1,Y1,X2,Y2."),
        (("--expect-box", "{own}=label 0:1,2,3"), "'1,2,3' is not a box: give X1,Y1,X2,Y2 in the picture's pixels"),
        (("--expect-box", "{own}=label 0:9,2,3,4"), "'9,2,3,4' is not a box: give X1,Y1,X2,Y2 in the picture's pixels"),
        (("--expect", "nowhere.png=label 0"), "The picture nowhere.png of --expect cannot be read: No such file"),
        (
            ("--expect", "{own}=lable 0"),
            "'lable 0' of --expect is not one of the model's labels. Did you mean label 0?",
        ),
    ],
)
def test_malformed_expectations_are_refused(
    command: Any, tmp_path: Path, options: tuple[str, str], sentence: str
) -> None:
    own = str(picture(tmp_path))
    result = command.run("add", *detector(tmp_path), options[0], options[1].format(own=own))
    assert (result.code, sentence.format(own=own) in result.sentence) == (1, True), result.sentence


def test_options_that_have_no_effect_are_refused(command: Any, tmp_path: Path) -> None:
    own = picture(tmp_path)
    net = (str(networks.classifier(tmp_path / "net.onnx")), "--resize", "stretch", *UNIT, "--labels")
    result = command.run("add", *net, labels(tmp_path, 6), "--expect-box", f"{own}=label 0:1,2,3,4")
    assert "--expect-box is for detectors, and this model has no boxes: give --expect PICTURE=LABEL." in result.sentence
    result = command.run("add", str(networks.two_towers(tmp_path / "t.onnx")), "--expect", f"{own}=a")
    assert "--expect has no effect on a model that serves tensors: omit it." in result.sentence
    text = str(networks.reader(tmp_path / "text.onnx", vocabulary=len(WORDS)))
    how = (
        text,
        "--tokenizer",
        tokenizer(tmp_path),
        "--labels",
        labels(tmp_path, 3),
        "--max-length",
        "12",
        "--activation",
        "softmax",
    )
    result = command.run("add", *how, "--save-pictures", str(tmp_path / "drawn"))
    assert "--save-pictures is for models of pictures, and this one takes texts: omit it." in result.sentence
    unreadable = tmp_path / "words.png"
    unreadable.write_text("no picture")
    result = command.run("add", *net, labels(tmp_path, 6), "--expect", f"{unreadable}=label 0")
    assert "The picture expect_1_words.png cannot be decoded: cannot identify image file" in result.sentence
    (tmp_path / "file").write_text("")
    result = command.run("add", *net, labels(tmp_path, 6), "--save-pictures", str(tmp_path / "file"))
    assert f"The pictures cannot be written to {tmp_path / 'file'}: " in result.sentence


def test_nothing_is_not_an_agreement() -> None:
    """Two empty answers are no first labels that agree."""
    from modelctl.models.spec import read
    from modelctl.reference.answers import Found

    detector = read(Path("models/lite_detector/model.yaml"))
    one = [Found("person", 0, 0.9, (0, 0, 9, 9))]
    assert agreement({"a": ([], []), "b": ([], [])}, detector).sentence() == (  # type: ignore[arg-type]
        "no box in any sample, so nothing was compared"
    )
    assert agreement({"a": ([], []), "b": (one, one)}, detector).sentence() == (  # type: ignore[arg-type]
        "1 of 1 first labels agree, scores differ by 0 at most; no box in 1 of 2 samples"
    )
