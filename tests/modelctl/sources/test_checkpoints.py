"""`modelctl add` on checkpoints of every family: the served answer is that of transformers' own pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_files import labels, png, spec
from skimage import data

from modelctl.sources import pictures, processors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import checkpoints
    import transformers

PNG = {"Content-Type": "image/png"}
PICTURES = {"astronaut": data.astronaut(), "coffee": data.coffee(), "chelsea": data.chelsea()}
LONG = "The company expects net sales to fall and will cut a third of its staff. " * 30
TEXTS = [*checkpoints.TEXTS[:6], "One.", LONG]


def quietly(make: Callable[[], Any]) -> Any:
    """Call with the warnings of other people's libraries switched off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@pytest.mark.parametrize("family", ["resnet", "vit", "vit_cropped"])
def test_classifiers_answer_as_the_pipeline(
    command: Callable[..., int], served: Any, tmp_path: Path, family: str
) -> None:
    """All classes of all pictures: scores to 1e-3, in the same order where they differ by more."""
    checkpoint = tmp_path / family
    quietly(lambda: checkpoints.PICTURES[family](checkpoint))
    assert command("add", str(checkpoint)) == 0
    pipeline = quietly(lambda: transformers.pipeline("image-classification", model=str(checkpoint)))
    see_through = np.dstack([data.coffee(), np.tile(np.arange(600) % 256, (400, 1)).astype(np.uint8)])
    wide = data.coffee()[:337, :]  # of 16:9, where roundings of the crop differ
    for array in (*PICTURES.values(), see_through, wide):
        expected = quietly(lambda array=array: pipeline(Image.fromarray(array), top_k=4))
        answer = served.post("classify", family, content=png(array), headers=PNG, params={"top_k": 4})
        same_ranking(answer["predictions"], expected)


def same_ranking(served: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Hold labels and scores against the pipeline's."""
    scores = {one["label"]: one["score"] for one in expected}
    assert {one["label"] for one in served} == set(scores)
    assert max(abs(one["score"] - scores[one["label"]]) for one in served) <= 1e-3
    order = [scores[one["label"]] for one in served]
    assert all(first >= second - 1e-3 for first, second in pairwise(order))
    assert max(scores.values()) - min(scores.values()) > 0.05, "the checkpoint's scores have no margins"


@pytest.mark.parametrize("family", ["rt_detr", "d_fine", "rf_detr", "detr", "yolos"])
def test_detectors_answer_as_the_pipeline(
    command: Callable[..., int], served: Any, tmp_path: Path, family: str
) -> None:
    """Every box above the threshold: its class, its score to 1e-3, its sides to a pixel.

    The answer has at most one box a query; some pipelines fill up with the second class of the same box.
    """
    checkpoint = tmp_path / family
    quietly(lambda: checkpoints.PICTURES[family](checkpoint))
    assert command("add", str(checkpoint)) == 0
    pipeline = quietly(lambda: transformers.pipeline("object-detection", model=str(checkpoint)))
    seen = 0
    for array in PICTURES.values():
        expected = quietly(lambda array=array: pipeline(Image.fromarray(array), threshold=0.5))
        expected = sorted(expected, key=lambda one: -one["score"])[: checkpoints.QUERIES]
        found = served.post("detect", family, content=png(array), headers=PNG)["predictions"]
        height, width = array.shape[:2]
        same_boxes(found, [clipped(one, width, height) for one in expected])
        seen += sum(one["box"]["xmax"] - one["box"]["xmin"] > 8 for one in found)
    assert seen >= 3, "the checkpoint finds nothing that could be compared"


def test_labels_of_ones_own(command: Any, stack: Any, tmp_path: Path) -> None:
    """They overrule the checkpoint's; one too few is refused, and so is what a checkpoint decides by itself."""
    checkpoint = tmp_path / "detr"
    quietly(lambda: checkpoints.PICTURES["detr"](checkpoint))
    result = command.run("add", str(checkpoint), "--labels", labels(tmp_path, 3))
    assert "The network has 4 classes, " in result.sentence
    result = command.run("add", str(checkpoint), "--activation", "softmax", "--decoder", "detr")
    assert "--decoder, --activation would do nothing for a detector's checkpoint" in result.sentence
    given = labels(tmp_path, 4)
    assert command("add", str(checkpoint), "--labels", given) == 0
    assert (stack.models / "detr_network" / "labels.txt").read_text() == Path(given).read_text()


def test_code_of_a_checkpoint_is_not_run(command: Any, tmp_path: Path) -> None:
    """Nothing is asked for in the terminal, and the file is not imported."""
    ran = tmp_path / "ran"
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\n")
    text = {"model_type": "foreign", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(text))
    result = command.run("add", str(folder))
    assert f"{folder} needs its repository's own code (auto_map), which is never run here" in result.sentence
    assert not ran.exists()


def test_a_checkpoint_too_large_for_one_file(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before it is exported, and the sentence says what can be done."""
    checkpoint = tmp_path / "resnet"
    quietly(lambda: checkpoints.PICTURES["resnet"](checkpoint))
    monkeypatch.setattr("modelctl.sources.export.LARGEST", 1000)
    result = command.run("add", str(checkpoint))
    assert "GB do not fit into one ONNX file: export it yourself, in FP16 or with its weights beside" in result.sentence


def test_downloads_are_shown_and_telemetry_is_off() -> None:
    """In a process of its own, as both are decided when the libraries are imported."""
    program = (
        "from pathlib import Path; from types import SimpleNamespace as Options\n"
        "from modelctl.errors import CommandError\n"
        "from modelctl.sources import huggingface\n"
        "from modelctl.sources.draft import Order\n"
        "try: huggingface.draft(Order('/nonexistent', 'a', Options(task=None), Path()))\n"
        "except CommandError: pass\n"
        "import huggingface_hub as hub\n"
        "print(hub.constants.HF_HUB_DISABLE_TELEMETRY, hub.utils.are_progress_bars_disabled())\n"
    )
    names = ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "False"]


def test_rf_detr_by_its_own_processors_file(tmp_path: Path) -> None:
    """Its class needs torchvision, which is not installed: sizes and numbers are read from the file.

    It resizes with antialias=False, which is OpenCV's linear interpolation.
    """
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    text = {
        **{"image_processor_type": "RfDetrImageProcessor", "do_resize": True, "size": checkpoints.square(64)},
        **{"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": mean, "image_std": std},
        **{"resample": 2, "do_pad": False},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(text))
    how = processors.preprocess(str(tmp_path), Namespace(**dict.fromkeys((*pictures.NAMES, "size"))))
    assert (how.resize, how.width, how.height, how.mean, how.std) == ("stretch", 64, 64, mean, std)
    assert (how.resample, how.alpha) == ("opencv_linear", "drop")


def clipped(one: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """Return a box of the pipeline cut to the picture, as ours are."""
    limits = {"xmin": width, "xmax": width, "ymin": height, "ymax": height}
    return {**one, "box": {side: min(max(one["box"][side], 0), limit) for side, limit in limits.items()}}


def same_boxes(served: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Match each box with one of its class; those near the threshold, and those cut to nothing, may be missing."""
    left = list(served)
    for one in expected:
        if one["score"] < 0.501 or is_thin(one["box"]):
            continue
        fits = [
            other
            for other in left
            if other["label"] == one["label"]
            and abs(other["score"] - one["score"]) <= 1e-3
            and all(abs(other["box"][side] - one["box"][side]) <= 1 for side in one["box"])
        ]
        assert fits, (one, served)
        left.remove(fits[0])
    assert not [one for one in left if one["score"] > 0.501 and not is_thin(one["box"], 2)]


def is_thin(box: dict[str, float], pixels: float = 1) -> bool:
    """Tell whether cutting to whole pixels, as the pipeline does, may leave nothing of a box."""
    return box["xmax"] - box["xmin"] <= pixels or box["ymax"] - box["ymin"] <= pixels


@pytest.mark.parametrize("family", checkpoints.TEXT)
def test_text_classifiers_answer_as_the_pipeline(
    command: Callable[..., int], served: Any, tmp_path: Path, family: str
) -> None:
    """WordPiece, BPE and Unigram; one label or several; also for a text that is cut at the network's limit."""
    checkpoint = tmp_path / family
    quietly(lambda: checkpoints.TEXT[family](checkpoint))
    assert command("add", str(checkpoint)) == 0
    pipeline = quietly(lambda: transformers.pipeline("text-classification", model=str(checkpoint), top_k=None))
    limit = 40 if family == "roberta" else 64
    for text in TEXTS:
        expected = quietly(lambda text=text: pipeline(text, truncation=True, max_length=limit)[0])
        answer = served.post("sentiment", family, json={"text": text})
        same_scores(answer["scores"], expected)
        tokens = len(quietly(lambda text=text: pipeline.tokenizer(text))["input_ids"])
        assert answer["usage"] == {"tokens": min(tokens, limit), "truncated": tokens > limit}


def test_a_checkpoint_that_reads_the_end_and_does_not_name_its_problem(
    command: Any, served: Any, stack: Any, tmp_path: Path
) -> None:
    """`truncation_side` is obeyed as by the pipeline; without `problem_type` and telling labels, the user decides."""
    checkpoint = tmp_path / "ends"
    quietly(lambda: checkpoints.TEXT["roberta"](checkpoint))
    for file, change in (
        ("tokenizer_config.json", {"truncation_side": "left"}),
        ("config.json", {"problem_type": None}),
    ):
        content = json.loads((checkpoint / file).read_text())
        (checkpoint / file).write_text(json.dumps({**content, **change}))
    asked = command.run("add", str(checkpoint))
    assert (
        "config.json has no problem_type, and its labels do not say whether a text may have several" in asked.sentence
    )
    assert "give --activation softmax when a text has exactly one label, or sigmoid when each label" in asked.sentence
    assert command("add", str(checkpoint), "--activation", "softmax") == 0
    assert spec(stack.models, "ends")["preprocess"]["truncation_side"] == "left"
    pipeline = quietly(lambda: transformers.pipeline("text-classification", model=str(checkpoint), top_k=None))
    text = "".join(f"{number} people   said\n\n\tso. " for number in range(400))
    expected = quietly(lambda: pipeline(text, truncation=True, max_length=40)[0])
    same_scores(served.post("sentiment", "ends", json={"text": text})["scores"], expected)


def same_scores(served: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Hold every label's score against the pipeline's."""
    scores = {one["label"]: one["score"] for one in expected}
    assert {one["label"] for one in served} == set(scores)
    assert max(abs(one["score"] - scores[one["label"]]) for one in served) <= 1e-3
