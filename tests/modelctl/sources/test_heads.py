"""Every family of heads is recognised from its outputs, and both the steps and the reference find its objects."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import heads
import networks
import numpy as np
import pytest
from heads import OBJECTS, SIDE
from PIL import Image
from sample_files import labels

from modelctl.commands import add
from modelctl.errors import CommandError
from modelctl.models import configs
from modelctl.reference.model import Reference, onnx_run
from modelctl.sources import conversion, find
from modelctl.sources.draft import Draft, Order
from stages import boxes
from stages.config import StepConfig, Tensor
from stages.decoders.head import Head

UNIT = ("--resize", "stretch", "--scale", "1/255", "--mean", "0", "--std", "1")
Outputs = dict[str, Any]


def drafted(folder: Path, path: Path, *options: str, names: int | None = 2, prepared: tuple[str, ...] = UNIT) -> Draft:
    """Return the draft that `modelctl add` makes of a file, its network stored."""
    parser = argparse.ArgumentParser()
    add.add_arguments(parser)
    given = (*prepared, "--labels", labels(folder, names)) if names else prepared
    work = folder / "work"
    work.mkdir(exist_ok=True)
    order = Order(str(path), "net", parser.parse_args([str(path), *given, *options]), work)
    draft = find.draft(order)
    conversion.convert(draft, "fp32", None)
    conversion.compare(draft, "fp32")
    return draft


def picture() -> bytes:
    """Return a picture as large as the network's input, so that boxes are the same in both."""
    data = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(data, "PNG")
    return data.getvalue()


Answer = list[tuple[str, float, list[float]]]


def answers(draft: Draft) -> tuple[Answer, Answer]:
    """Return what the reference and what the step answer, both from the stored network."""
    run = onnx_run(draft.network, draft.spec)
    reference = Reference(draft.spec, draft.labels, None, run)
    inputs, place = reference.inputs(picture())
    outputs = {role: array[0] for role, array in run(inputs).items()}
    config = configs.postprocess(draft.spec)
    tensors = {entry.name: Tensor("FP32", tuple(entry.dims)) for entry in config.input}
    parameters = {name: entry.string_value for name, entry in config.parameters.items()}
    step = StepConfig(parameters, tensors, {}, Path())
    head, options = Head.of(step), boxes.Options.from_config(step, draft.labels)
    assert head.classes(step) in (-1, len(draft.labels))
    assert place is not None
    geometry = np.array([*place.scale, *place.offset], np.float32)
    found = boxes.detect(outputs, head, options, geometry, np.array(place.picture), len(draft.labels))
    served = [
        (draft.labels[kind], float(score), box.tolist())
        for box, score, kind in zip(found.boxes, found.scores, found.class_ids, strict=True)
    ]
    return [(one.label, one.score, list(one.box)) for one in reference.read(outputs, place)], served


def same_objects(answer: Answer, objects: Any = OBJECTS) -> None:
    """Hold an answer against the objects, best first."""
    assert [label for label, *_ in answer] == [f"label {kind}" for kind, *_ in objects]
    for (_, score, box), (_, expected, place) in zip(answer, objects, strict=True):
        assert score == pytest.approx(expected, abs=1e-4)
        assert box == pytest.approx(place, abs=0.02)


def scored(unit: float = 1.0, *, background: bool = False) -> tuple[Any, Any]:
    """Return corners and class scores before NMS."""
    rows = heads.rows(84, objectness=False)
    cx, cy, w, h = rows[:, :4].T
    places = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1) * np.float32(unit)
    scores = rows[:, 4:]
    if background:
        rest = np.maximum(1 - scores.sum(axis=1, keepdims=True), 0)
        scores = np.concatenate([rest, scores], axis=1)
        scores = scores / scores.sum(axis=1, keepdims=True)
    return places, scores


def nms_rows(*order: str, batch: bool = True) -> Any:
    """Return rows after NMS with their columns in an order."""
    made = []
    for kind, score, box in OBJECTS:
        parts = {"batch": [0.0], "class": [float(kind)], "score": [score], "box": list(box)}
        columns = ("batch", *order) if batch else order
        made.append([number for name in columns for number in parts[name]])
    return np.array(made, np.float32)


def softmax_logits() -> Any:
    """Return DETR's logits of two classes and "no object", which wins everywhere but for the objects."""
    logits = np.zeros((10, 3), np.float32)
    logits[:, 2] = 9
    for index, (kind, score, _) in enumerate(OBJECTS):
        logits[3 * index + 1] = np.log((1 - score) / 2)
        logits[3 * index + 1, kind] = np.log(score)
    return logits


PIXELS, QUERIES = 1.0, heads.queries()
EACH: dict[str, tuple[Callable[[], Outputs], dict[str, Any], str, dict[str, Any]]] = {
    "YOLOv5": (
        lambda: {"output": heads.rows(3 * 84, objectness=True)},
        {},
        "YOLOv5: 7 = 4 + 1 + 2",
        {"decoder": "yolov5"},
    ),
    "YOLOv5 in shares": (
        lambda: {"output": heads.rows(3 * 84, objectness=True) / np.array([SIDE] * 4 + [1] * 3, np.float32)},
        {},
        "YOLOv5: 7 = 4 + 1 + 2",
        {"decoder": "yolov5", "box_unit": "normalized"},
    ),
    "YOLOv8": (
        lambda: {"output0": heads.rows(84, objectness=False).T},
        {},
        "YOLOv8: 6 = 4 + 2",
        {"decoder": "yolov8"},
    ),
    "YOLOv8 in rows": (
        lambda: {"output0": np.concatenate([heads.rows(84, objectness=False)] * 20)},
        {},
        "rows of boxes and classes before NMS: 6 = 4 + 2",
        {"decoder": "rtdetr", "nms": True, "box_unit": "pixels"},
    ),
    "YOLOX": (
        lambda: {"output": heads.rows(84, objectness=True)},
        {},
        "YOLOX: 7 = 4 + 1 + 2",
        {"decoder": "yolox"},
    ),
    "YOLOX, encoded": (
        lambda: {"output": heads.encoded()},
        {},
        "YOLOX: 7 = 4 + 1 + 2, boxes relative to their cells",
        {"decoder": "yolox", "encoded": True},
    ),
    "DETR": (
        lambda: {"logits": softmax_logits(), "pred_boxes": QUERIES[0]},
        {},
        "DETR, softmax: 10 queries of 2 classes + no object",
        {"decoder": "detr"},
    ),
    "RT-DETR of transformers": (
        lambda: {"logits": QUERIES[1], "pred_boxes": QUERIES[0], "masks": np.zeros((10, 8, 8), np.float32)},
        {},
        "DETR, sigmoid: 10 queries of 2 classes",
        {"decoder": "detr", "activation": "sigmoid"},
    ),
    "RT-DETR of Ultralytics": (
        lambda: {"output0": np.concatenate([QUERIES[0], 1 / (1 + np.exp(-QUERIES[1]))], axis=1)},
        {},
        "Ultralytics' RT-DETR: 6 = 4 + 2",
        {"decoder": "rtdetr"},
    ),
    "scores and corners in shares": (
        lambda: dict(zip(("boxes", "scores"), scored(1 / SIDE, background=True), strict=True)),
        {},
        "boxes (corners, normalized) and scores (background + 2) before NMS",
        {"decoder": "scored_boxes", "background": True, "box_unit": "normalized"},
    ),
    "scores and corners in pixels": (
        lambda: dict(zip(("boxes", "scores"), scored(), strict=True)),
        {},
        "boxes (corners, pixels) and scores (2) before NMS",
        {"decoder": "scored_boxes"},
    ),
    "EfficientNMS": (
        lambda: dict(
            zip(("num_dets", "det_boxes", "det_scores", "det_classes"), (np.array([2]), *heads.listed()), strict=True)
        ),
        {},
        "boxes (corners, pixels), scores, classes after NMS",
        {"decoder": "detections"},
    ),
    "SSD of TensorFlow Lite": (
        lambda: {
            "TFLite_Detection_PostProcess": heads.listed(yxyx=True, unit=1 / SIDE)[0],
            "TFLite_Detection_PostProcess:1": heads.listed()[2].astype(np.float32),
            "TFLite_Detection_PostProcess:2": heads.listed()[1],
            "TFLite_Detection_PostProcess:3": np.float32(2),
        },
        {},
        "boxes (yxyx, normalized), scores, classes after NMS",
        {"decoder": "detections", "box_format": "yxyx", "box_unit": "normalized"},
    ),
    "RT-DETR and D-FINE for deployment": (
        lambda: dict(zip(("boxes", "scores", "labels"), heads.listed(unit=1 / SIDE), strict=True)),
        {"sizes": ["orig_target_sizes"]},
        "boxes (corners, pixels), scores, classes after NMS",
        {"decoder": "detections"},
    ),
    "torchvision": (
        lambda: dict(zip(("boxes", "scores", "labels"), heads.listed(first=1, pad=0), strict=True)),
        {"batch": 0},
        "boxes (corners, pixels), scores, classes after NMS, class 1 is the first label",
        {"decoder": "detections", "first_class": 1},
    ),
    "rows after NMS, class first": (
        lambda: {"batchno_classid_score_x1y1x2y2": nms_rows("class", "score", "box")},
        {"batch": 0},
        "rows after NMS: batch, class, score, box (corners, pixels)",
        {"decoder": "end_to_end", "columns": ["batch", "class", "score", "box"]},
    ),
    "rows after NMS, box first": (
        lambda: {"output": nms_rows("box", "class", "score")},
        {"batch": 0, "nms": True},
        "rows after NMS: batch, box, class, score (corners, pixels)",
        {"decoder": "end_to_end", "columns": ["batch", "box", "class", "score"]},
    ),
    "YOLOv10": (
        lambda: {"output0": nms_rows("box", "score", "class", batch=False)},
        {},
        "rows after NMS: box, score, class (corners, pixels)",
        {"decoder": "end_to_end"},
    ),
    "NanoDet-Plus": (
        lambda: {"output": heads.distances(plus=True)},
        {},
        "NanoDet-Plus: 34 = 2 + 4 x 8 bins",
        {"decoder": "nanodet_plus"},
    ),
    "NanoDet": (
        lambda: {"output": heads.distances(plus=False)},
        {},
        "NanoDet: 34 = 2 + 4 x 8 bins",
        {"decoder": "nanodet"},
    ),
}


@pytest.mark.parametrize("family", EACH)
def test_a_family_is_recognised_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str) -> None:
    """Without --decoder: the line says how the head is read, and both readers find the objects."""
    outputs, how, line, settings = EACH[family]
    nms = how.pop("nms", False) if (how := dict(how)) else False
    path = heads.constant(tmp_path / "net.onnx", outputs(), **how)
    draft = drafted(tmp_path, heads.with_nms(path) if nms else path)
    assert f"read as {line}\n" in capsys.readouterr().err
    chosen = draft.spec.postprocess.model_dump(exclude_defaults=True)
    assert chosen == settings
    for answer in answers(draft):
        same_objects(answer)


def test_ultralytics_rt_detr_behind_its_own_selection(tmp_path: Path) -> None:
    """Rows of centre and size in shares, score and class: by the metadata, and by the values without it."""
    made = np.array([[*(np.array(heads.centre(box)) / SIDE), score, kind] for kind, score, box in OBJECTS], np.float32)
    named = {
        "author": "Ultralytics",
        "task": "detect",
        "names": "{0: 'label 0', 1: 'label 1'}",
        "head": "RTDETRDecoder",
    }
    for metadata in (named, {}):
        path = heads.constant(tmp_path / "net.onnx", {"output0": made}, metadata=metadata)
        draft = drafted(tmp_path, path)
        settings = draft.spec.postprocess
        assert (settings.box_format, settings.box_unit) == ("centre", "normalized")
        for answer in answers(draft):
            same_objects(answer)


def test_fastestdet_and_yolo_fastest(tmp_path: Path) -> None:
    """A map of cells, and rows of cells without a batch axis, all of which are read."""
    path = heads.constant(tmp_path / "map.onnx", {"758": heads.fastest_map()})
    draft = drafted(tmp_path, path, "--task", "object-detection")
    assert draft.spec.postprocess.decoder == "fastestdet"
    for answer in answers(draft):
        same_objects(answer)
    path = heads.constant(tmp_path / "rows.onnx", {"845": heads.fastest_rows()}, batch=0)
    anchors = ",".join(map(str, heads.ANCHORS))
    draft = drafted(tmp_path, path, "--decoder", "yolofastestv2", "--anchors", anchors)
    assert draft.spec.network.outputs["head"].dims == [20, 17]
    for answer in answers(draft):
        same_objects(answer)


def test_the_name_of_the_background_is_no_label(tmp_path: Path) -> None:
    """A labels file that begins with it fits a head whose first score is that of no object."""
    path = heads.constant(
        tmp_path / "net.onnx", dict(zip(("boxes", "scores"), scored(1 / SIDE, background=True), strict=True))
    )
    names = tmp_path / "with_background.txt"
    names.write_text("BACKGROUND\nlabel 0\nlabel 1\n")
    draft = drafted(tmp_path, path, "--labels", str(names), names=None)
    assert draft.labels == ["label 0", "label 1"]
    for answer in answers(draft):
        same_objects(answer)


def test_rf_detr_has_a_label_for_each_of_its_scores(tmp_path: Path) -> None:
    """Its scores are sigmoids: the last is a class as any other, so that one label too few is refused."""
    path = heads.constant(tmp_path / "net.onnx", {"dets": QUERIES[0], "labels": QUERIES[1]})
    draft = drafted(tmp_path, path)
    assert draft.spec.postprocess.activation == "sigmoid"
    with pytest.raises(CommandError, match=r"has 2 classes, .* has 1 labels.*read as DETR, sigmoid") as caught:
        drafted(tmp_path, path, names=1)
    assert "--activation overrules. Each of its scores is a class, the last one too." in str(caught.value)


def test_the_user_overrules_what_was_recognised(tmp_path: Path) -> None:
    """Raw scores and other columns are believed when they are named; shapes must still fit."""
    raw = heads.rows(84, objectness=False, twin=False)
    raw[:, 4:] = np.log(raw[:, 4:] / (1 - raw[:, 4:]))
    path = heads.constant(tmp_path / "net.onnx", {"output0": raw.T})
    with pytest.raises(CommandError, match=r"yolov8: its scores would be .*--activation sigmoid"):
        drafted(tmp_path, path)
    draft = drafted(tmp_path, path, "--decoder", "yolov8", "--activation", "sigmoid")
    for answer in answers(draft):
        same_objects(answer)
    with pytest.raises(CommandError, match="no head of the decoder detr, because it writes two outputs, not 1"):
        drafted(tmp_path, path, "--decoder", "detr")
    for option in (("--encoded",), ("--anchors", "1,2"), ("--first-class", "1")):
        with pytest.raises(CommandError, match=f"{option[0]} would do nothing for the decoder yolov8: omit it"):
            drafted(tmp_path, path, "--decoder", "yolov8", "--activation", "sigmoid", *option)


def maps(*depths: int, side: int = 16) -> Outputs:
    """Return maps of some depths."""
    return {f"map{depth}_{index}": np.zeros((depth, side, side), np.float32) for index, depth in enumerate(depths)}


def arrays(**shapes: tuple[int, ...]) -> Outputs:
    """Return outputs of shapes, with numbers of chance."""
    source = np.random.default_rng(0)
    return {name: source.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (arrays(loc=(84, 14), conf=(84, 2), iou=(84, 1)), "looks like YuNet"),
        (arrays(bbox=(84, 4), score=(84, 2), points=(84, 10)), "looks like RetinaFace"),
        (maps(1, 2, 2, 10, side=8), "looks like CenterNet, or CenterFace"),
        (maps(21, 21, 21, side=8), "looks like YOLO with undecoded levels"),
        (arrays(output0=(116, 84), output1=(32, 16, 16)), "looks like YOLO with masks"),
        (arrays(output0=(6, 84), output1=(6, 84)), "looks like YOLOv9 before its conversion"),
        (arrays(output=(6, 84)), "yolov8: its scores would be"),
        (arrays(output=(84, 4)), "its last axis of 4 leaves no room for classes"),
        (arrays(a=(84, 3), b=(84, 5)), "scored_boxes: one of its outputs ends in four box sides"),
        (arrays(boxes=(84, 4), scores=(84, 2)), "scored_boxes: its scores would be"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, outputs: Outputs, sentence: str) -> None:
    """The outputs, the families and why they do not fit, and what to do."""
    path = heads.constant(tmp_path / "net.onnx", outputs)
    with pytest.raises(CommandError) as caught:
        drafted(tmp_path, path, "--task", "object-detection")
    said = str(caught.value)
    assert sentence in said
    assert "--task none" in said
    assert all(name in said for name in outputs if "output1" not in name)


def test_rows_after_nms_without_any_object_do_not_tell_their_columns(tmp_path: Path) -> None:
    """They are asked for; with them the network is added."""
    path = heads.constant(tmp_path / "net.onnx", {"output": np.zeros((3, 7), np.float32)})
    with pytest.raises(CommandError, match=r"found nothing in the sample pictures.*give --columns"):
        drafted(tmp_path, path, "--task", "object-detection")
    draft = drafted(tmp_path, path, "--decoder", "end_to_end", "--columns", "batch,class,score,box")
    assert draft.spec.postprocess.columns == ["batch", "class", "score", "box"]
    assert answers(draft) == ([], [])


def test_a_size_that_becomes_a_constant_must_be_known(tmp_path: Path) -> None:
    """A network for pictures of any size needs --size; with it boxes come in its pixels."""
    import onnx

    outputs = dict(zip(("boxes", "scores", "labels"), heads.listed(unit=1 / SIDE), strict=True))
    path = heads.constant(tmp_path / "net.onnx", outputs, sizes=["orig_target_sizes"])
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    onnx.save(model, path)
    with pytest.raises(CommandError, match=r"also takes orig_target_sizes.*give --size HEIGHT,WIDTH"):
        drafted(tmp_path, path)
    for answer in answers(drafted(tmp_path, path, "--size", f"{SIDE},{SIDE}")):
        same_objects(answer)


THEIRS = {"author": "Ultralytics", "names": "{0: 'label 0', 1: 'label 1'}"}


def test_ultralytics_rt_detr_is_stretched(tmp_path: Path) -> None:
    """Its predictor stretches pictures; exports without the head's name are known by their rows."""
    rows = np.concatenate([QUERIES[0], 1 / (1 + np.exp(-QUERIES[1]))], axis=1)
    named = THEIRS | {"task": "detect", "imgsz": "[64, 64]"}
    path = heads.constant(tmp_path / "net.onnx", {"output0": rows}, metadata=named)
    draft = drafted(tmp_path, path, names=None, prepared=())
    assert draft.spec.preprocess.resize == "stretch"
    for answer in answers(draft):
        same_objects(answer)


def test_ultralytics_classifiers_are_prepared_as_their_source_does(tmp_path: Path) -> None:
    """The shorter side becomes the picture size, whole pixels are cut off, and the middle is taken."""
    names = str({index: f"label {index}" for index in range(6)})
    path = networks.classifier(
        tmp_path / "net.onnx",
        ending="probabilities",
        metadata=THEIRS | {"task": "classify", "names": names, "imgsz": "[32, 32]"},
    )
    draft = drafted(tmp_path, path, names=None, prepared=())
    assert draft.labels == [f"label {index}" for index in range(6)]
    assert draft.spec.postprocess.activation == "none"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 110, 3), np.uint8))
    data = io.BytesIO()
    picture.save(data, "PNG")
    # torchvision: Resize(32, BILINEAR) keeps the ratio and truncates; CenterCrop(32); ToTensor.
    resized = picture.resize((int(32 * 110 / 60), 32), Image.Resampling.BILINEAR)
    left = round((resized.width - 32) / 2.0)
    expected = np.asarray(resized.crop((left, 0, left + 32, 32)), np.float32).transpose(2, 0, 1)[None] / 255
    given, _ = Reference(draft.spec, draft.labels, None, lambda _: {}).inputs(data.getvalue())
    np.testing.assert_allclose(given["image"], expected, atol=1e-6)


def test_ultralytics_networks_of_other_tasks_are_served_by_their_tensors(tmp_path: Path) -> None:
    """The refusal proposes --task none, and that works."""
    path = networks.classifier(tmp_path / "net.onnx", metadata=THEIRS | {"task": "pose"})
    with pytest.raises(CommandError, match="only 'detect' and 'classify' can be served here; --task none serves"):
        drafted(tmp_path, path, names=None, prepared=())
    assert drafted(tmp_path, path, "--task", "none", names=None, prepared=()).spec.task == "none"


def test_a_size_of_another_kind_of_network_stays_an_input(tmp_path: Path) -> None:
    """Only a detector's becomes a constant: an upscaler is served with its factor."""
    path = tmp_path / "net.onnx"
    kind = networks.TensorProto.FLOAT
    networks.save(
        path,
        [
            networks.node("Reshape", ["scale_factor", "shape"], ["sum"]),
            networks.node("Mul", ["images", "sum"], ["larger"]),
        ],
        [networks.value("images", kind, ["N", 3, 8, 8]), networks.value("scale_factor", kind, ["N", 1])],
        [networks.value("larger", kind, ["N", 3, 8, 8])],
        {"shape": np.array([-1, 1, 1, 1], np.int64)},
    )
    draft = drafted(tmp_path, path, names=None, prepared=())
    assert draft.spec.task == "none"
    assert set(draft.spec.network.inputs) == {"images", "scale_factor"}
