"""What was served wrongly without a word, or refused in a circle, is right now, or refused with a way out."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import heads
import networks
import numpy as np
import onnx
import pytest
from heads import OBJECTS, SIDE
from networks import node
from PIL import Image
from sample_files import labels, png
from test_heads import THEIRS, answers, drafted, same_objects
from test_onnx import WORDS, tokenizer
from test_ways_out import HOW, read, refusal

from modelctl import cli
from modelctl.errors import CommandError
from modelctl.reference.pictures import prepare
from modelctl.sources import hub, judging
from modelctl.sources import labels as names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import checkpoints

ROWS = np.array([[*box, score, kind] for kind, score, box in OBJECTS], np.float32)


@pytest.mark.parametrize("head", [{}, {"head": "Detect", "end2end": "True"}])
def test_two_classes_behind_nms_are_no_rt_detr(tmp_path: Path, head: dict[str, str]) -> None:
    """Rows of box, score and class are as wide as RT-DETR's of four sides and two classes."""
    named = THEIRS | {"task": "detect", "imgsz": f"[{SIDE}, {SIDE}]"} | head
    path = heads.constant(tmp_path / "net.onnx", {"output0": ROWS}, metadata=named)
    draft = drafted(tmp_path, path, names=None, prepared=())
    assert draft.spec.preprocess.resize == "letterbox_center"
    for answer in answers(draft):
        same_objects(answer)


def test_ultralytics_classifiers_are_cut_as_torchvision_cuts(tmp_path: Path) -> None:
    """The corner is rounded half to even, for every width; transparency is dropped, as by `cv2.imread`."""
    metadata = THEIRS | {"task": "classify", "names": str(dict.fromkeys(range(6), "a")), "imgsz": "[32, 32]"}
    path = networks.classifier(tmp_path / "net.onnx", ending="probabilities", metadata=metadata)
    how = drafted(tmp_path, path, names=None, prepared=()).spec.preprocess
    assert how.alpha == "drop"
    for width in range(40, 90):
        picture = Image.fromarray(np.random.default_rng(width).integers(0, 256, (40, width, 3), np.uint8))
        resized = picture.resize((int(32 * width / 40), 32), Image.Resampling.BILINEAR)
        left = round((resized.width - 32) / 2.0)
        expected = np.asarray(resized.crop((left, 0, left + 32, 32))).transpose(2, 0, 1)[None] / 255
        np.testing.assert_allclose(prepare(png(np.asarray(picture)), how, "FP32")[0], expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm_roberta", "distilbert"])
def test_a_checkpoint_without_its_tokenizer(tmp_path: Path, family: str) -> None:
    """transformers makes up one of special tokens, which takes every word for an unknown one."""
    checkpoints.TEXT[family](tmp_path / family)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / family / file).unlink()
    said = refusal(tmp_path, tmp_path / family, "--activation", "softmax")
    assert said == "The checkpoint has no tokenizer that can be served (tokenizer.json): its vocabulary is missing."


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keys", [{"do_resize": False}, {"size": {"longest_edge": 64}}, None])
def test_the_size_that_is_asked_for_is_taken(tmp_path: Path, keys: dict[str, Any] | None) -> None:
    """Of a processor that does not resize, that resizes otherwise, and without its file."""
    place = tmp_path / "vit"
    checkpoints.PICTURES["vit"](place)
    file = place / "preprocessor_config.json"
    content = json.loads(file.read_text())
    if keys is None:
        file.unlink()
    else:
        file.write_text(json.dumps(content | keys))
    said = refusal(tmp_path, place)
    assert "give --size HEIGHT,WIDTH" in said
    rest = () if keys else ("--scale", "1/255", "--mean", "0.5", "--std", "0.25")
    made = read(tmp_path, place, "--size", "64", *rest)
    assert made.spec.preprocess.dims == [3, 64, 64]
    assert made.spec.preprocess.std == ([0.5] * 3 if keys else [0.25] * 3)


TEXTS = ("--activation", "softmax")


def test_padding_is_tried_with_few_tokens_too(tmp_path: Path) -> None:
    """A sample text that fills the network shows nothing of its padding."""
    path = networks.reader(tmp_path / "net.onnx", vocabulary=len(WORDS), masked=False)
    rest = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), *TEXTS)
    for length in ("4", "8", "16"):
        assert "answer changes with the padding behind a text" in refusal(tmp_path, path, *rest, "--max-length", length)


def test_the_limit_of_a_tokenizer_is_obeyed(tmp_path: Path) -> None:
    """--max-length overrules it; a network of fixed length takes none."""
    from tokenizers import Tokenizer

    path = networks.reader(tmp_path / "net.onnx", vocabulary=len(WORDS))
    cut = Tokenizer.from_file(tokenizer(tmp_path))
    cut.enable_truncation(16)
    cut.save(str(tmp_path / "tokenizer.json"))
    rest = ("--tokenizer", tmp_path / "tokenizer.json", "--labels", labels(tmp_path, 3), *TEXTS)
    assert read(tmp_path, path, *rest).spec.preprocess.max_length == 16
    assert read(tmp_path, path, *rest, "--max-length", "40").spec.preprocess.max_length == 40
    model = onnx.load(path)
    for entry in model.graph.input:
        entry.type.tensor_type.shape.dim[1].dim_value = 24
    onnx.save(model, str(path))
    said = refusal(tmp_path, path, *rest, "--max-length", "12")
    assert said == "The network reads exactly 24 tokens: omit --max-length."
    assert read(tmp_path, path, *rest).spec.preprocess.max_length == 24


def test_a_stored_network_can_be_added_again(tmp_path: Path) -> None:
    """It cuts its padding already."""
    path = networks.reader(tmp_path / "net.onnx", vocabulary=len(WORDS))
    rest = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), *TEXTS, "--max-length", "12")
    stored = read(tmp_path, path, *rest).network
    assert read(tmp_path, stored, *rest).spec.task == "text-classification"


@pytest.mark.parametrize("words", [("--max-length", "0"), ("--max-length", "-5")])
def test_a_length_is_a_number_from_one(capsys: pytest.CaptureFixture[str], words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        cli.build(["add"]).parse_args(["add", "net.onnx", *words])
    assert "is not a size: give whole numbers from 1" in capsys.readouterr().err


def judged(work: Path, *words: object) -> judging.Judgement:
    """Return what `add` makes of the answers of a command line's draft."""
    draft = read(work, *words)
    options = cli.build(["add"]).parse_args(["add", *map(str, words)])
    judging.doubt(draft)
    return judging.judge(draft, options)


def test_expected_texts_that_begin_alike(tmp_path: Path) -> None:
    """Each is held against its own answer."""
    path = networks.reader(tmp_path / "net.onnx", vocabulary=len(WORDS))
    rest = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), *TEXTS, "--max-length", "40")
    texts = [f"{'profit ' * 6}{f'{word} ' * 25}".strip() for word in WORDS[2:]]
    best = {}
    for text in texts:
        for number in range(3):
            try:
                judged(tmp_path, path, *rest, "--expect", f"{text}=label {number}")
            except CommandError:
                continue
            best[text] = f"label {number}"
    assert len(set(best.values())) > 1
    wanted = [word for text, label in best.items() for word in ("--expect", f"{text}={label}")]
    assert len(judged(tmp_path, path, *rest, *wanted).wishes) == len(texts)


def test_a_probability_that_a_sigmoid_flattens_is_told(tmp_path: Path) -> None:
    """Of one class too."""
    path = networks.classifier(tmp_path / "net.onnx", classes=1, ending="sigmoid")
    rest = (*HOW, "--labels", labels(tmp_path, 1))
    told = judged(tmp_path, path, *rest, "--activation", "sigmoid").warnings
    assert told == ["The outputs lie between 0 and 1, and the sigmoid makes them 0.5 to 0.73: give --activation none."]
    assert judged(tmp_path, path, *rest, "--activation", "none").warnings == []


def test_pictures_of_tensors_are_not_drawn(tmp_path: Path) -> None:
    path = networks.two_towers(tmp_path / "net.onnx")
    with pytest.raises(CommandError, match="--save-pictures is for models of pictures, and this one serves tensors"):
        judged(tmp_path, path, "--save-pictures", tmp_path / "drawn")


def test_a_picture_that_the_network_or_pillow_does_not_take(tmp_path: Path) -> None:
    """Of the user's own; each is a sentence."""
    path = networks.classifier(tmp_path / "net.onnx")
    large = tmp_path / "large.png"
    Image.new("1", (20000, 20000)).save(large)
    rest = (*HOW, "--labels", labels(tmp_path, 6))
    with pytest.raises(CommandError, match=r"The picture expect_1_large\.png cannot be decoded: Image size"):
        judged(tmp_path, path, *rest, "--expect", f"{large}=label 0")


def test_numbers_that_are_not_finite_are_told_at_once(tmp_path: Path) -> None:
    """No option would help."""
    model = onnx.load(networks.classifier(tmp_path / "net.onnx"))
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.extend([node("Sqrt", ["raw"], ["root"]), node("Log", ["root"], ["logits"])])
    onnx.save(model, str(tmp_path / "net.onnx"))
    said = refusal(tmp_path, tmp_path / "net.onnx", *HOW, "--labels", labels(tmp_path, 6))
    assert said == "The network gives numbers that are not finite (NaN or infinity): fix it or export it again."


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("stars.txt", "1 star\n2 stars\n3 stars\n", ["1 star", "2 stars", "3 stars"]),
        ("numbers.csv", "label,class_name\n1,dog\n0,cat\n", ["cat", "dog"]),
        ("index.csv", ",name\n1,dog\n0,cat\n", ["cat", "dog"]),
        ("named.csv", "class,label\n0,cat\n1,dog\n", ["cat", "dog"]),
        ("set.txt", "{{1}}\n", ["{{1}}"]),
    ],
)
def test_labels_keep_what_belongs_to_them(tmp_path: Path, file: str, text: str, expected: list[str]) -> None:
    """A count is part of a name, and a column of numbers is none of names."""
    (tmp_path / file).write_text(text)
    assert names.read(tmp_path / file) == expected


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("far.json", '{"0": "a", "1000000000000": "b"}', "have no name for 1, 2, 3: number every class, from 0"),
        ("short.csv", "name,id\ncat\n", "have a row without a name: write every row as the first"),
    ],
)
def test_labels_that_would_end_the_command(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    """By memory, or by a traceback."""
    (tmp_path / file).write_text(text)
    with pytest.raises(CommandError, match=sentence):
        names.read(tmp_path / file)


@pytest.mark.parametrize(
    ("name", "value"), [("HTTPS_PROXY", "proxy.corp:3128"), ("ALL_PROXY", "http://proxy.corp:3128")]
)
def test_a_proxy_as_the_library_reads_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Without its scheme, or for all."""
    for one in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(one)
    monkeypatch.setenv(name, value)
    assert hub._address() == ("proxy.corp", 3128)
