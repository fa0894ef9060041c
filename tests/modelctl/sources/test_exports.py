"""Heads as some exporters write them: of one class, with outputs beside the head, without names or any object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import heads
import numpy as np
import onnx
import pytest
from heads import OBJECTS, SIDE
from test_heads import answers, drafted, nms_rows, same_objects, scored, softmax_logits

from modelctl.errors import CommandError

ONE_CLASS = [(0, score, box) for _, score, box in OBJECTS]
PLACES = heads.queries()[0]


def logits(objects: Any, classes: int, quiet: float = -6.0) -> Any:
    """Return logits of ten queries by sigmoid; where there is nothing, the last class is a little likelier."""
    made = np.full((len(PLACES), classes), quiet)
    made[:, -1] += 0.5
    for index, (kind, score, _) in enumerate(objects):
        made[3 * index + 1, kind] = np.log(score / (1 - score))
    return made.astype(np.float32)


@pytest.mark.parametrize(("classes", "objects"), [(1, ONE_CLASS), (2, OBJECTS)])
def test_a_column_for_each_label_leaves_none_for_no_object(tmp_path: Path, classes: int, objects: Any) -> None:
    """RT-DETR of one class, or of two whose last wins in most queries, is read by sigmoid."""
    outputs = {"logits": logits(objects, classes), "pred_boxes": PLACES}
    draft = drafted(tmp_path, heads.constant(tmp_path / "net.onnx", outputs), names=classes)
    assert draft.spec.postprocess.activation == "sigmoid"
    for answer in answers(draft):
        same_objects(answer, objects)


def test_the_option_that_overrules_a_detrs_classes_is_named(tmp_path: Path) -> None:
    """--decoder detr would read it so again."""
    outputs = {"logits": logits(OBJECTS, 4), "pred_boxes": PLACES}
    path = heads.constant(tmp_path / "net.onnx", outputs)
    with pytest.raises(CommandError, match=r"read as DETR, softmax: .*; --activation overrules"):
        drafted(tmp_path, path, names=2)
    assert drafted(tmp_path, path, "--activation", "sigmoid", names=4).spec.postprocess.activation == "sigmoid"


@pytest.mark.parametrize("given", [(), ("--decoder", "end_to_end", "--columns", "class,score,box")])
def test_paddle_detection_counts_its_rows(tmp_path: Path, given: tuple[str, ...]) -> None:
    """The number of rows, an output of its own, is left out."""
    outputs = {"nms.tmp_0": nms_rows("class", "score", "box", batch=False), "nms.tmp_2": np.array([2])}
    draft = drafted(tmp_path, heads.constant(tmp_path / "net.onnx", outputs, batch=0), *given)
    assert draft.spec.postprocess.columns == ["class", "score", "box"]
    for answer in answers(draft):
        same_objects(answer)


def test_tensorflow_lite_of_one_class(tmp_path: Path) -> None:
    """Its class ids, real numbers, are all 0."""
    places, scores, kinds = heads.listed(yxyx=True, unit=1 / SIDE)
    parts = (places, np.zeros(len(kinds), np.float32), scores, np.float32(2))
    names = ["TFLite_Detection_PostProcess", *(f"TFLite_Detection_PostProcess:{number}" for number in (1, 2, 3))]
    path = heads.constant(tmp_path / "net.onnx", dict(zip(names, parts, strict=True)))
    for answer in answers(drafted(tmp_path, path, names=1)):
        same_objects(answer, ONE_CLASS)


def test_tensorflows_eight_outputs(tmp_path: Path) -> None:
    """Whole numbers of anchors are no class ids, scores of three classes and a background no boxes."""
    places, scores, kinds = heads.listed(first=1, yxyx=True, unit=1 / SIDE)
    count = len(kinds)
    outputs = {
        "detection_anchor_indices": np.arange(count, dtype=np.float32) * 7,
        "detection_boxes": places,
        "detection_classes": kinds.astype(np.float32),
        "detection_multiclass_scores": np.full((count, 4), 0.1, np.float32),
        "detection_scores": scores,
        "num_detections": np.float32(2),
        "raw_detection_boxes": np.zeros((20, 4), np.float32),
        "raw_detection_scores": np.zeros((20, 4), np.float32),
    }
    draft = drafted(tmp_path, heads.constant(tmp_path / "net.onnx", outputs), names=3)
    assert set(draft.spec.network.outputs) == {"boxes", "scores", "classes", "count"}
    for answer in answers(draft):
        same_objects(answer)


@pytest.mark.parametrize("sizes", [(16, 16), ("rows", "columns")])
def test_a_mask_of_padding_is_made_in_the_network(tmp_path: Path, sizes: tuple[int | str, ...]) -> None:
    """DETR for Transformers.js: nothing is padding, for any number of pictures."""
    outputs = {"logits": softmax_logits(), "pred_boxes": PLACES}
    path = heads.with_mask(heads.constant(tmp_path / "net.onnx", outputs), *sizes)
    draft = drafted(tmp_path, path)
    assert set(draft.spec.network.inputs) == {"image"}
    assert draft.spec.network.batching.max_batch_size > 1
    assert [entry.name for entry in onnx.load(draft.network).graph.input] == ["images"]
    for answer in answers(draft):
        same_objects(answer)


def test_without_any_object_only_the_columns_are_asked_for(tmp_path: Path) -> None:
    """The reasons of other families do not hide it; what Ultralytics wrote is known."""
    nothing = np.zeros((30, 6), np.float32)
    path = heads.constant(tmp_path / "net.onnx", {"output0": nothing})
    with pytest.raises(CommandError) as caught:
        drafted(tmp_path, path, names=1)
    said = str(caught.value)
    assert "are those of the decoder end_to_end, but it found nothing in the sample pictures" in said
    assert "give --columns, such as box,score,class (YOLOv10)" in said
    assert "yolox" not in said
    drafted(tmp_path, path, "--columns", "box,score,class", names=1)
    named = {"author": "Ultralytics", "task": "detect", "names": "{0: 'pothole'}", "args": "{'nms': True}"}
    path = heads.constant(tmp_path / "net.onnx", {"output0": nothing}, metadata=named)
    draft = drafted(tmp_path, path, names=None, prepared=())
    assert draft.spec.postprocess.decoder == "end_to_end"
    assert draft.spec.postprocess.columns is None
    assert answers(draft) == ([], [])


@pytest.mark.parametrize("first", ["boxes", "scores"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_four_columns_of_logits_are_no_boxes(tmp_path: Path, first: str, activation: str) -> None:
    """Without names the boxes are the output whose values lie in 0 to 1."""
    made = logits(OBJECTS, 4)
    if activation == "softmax":
        made[:, :3], made[:, 3] = -9, 3
        made[[1, 4]] = np.log([[0.05, 0.9, 0.02, 0.03], [0.8, 0.1, 0.05, 0.05]])
    parts = {"boxes": ("1815", PLACES), "scores": ("1814", made.astype(np.float32))}
    outputs = dict([parts[first], *(part for role, part in parts.items() if role != first)])
    draft = drafted(tmp_path, heads.constant(tmp_path / "net.onnx", outputs), names=4 - (activation == "softmax"))
    assert (draft.spec.postprocess.decoder, draft.spec.network.outputs["boxes"].name) == ("detr", "1815")
    for answer in answers(draft):
        same_objects(answer)


@pytest.mark.parametrize("first", [0, 1])
def test_four_columns_of_scores_are_no_boxes(tmp_path: Path, first: int) -> None:
    """Beside boxes in pixels, values in 0 to 1 are scores."""
    places, scores = scored()
    parts = [("1", places), ("2", np.concatenate([scores, np.full_like(scores, 0.01)], axis=1))]
    path = heads.constant(tmp_path / "net.onnx", dict([parts[first], parts[1 - first]]))
    draft = drafted(tmp_path, path, names=4)
    assert (draft.spec.postprocess.decoder, draft.spec.network.outputs["boxes"].name) == ("scored_boxes", "1")
    for answer in answers(draft):
        same_objects(answer)
