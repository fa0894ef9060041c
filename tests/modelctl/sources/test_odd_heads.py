"""Heads that look like another family's: one or two classes, few rows, names of other exporters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import heads
import numpy as np
import pytest
from heads import OBJECTS, SIDE
from level_heads import FACES
from test_heads import QUERIES, answers, drafted, nms_rows, same_objects

from modelctl.errors import CommandError
from modelctl.models.steps import DetectionPostprocess
from modelctl.reference.answers import Found
from modelctl.reference.examined import Examined
from modelctl.sources import judgement

DETECTOR = ("--task", "object-detection")


def one_class(count: int, *, certain: float) -> Any:
    """Return rows of one class whose probability was not trained, as in YOLOv5 with one class."""
    made = np.full((count, 6), heads.QUIET)
    made[:, :4], made[:, 5] = heads.filler(count), certain
    for index, (_, score, box) in enumerate([*FACES, (0, 0.6, heads.TWIN[2])]):
        made[7 * index + 3] = [*heads.centre(box), score, certain]
    return made.astype(np.float32)


@pytest.mark.parametrize(("decoder", "each", "certain"), [("yolov5", 3, 0.99998), ("yolox", 1, 1.0)])
def test_one_class_that_is_always_certain(tmp_path: Path, decoder: str, each: int, certain: float) -> None:
    """Its column of ones is no class id: rows of all cells are not behind NMS."""
    path = heads.constant(tmp_path / "net.onnx", {"output": one_class(84 * each, certain=certain)})
    draft = drafted(tmp_path, path, names=1)
    assert draft.spec.postprocess.decoder == decoder
    for answer in answers(draft):
        assert [box for *_, box in answer] == [pytest.approx(box, abs=0.02) for *_, box in FACES]


def test_one_class_that_was_not_trained_is_doubted(tmp_path: Path) -> None:
    """YOLOv5 multiplies scores by it, and YOLOv7 does not: the file does not tell which it is."""
    path = heads.constant(tmp_path / "net.onnx", {"output": one_class(84 * 3, certain=0.5)})
    draft = drafted(tmp_path, path, names=1)
    (doubt,) = draft.doubts
    assert doubt.startswith(
        "Its one class has a probability of 0.5 to 0.5 in every row, by which scores are multiplied"
    )
    for answer in answers(draft):
        assert [score for _, score, _ in answer] == [pytest.approx(score * 0.5, abs=1e-4) for _, score, _ in FACES]
    path = heads.constant(tmp_path / "net.onnx", {"output": one_class(84 * 3, certain=0.99998)})
    assert drafted(tmp_path, path, names=1).doubts == []


def test_three_rows_for_each_cell_hold_objectness(tmp_path: Path) -> None:
    """With one label too many they are not boxes and classes, of which the first would be the objectness."""
    path = heads.constant(tmp_path / "net.onnx", {"output": heads.rows(84 * 3, objectness=True)})
    with pytest.raises(CommandError, match=r"yolov5: 7 = 5 \+ 2, and there are 3 labels"):
        drafted(tmp_path, path, names=3)


def test_yolov8_in_rows_of_a_small_picture(tmp_path: Path) -> None:
    """84 rows are as few as an RT-DETR's, but as many as the cells, so that NMS is needed."""
    path = heads.constant(tmp_path / "net.onnx", {"output0": heads.rows(84, objectness=False)})
    draft = drafted(tmp_path, path)
    assert (draft.spec.postprocess.decoder, draft.spec.postprocess.nms) == ("rtdetr", True)
    for answer in answers(draft):
        same_objects(answer)


def test_boxes_and_probabilities_of_all_cells_are_no_queries(tmp_path: Path) -> None:
    """Read as DETR they would not be suppressed."""
    rows = heads.rows(84, objectness=False)
    outputs = {"places": rows[:, :4] / np.float32(SIDE), "values": rows[:, 4:]}
    draft = drafted(tmp_path, heads.constant(tmp_path / "net.onnx", outputs))
    assert draft.spec.postprocess.decoder == "scored_boxes"
    for answer in answers(draft):
        same_objects(answer)


def test_ultralytics_rt_detr_of_two_classes_that_is_not_named(tmp_path: Path) -> None:
    """Its rows are six numbers too; their values tell, and its pictures are stretched."""
    metadata = {"author": "Ultralytics", "task": "detect", "names": "{0: 'label 0', 1: 'label 1'}"}
    rows = np.concatenate([QUERIES[0], 1 / (1 + np.exp(-QUERIES[1]))], axis=1)
    path = heads.constant(tmp_path / "net.onnx", {"output0": rows}, metadata=metadata)
    draft = drafted(tmp_path, path, names=None, prepared=())
    assert (draft.spec.preprocess.resize, draft.spec.postprocess.decoder) == ("stretch", "rtdetr")
    for answer in answers(draft):
        same_objects(answer)


@pytest.mark.parametrize(
    "said",
    [
        {"head": "Detect"},
        {"end2end": "True"},
        {"args": "{'batch': 1, 'nms': True}"},
        {"head": "v10Detect"},
        {"description": "Ultralytics YOLOv10n model trained on rtdetr.yaml"},
    ],
)
@pytest.mark.parametrize("seen", [True, False])
def test_ultralytics_rows_after_nms_of_two_classes(tmp_path: Path, said: dict[str, str], seen: bool) -> None:
    """Six columns are not four and two classes, and their order is known where the samples show no object."""
    metadata = {"author": "Ultralytics", "task": "detect", "names": "{0: 'label 0', 1: 'label 1'}", **said}
    rows = nms_rows("box", "score", "class", batch=False) if seen else np.zeros((5, 6), np.float32)
    rows = np.concatenate([rows, [[-90, -90, 200, 200, heads.QUIET, 0]] * 3]).astype(np.float32)  # they may leave it
    path = heads.constant(tmp_path / "net.onnx", {"output0": rows}, metadata=metadata)
    draft = drafted(tmp_path, path, names=None, prepared=())
    assert draft.spec.preprocess.resize == "letterbox_center"
    assert draft.spec.postprocess.decoder == "end_to_end"
    for answer in answers(draft):
        same_objects(answer, OBJECTS if seen else [])


def test_lists_without_names_ask_for_the_first_class(tmp_path: Path) -> None:
    """torch.onnx names outputs by numbers: torchvision's ids begin with 1, those of others with 0."""
    outputs = dict(zip(("2567", "2568", "2569"), heads.listed(first=1, pad=0), strict=True))
    path = heads.constant(tmp_path / "net.onnx", outputs, batch=0)
    with pytest.raises(CommandError, match="its class ids may begin with 0 or 1: give --first-class"):
        drafted(tmp_path, path, *DETECTOR)
    for answer in answers(drafted(tmp_path, path, *DETECTOR, "--first-class", "1")):
        same_objects(answer)


@pytest.mark.parametrize("option", [(), ("--decoder", "detections")])
@pytest.mark.parametrize("found", [True, False])
def test_the_first_class_is_asked_for_also_of_a_named_decoder(
    tmp_path: Path, option: tuple[str, ...], found: bool
) -> None:
    """A shift by one shows in no answer, and samples without an object tell nothing."""
    boxes, scores, ids = heads.listed(first=1, pad=0) if found else heads.listed(first=1)
    outputs = {"a": boxes, "b": scores, "c": ids} if found else {"a": boxes[2:], "b": scores[2:], "c": ids[2:]}
    path = heads.constant(tmp_path / "net.onnx", outputs)
    with pytest.raises(CommandError, match="its class ids may begin with 0 or 1: give --first-class"):
        drafted(tmp_path, path, *DETECTOR, *option)
    for answer in answers(drafted(tmp_path, path, *DETECTOR, *option, "--first-class", "1")):
        same_objects(answer, OBJECTS if found else [])


def test_one_large_box_may_be_written_in_two_ways(tmp_path: Path) -> None:
    """A box whose size is larger than its centre is possible corners; the user is asked to look."""
    (kind, score, box), _ = OBJECTS
    place = np.array([heads.centre(box)], np.float32)
    rows = np.array([[*heads.centre(box), score, kind]], np.float32)
    lists = {"a": place, "b": np.array([score], np.float32), "c": np.array([kind])}
    for outputs, options in (({"output0": rows}, ()), (lists, ("--first-class", "0"))):
        path = heads.constant(tmp_path / "net.onnx", outputs)
        (doubt,) = drafted(tmp_path, path, *DETECTOR, *options).doubts
        assert doubt.startswith("The 2 boxes that it finds in the samples are read as corners, and may be centres")
        assert drafted(tmp_path, path, *DETECTOR, *options, "--box-format", "corners").doubts == []
        draft = drafted(tmp_path, path, *DETECTOR, *options, "--box-format", "centre")
        assert draft.doubts == []
        for answer in answers(draft):
            same_objects(answer, OBJECTS[:1])
    path = heads.constant(tmp_path / "net.onnx", {"output0": nms_rows("box", "score", "class", batch=False)})
    assert drafted(tmp_path, path, *DETECTOR).doubts == []


def lite(*, first: int = 0, kinds: Any = None) -> dict[str, Any]:
    """Return the outputs of TensorFlow Lite's Detection_PostProcess."""
    name, (boxes, scores, ids) = "TFLite_Detection_PostProcess", heads.listed(yxyx=True, unit=1 / SIDE, first=first)
    ids = np.asarray(ids if kinds is None else kinds, np.float32)
    return {name: boxes, f"{name}:1": ids, f"{name}:2": scores, f"{name}:3": np.float32(2)}


def test_tensorflow_lite_counts_no_background(tmp_path: Path) -> None:
    """Its labels may begin with ???, while class 0 is the first object."""
    names = tmp_path / "labelmap.txt"
    names.write_text("???\nlabel 0\nlabel 1\n")
    path = heads.constant(tmp_path / "net.onnx", lite())
    for answer in answers(drafted(tmp_path, path, "--labels", str(names), names=None)):
        same_objects(answer)


def test_tensorflow_lite_of_one_class(tmp_path: Path) -> None:
    """Its class ids are zeros, which are whole beside scores."""
    path = heads.constant(tmp_path / "net.onnx", lite(kinds=[0] * 5))
    for answer in answers(drafted(tmp_path, path, names=1)):
        same_objects(answer, FACES)


def test_detectors_of_tensorflow_write_more_than_their_head(tmp_path: Path) -> None:
    """The anchors of boxes are whole numbers too, and scores of three classes with the background are four."""
    boxes, scores, ids = heads.listed(yxyx=True, unit=1 / SIDE, first=1)
    outputs = {
        "detection_anchor_indices": np.arange(5, dtype=np.float32),
        "detection_boxes": boxes,
        "detection_classes": ids.astype(np.float32),
        "detection_multiclass_scores": np.zeros((5, 4), np.float32),
        "detection_scores": scores,
        "num_detections": np.float32(2),
    }
    for answer in answers(drafted(tmp_path, heads.constant(tmp_path / "net.onnx", outputs))):
        same_objects(answer)


def test_scores_and_classes_may_have_an_axis_of_one(tmp_path: Path) -> None:
    """Step and reference read [boxes, 1] as [boxes]."""
    boxes, scores, ids = heads.listed()
    outputs = {"det_boxes": boxes, "det_scores": scores[:, None], "det_classes": ids[:, None]}
    for answer in answers(drafted(tmp_path, heads.constant(tmp_path / "net.onnx", outputs))):
        same_objects(answer)


def test_paddles_rows_with_their_count(tmp_path: Path) -> None:
    """PaddleDetection writes class, score and box of all boxes, and how many there are."""
    rows = nms_rows("class", "score", "box", batch=False)
    path = heads.constant(tmp_path / "net.onnx", {"multiclass_nms3_0": rows, "bbox_num": np.array([2])}, batch=0)
    draft = drafted(tmp_path, path, *DETECTOR)
    assert draft.spec.postprocess.columns == ["class", "score", "box"]
    for answer in answers(draft):
        same_objects(answer)


@pytest.mark.parametrize("classes", [1, 2])
def test_queries_of_few_classes_by_sigmoid(tmp_path: Path, classes: int) -> None:
    """As many columns as labels leave none for "no object", whichever column wins."""
    boxes, logits = QUERIES
    logits = logits[:, ::-1] if classes == 2 else logits.max(axis=1, keepdims=True)
    logits = logits + np.linspace(0, 1e-3, classes, dtype=np.float32)
    path = heads.constant(tmp_path / "net.onnx", {"logits": logits, "pred_boxes": boxes})
    draft = drafted(tmp_path, path, names=classes)
    assert draft.spec.postprocess.activation == "sigmoid"
    objects = FACES if classes == 1 else [(1 - kind, score, box) for kind, score, box in OBJECTS]
    for answer in answers(draft):
        assert [label for label, *_ in answer] == [f"label {kind}" for kind, *_ in objects]


def test_objects_that_are_there_twice_warn() -> None:
    """Whatever the head is taken for: boxes that NMS would have dropped show that it was left out."""
    settings = DetectionPostprocess(decoder="end_to_end")
    boxes = [(10.0, 10.0, 50.0, 50.0), (11.0, 10.0, 50.0, 50.0), (10.0, 11.0, 50.0, 49.0), (60.0, 60.0, 90.0, 90.0)]
    found = [Found("label 0", 0, 0.9, box) for box in boxes]
    doubts = judgement._detections(settings, 3, [Examined(found)])
    assert doubts == ["3 of 4 boxes are there twice or more: its head is before NMS, check --decoder."]
    apart = [Found(f"label {number}", number, 0.9, box) for number, box in enumerate(boxes)]
    assert judgement._detections(settings, 4, [Examined(apart)]) == []
