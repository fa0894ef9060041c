"""A detector's raw head -> candidates: boxes in the network's input pixels, each with one class and one score.

One decoder for each family of heads, one file for each kind; a step's config names it, with the parameters of `Layout`.
All decode one item at a time, not the batch: nearly all candidates are below the score threshold and are dropped at
the first column that decides it, which is cheaper than decoding a whole batch as one array.

    yolov5         [A, 5+C]   cx, cy, w, h, objectness, classes: YOLOv5, v6, v7. Score = objectness x class.
    yolov8         [4+C, A]   cx, cy, w, h, classes, transposed: YOLOv8 to v12. Score = class.
    yolox          [A, 5+C]   as yolov5; with the parameter `encoded: "true"` boxes are relative to grid and stride.
    detr           `logits` and `boxes` [Q, 4], cx, cy, w, h in 0..1. activation softmax, logits [Q, C+1] (DETR, YOLOS):
                   the last class is "no object". activation sigmoid, logits [Q, C] (Deformable DETR, RT-DETR, RF-DETR,
                   D-FINE): the best Q pairs of query and class, so that one box may have two classes.
    rtdetr         [Q, 4+C]   cx, cy, w, h in 0..1, classes: Ultralytics' RT-DETR. A query has its best class.
    end_to_end     [K, 6]     xmin, ymin, xmax, ymax, score, class id: YOLOv10, and exports with NMS inside; other
                   columns and other boxes by `columns` and `box_format`.
    detections     `boxes` [K, 4], `scores` [K], `classes` [K], perhaps `count` [1]: EfficientNMS, TensorFlow Lite, the
                   deployment exports of RT-DETR and D-FINE, torchvision.
    scored_boxes   `boxes` [A, 4] and `scores` [A, C] before NMS: UltraFace, YOLO-NAS, YOLOv4.
    nanodet, nanodet_plus     [A, C + 4 x bins]   class scores, then a distribution for each side's distance.
    fastestdet     [5+C, rows, columns]           a map of cells.
    yolofastestv2  [A, 15+C]                      rows of cells with three anchors.

A candidate has only its best class, except with detr and sigmoid. `FAMILIES` says which need NMS.
"""

from stages.decoders.candidates import Candidates, Tensors, corners, grid
from stages.decoders.head import FAMILIES, Head
from stages.decoders.layout import Layout

__all__ = ["FAMILIES", "Candidates", "Head", "Layout", "Tensors", "corners", "grid"]
