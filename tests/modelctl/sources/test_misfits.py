"""Why outputs are not read by a family: each reason for outputs that lack just that; what a sentence proposes works."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import heads
import networks
import numpy as np
import pytest
from heads import OBJECTS, SIDE
from sample_files import labels
from test_heads import UNIT, answers, arrays, drafted, maps, same_objects, scored

from modelctl import cli
from modelctl.errors import CommandError
from modelctl.sources.heads import recognition
from modelctl.sources.heads.seen import MisfitError, Seen
from modelctl.sources.judging import judge

Outputs = dict[str, Any]
CHANCE = np.random.default_rng(0)


def shares(*shape: int) -> Any:
    """Return numbers from 0 to 1."""
    return CHANCE.random(shape, np.float32)


def real(*shape: int) -> Any:
    """Return numbers below 0 and above 1."""
    return CHANCE.standard_normal(shape, np.float32) * 3


def corners(count: int) -> Any:
    """Return boxes of 0 to 1 that end behind their beginning."""
    return np.sort(shares(count, 2, 2), axis=1).reshape(count, 4)


def seen(outputs: Outputs, size: tuple[int, int] = (SIDE, SIDE), names: int = 2, **options: Any) -> Seen:
    """Return outputs of one picture as recognition sees them."""
    made = {name: [np.asarray(array)[None]] for name, array in outputs.items()}
    return Seen(made, size, argparse.Namespace(**options), [f"label {number}" for number in range(names)])


FOUND = shares(5)
FINISHED = np.array([[0.01, 0.01, 0.98]] * 9 + [[0.9, 0.05, 0.05]], np.float32)
"""Probabilities of a DETR: in nearly all queries the last class wins."""
REASONS: dict[str, tuple[str, Outputs, dict[str, Any], str]] = {
    "two outputs": ("yolov8", {"a": shares(6, 84), "b": shares(2)}, {}, "it writes one output, not 2"),
    "another number of axes": ("yolov8", {"a": shares(7, 8, 8)}, {}, "its output has 3 axes, not 4"),
    "rows for columns": ("yolov8", {"a": shares(84, 6)}, {}, "it writes more columns than rows, not 84 x 6"),
    "corners for centres": (
        "yolov8",
        {"a": np.concatenate(scored(), axis=1).T},
        {},
        "its boxes would be corners",
    ),
    "boxes outside": (
        "yolov8",
        {"a": np.concatenate([-100 * shares(84, 4), shares(84, 2)], axis=1).T},
        {},
        "its boxes would leave the picture",
    ),
    "another grid": ("yolov5", {"a": shares(10, 7)}, {}, "an input of 64 x 64 has not 10 boxes with 3 a cell"),
    "one class fewer than labels": (
        "yolox",
        {"a": heads.rows(84, objectness=True)},
        {"names": 3},
        "7 = 5 + 2, and there are 3 labels",
    ),
    "rows of another size": ("nanodet", {"a": shares(85, 34)}, {}, "strides 8,16,32 make 84 rows, not 85"),
    "rows of another size, in pairs of levels": (
        "yolofastestv2",
        {"a": shares(21, 17)},
        {},
        "strides 16,32 make 20 rows, not 21",
    ),
    "shares for logits": ("nanodet", {"a": shares(84, 34)}, {}, "it writes logits behind the class scores"),
    "raw cells": ("fastestdet", {"a": real(7, 2, 2)}, {}, "its objectness and classes lie in 0 to 1"),
    "classes by themselves": ("fastestdet", {"a": shares(7, 2, 2)}, {}, "the classes of a cell sum to 1"),
    "raw rows": ("yolofastestv2", {"a": real(20, 17)}, {}, "all its values lie in 0 to 1"),
    "unknown anchors": (
        "yolofastestv2",
        {"a": shares(20, 17)},
        {},
        "its anchors are not in the file (if it is this family: --decoder yolofastestv2, --anchors)",
    ),
    "too few anchors": (
        "yolofastestv2",
        {"a": shares(20, 17)},
        {"anchors": [1.0, 2.0]},
        "it needs 12 numbers in --anchors, a width and a height for three a stride",
    ),
    "rows that do not belong together": (
        "scored_boxes",
        {"boxes": shares(20, 4), "scores": shares(10, 2)},
        {},
        "its scores have one row for each box",
    ),
    "offsets for boxes": (
        "scored_boxes",
        {"boxes": real(84, 4), "scores": shares(84, 2)},
        {},
        "its boxes are neither corners nor centres with sizes (still to be decoded by anchors?)",
    ),
    "too many queries": (
        "detr",
        {"logits": real(2000, 3), "pred_boxes": shares(2000, 4)},
        {},
        "it has at most 1500 queries, not 2000",
    ),
    "queries in pixels": (
        "detr",
        {"logits": real(10, 3), "pred_boxes": 60 * shares(10, 4)},
        {},
        "its boxes lie in 0 to 1",
    ),
    "a softmax inside": (
        "detr",
        {"logits": FINISHED, "pred_boxes": heads.queries()[0]},
        {},
        'its scores went through a softmax whose last class is "no object": export the logits',
    ),
    "labels of another number": ("rtdetr", {"a": shares(10, 6)}, {"names": 5}, "6 = 4 + 2, and there are 5 labels"),
    "rows after NMS of another width": (
        "end_to_end",
        {"a": shares(10, 9)},
        {},
        "it writes rows of 6 or 7 numbers, not 9",
    ),
    "two outputs after NMS": ("end_to_end", {"a": shares(9, 6), "b": shares(9)}, {}, "it writes one output, not 2"),
    "no order of columns": (
        "end_to_end",
        {"a": real(20, 7)},
        {},
        "no order of its columns gives whole class ids, scores in 0 to 1 and boxes in the picture",
    ),
    "two orders of columns": (
        "end_to_end",
        {"a": np.array([[0, 10, 20, 30, 40, 1, 1]] * 2, np.float32)},
        {},
        "its columns may be batch,box,class,score or batch,box,score,class: give --columns",
    ),
    "sides that cannot be": (
        "end_to_end",
        {"a": np.concatenate([real(20, 4), shares(20, 1), np.ones((20, 1), np.float32)], axis=1)},
        {"columns": ["box", "score", "class"]},
        "its boxes are neither corners nor centres with sizes",
    ),
    "raw scores after NMS": (
        "detections",
        {"boxes": corners(5), "scores": FOUND + 3, "classes": np.arange(5)},
        {},
        "its scores would be 3.",
    ),
    "shares for class ids": (
        "detections",
        {"boxes": corners(5), "scores": FOUND, "classes": FOUND + np.float32(0.5)},
        {},
        "its class ids are whole numbers",
    ),
    "no class ids": (
        "detections",
        {"boxes": corners(5), "scores": FOUND, "more": FOUND},
        {},
        "it writes one score and one class id for each box",
    ),
    "boxes in either order": (
        "detections",
        {"num": np.array([3]), "places": corners(5), "scores": FOUND, "classes": np.arange(5) % 2},
        {},
        "its boxes in 0 to 1 may be corners or TensorFlow's yxyx: give --box-format",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_family_says_why_it_does_not_fit(case: str) -> None:
    """In words that continue "it is not X, because ..."."""
    decoder, outputs, how, reason = REASONS[case]
    with pytest.raises(MisfitError, match=f"^{re.escape(reason)}"):
        recognition.READERS[decoder](seen(outputs, **how))


@pytest.mark.parametrize(
    ("outputs", "known"),
    [
        (
            arrays(**{f"{kind}{at}": (8 * at, wide) for kind, wide in (("s", 1), ("b", 4)) for at in (1, 2, 4)}),
            "SCRFD, with other levels than its source's",
        ),
        (
            arrays(cls_pred_8=(64, 2), dis_pred_8=(64, 32)),
            "NanoDet with an output for each level, of other strides or bins than its source's",
        ),
        (
            arrays(a=(3, 8, 8, 7), b=(3, 4, 4, 7)),
            "YOLO with undecoded levels (YOLOv5, v7: export with the Detect layer's decoding, `--grid`)",
        ),
        (maps(21, 21, 21, side=8), "YOLO with undecoded levels (export it with decoded boxes)"),
    ],
)
def test_a_family_that_is_not_read_is_named_and_served_by_its_tensors(
    tmp_path: Path, outputs: Outputs, known: str
) -> None:
    """The sentence proposes --task none, and that works."""
    path = heads.constant(tmp_path / "net.onnx", outputs)
    with pytest.raises(CommandError) as caught:
        drafted(tmp_path, path, "--task", "object-detection")
    assert f"this looks like {known}, which is not read here. Name the family by --decoder, export" in str(caught.value)
    assert drafted(tmp_path, path, "--task", "none", names=None, prepared=()).spec.task == "none"


def test_outputs_that_fit_no_family(tmp_path: Path) -> None:
    """The outputs, each family with its reason, and the ways out: --decoder, --task none."""
    raw = heads.rows(84, objectness=False, twin=False)
    raw[:, 4:] = np.log(raw[:, 4:] / (1 - raw[:, 4:]))
    path = heads.constant(tmp_path / "net.onnx", {"output0": raw.T})
    with pytest.raises(CommandError) as caught:
        drafted(tmp_path, path)
    said = str(caught.value)
    assert said.startswith("The network's outputs are output0 [1, 6, 84], which fit no family of detectors (nanodet")
    assert "; yolov8: its scores would be " in said
    assert said.endswith(
        "Name the family by --decoder, export the network with decoded boxes, serve its tensors as they are by "
        "--task none, or open an issue with this sentence."
    )
    for answer in answers(drafted(tmp_path, path, "--decoder", "yolov8", "--activation", "sigmoid")):
        same_objects(answer)
    assert drafted(tmp_path, path, "--task", "none", names=None, prepared=()).spec.task == "none"


def test_boxes_in_either_order_are_read_as_the_user_says(tmp_path: Path) -> None:
    """--box-format, which the reason proposes, is enough."""
    boxes, scores, classes = heads.listed(unit=1 / SIDE)
    outputs = {"num": np.array([2]), "places": boxes, "scores": scores, "classes": classes}
    path = heads.constant(tmp_path / "net.onnx", outputs)
    with pytest.raises(CommandError, match="may be corners or TensorFlow's yxyx: give --box-format"):
        drafted(tmp_path, path)
    for answer in answers(drafted(tmp_path, path, "--box-format", "corners")):
        same_objects(answer)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--columns", "box,score"), "name box, class, score and perhaps batch, in the order of the columns"),
        (("--columns", "box,score,class,class"), "name box, class, score and perhaps batch"),
        (("--anchors", "1,wide"), "'1,wide' are not numbers such as 12.6,19.4"),
    ],
)
def test_columns_and_anchors_that_are_none(
    capsys: pytest.CaptureFixture[str], words: tuple[str, str], sentence: str
) -> None:
    """Refused before anything is read; the form that is shown is taken."""
    with pytest.raises(SystemExit):
        cli.build(["add"]).parse_args(["add", "net.onnx", *words])
    assert sentence in capsys.readouterr().err
    options = cli.build(["add"]).parse_args(
        ["add", "net.onnx", "--anchors", "12.6,19.4", "--columns", "box,class,score"]
    )
    assert (options.anchors, options.columns) == ([12.6, 19.4], ["box", "class", "score"])


def test_a_class_without_a_label(tmp_path: Path) -> None:
    """Behind NMS only the answers tell how many classes there are."""
    made = np.array([[*box, score, kind] for kind, score, box in OBJECTS], np.float32)
    path = heads.constant(tmp_path / "net.onnx", {"output0": made})
    with pytest.raises(
        CommandError, match=r"^The network has found a class 1, and there are 1 labels: give all, or --first-class"
    ):
        drafted(tmp_path, path, "--decoder", "end_to_end", names=1)
    for answer in answers(drafted(tmp_path, path, "--decoder", "end_to_end")):
        same_objects(answer)


def test_scores_above_one_are_told(tmp_path: Path) -> None:
    """Of a family that has no activation, which the user named."""
    wrong = heads.fastest_map()
    wrong[0] *= 9
    path = heads.constant(tmp_path / "net.onnx", {"map": wrong})
    draft = drafted(tmp_path, path, "--decoder", "fastestdet")
    options = argparse.Namespace(expect=[], expect_box=[], save_pictures=None)
    told = " ".join(judge(draft, options).warnings)
    assert re.search(r"Scores reach \d\.\d+, above 1: check --decoder and --activation\.", told), told


def test_a_dead_detector_asks_for_a_picture(tmp_path: Path) -> None:
    """Where nobody knows what the samples show of its classes, a picture of the user's own tells."""
    path = heads.constant(tmp_path / "net.onnx", {"output0": heads.rows(84, objectness=False).T})
    draft = drafted(tmp_path, path, "--score-threshold", "1")
    (told,) = judge(draft, argparse.Namespace(expect=[], expect_box=[], save_pictures=None)).warnings
    assert told.startswith("No box in any sample, with a score threshold of 1: the weights, --scale")
    assert told.endswith("If no sample shows its classes, give a picture that does: --expect PICTURE=LABEL.")


def test_a_head_or_logits_and_boxes_are_what_a_detector_reads(tmp_path: Path) -> None:
    """The task that the refusal proposes for three axes is taken, and asks for what is missing."""
    nodes = [
        networks.node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
        networks.node("Unsqueeze", ["means", "last"], ["y"]),
    ]
    kind = networks.TensorProto.FLOAT
    path = networks.save(
        tmp_path / "net.onnx",
        nodes,
        [networks.value("x", kind, ["N", "c", 32, 32])],
        [networks.value("y", kind, ["N", "c", 1])],
        {"last": np.array([2], np.int64)},
    )
    given = (*UNIT, "--labels", labels(tmp_path, 2))
    with pytest.raises(CommandError) as caught:
        drafted(tmp_path, path, *given, names=None, prepared=())
    assert "give --task object-detection, which reads one head [batch, boxes, values], or logits and boxes, or" in str(
        caught.value
    )
    with pytest.raises(CommandError, match="which fit no family of detectors"):
        drafted(tmp_path, path, *given, "--layout", "NCHW", "--task", "object-detection", names=None, prepared=())
