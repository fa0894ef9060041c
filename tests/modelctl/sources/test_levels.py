"""Heads of several outputs: decoded in the graph, they say what their sources' own code makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import heads
import level_heads
import networks as small
import numpy as np
import onnx
import pytest
from heads import OBJECTS, SIDE
from test_heads import answers, drafted, same_objects

from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.sources import addition

EACH = {
    "YuNet": (level_heads.yunet(), level_heads.FACES),
    "YuNet with priors": (level_heads.yunet_of_priors(), level_heads.FACES),
    "RetinaFace": (level_heads.retinaface(), level_heads.FACES),
    "SCRFD": (level_heads.scrfd(), level_heads.FACES),
    "CenterFace": (level_heads.centerface(), level_heads.FACES),
    "NanoDet or PicoDet by level": (level_heads.by_level(), OBJECTS),
    "PaddleDetection without NMS": (level_heads.columns_of_scores(), OBJECTS),
}


def labels(objects: Any) -> int:
    """Return the number of classes."""
    return 1 + max(kind for kind, *_ in objects)


@pytest.mark.parametrize("batch", ["batch", 0])
@pytest.mark.parametrize("family", EACH)
def test_a_family_is_recognised_and_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str, batch: str | int
) -> None:
    """Boxes and scores come out of the network, with a batch or without; the card and the command name the family."""
    outputs, objects = EACH[family]
    path = heads.constant(tmp_path / "net.onnx", outputs, batch=batch)
    draft = drafted(tmp_path, path, "--task", "object-detection", names=labels(objects))
    assert f"{family}: its {len(outputs)} outputs become boxes and scores" in capsys.readouterr().err
    assert any(note.startswith(f"Its head is read as {family}, decoded within the network") for note in draft.notes)
    assert draft.spec.postprocess.decoder == "scored_boxes"
    assert draft.spec.preprocess.resample == "opencv_linear"
    for answer in answers(draft):
        same_objects(answer, objects)


def test_nanodet_of_three_levels_and_32_classes(tmp_path: Path) -> None:
    """Class scores that are as wide as the distributions come before them."""
    outputs = level_heads.by_level((8, 16, 32), classes=32)
    path = heads.constant(tmp_path / "net.onnx", outputs)
    for answer in answers(drafted(tmp_path, path, "--task", "object-detection", names=32)):
        same_objects(answer)


def test_yunet_answers_as_opencv_does(tmp_path: Path) -> None:
    """OpenCV's own detector runs the same file."""
    source = np.random.default_rng(3)
    outputs = level_heads.yunet()
    for name, array in outputs.items():
        noise = (
            source.uniform(0.55, 0.95, array.shape)
            if name[:3] in ("cls", "obj")
            else source.normal(0, 0.4, array.shape)
        )
        outputs[name] = noise.astype(np.float32)
    path = heads.constant(tmp_path / "net.onnx", outputs, batch=1)
    detector = cv2.FaceDetectorYN.create(str(path), "", (SIDE, SIDE), 0.8, 0.3, 5000)
    _, faces = detector.detect(np.zeros((SIDE, SIDE, 3), np.uint8))
    options = ("--task", "object-detection", "--score-threshold", "0.8", "--iou-threshold", "0.3")
    answer = answers(drafted(tmp_path, path, *options, names=1))[0]
    assert len(faces) == len(answer) > 10
    found = sorted((score, *box) for _, score, box in answer)
    right = sorted((face[14], face[0], face[1], face[0] + face[2], face[1] + face[3]) for face in faces)
    assert np.allclose(found, np.clip(right, 0, SIDE), atol=1e-3)


def test_mmdetection_after_nms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of corners and score, and class ids, of which -1 is padding; masks are left out."""
    outputs = level_heads.mmdetection()
    for extra in ({}, {"masks": np.zeros((5, 8, 8), np.float32)}):
        path = heads.constant(tmp_path / "net.onnx", outputs | extra)
        draft = drafted(tmp_path, path)
        assert "MMDetection: its" in capsys.readouterr().err
        assert draft.spec.postprocess.model_dump(exclude_defaults=True) == {"decoder": "detections"}
        assert draft.spec.preprocess.resample == "opencv_linear"
        for answer in answers(draft):
            same_objects(answer)


def test_as_many_queries_as_classes_are_not_turned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores [C, A] are turned into rows only where A alone is the number of boxes."""
    places, logits = heads.queries()
    square = np.concatenate([logits, np.full((10, 8), -6, np.float32)], axis=1)
    draft = drafted(tmp_path, heads.constant(tmp_path / "net.onnx", {"a": places, "b": square}), names=10)
    assert "become boxes" not in capsys.readouterr().err
    assert draft.spec.postprocess.decoder == "detr"
    for answer in answers(draft):
        same_objects(answer)


def test_levels_of_another_family_are_refused_by_name(tmp_path: Path) -> None:
    """Two boxes a cell are not SCRFD's when a level is missing."""
    outputs = {name: array for name, array in level_heads.scrfd().items() if len(array) != 8}
    path = heads.constant(tmp_path / "net.onnx", outputs)
    with pytest.raises(CommandError, match="looks like SCRFD"):
        drafted(tmp_path, path, "--task", "object-detection", names=1)


def test_a_file_of_another_batch_and_size_is_freed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CenterFace's published file declares ten pictures of 32 x 32, and takes any: the trial decides."""
    path = heads.constant(tmp_path / "net.onnx", level_heads.centerface(), batch=10)
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 32
    onnx.save(model, path)
    draft = drafted(tmp_path, path, "--size", f"{SIDE},{SIDE}", names=1)
    assert "[10, 3, 32, 32] is taken as ['any', 3, 64, 64]" in capsys.readouterr().err
    assert networks.ports(networks.load(draft.network))[0][0].shape == (None, 3, SIDE, SIDE)
    for answer in answers(draft):
        same_objects(answer, level_heads.FACES)


def test_a_classifier_of_another_batch_is_freed(tmp_path: Path) -> None:
    """Most networks take any batch, whatever their exporter declared; each picture has its own row."""
    path = small.classifier(tmp_path / "net.onnx", batch=4)
    draft = drafted(tmp_path, path, names=6)
    assert draft.spec.network.batching.max_batch_size > 1
    assert networks.ports(networks.load(draft.network))[1][0].shape == (None, 6)


def test_the_ending_of_a_file_may_be_in_capitals(tmp_path: Path) -> None:
    """Some systems write it so."""
    path = small.classifier(tmp_path / "net.ONNX")
    assert drafted(tmp_path, path, names=6).spec.task == "image-classification"
    assert addition._name(str(path)) == "net"
