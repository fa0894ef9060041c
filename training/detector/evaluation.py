"""Mean average precision of decoded outputs on labelled photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from training.detector.losses import iou_parts
from training.detector.pictures import letterbox, read_boxes


def nms(boxes, scores, limit=0.6):
    order, keep = scores.argsort()[::-1], []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        i, rest = order[0], order[1:]
        keep.append(i)
        wh = np.clip(np.minimum(boxes[i, 2:], boxes[rest, 2:]) - np.maximum(boxes[i, :2], boxes[rest, :2]), 0, None)
        inter = wh.prod(1)
        order = rest[inter / (area[i] + area[rest] - inter + 1e-9) <= limit]
    return keep


def detections(out, scale, size, least=0.001, most=100):
    """One decoded output [A, 85] -> rows (class, score, x1, y1, x2, y2) in picture pixels."""
    score = out[:, 4:5] * out[:, 5:]
    a, c = np.nonzero(score > least)
    s = score[a, c]
    if len(s) > 2000:
        top = s.argsort()[::-1][:2000]
        a, c, s = a[top], c[top], s[top]
    b = np.concatenate([out[a, :2] - out[a, 2:4] / 2, out[a, :2] + out[a, 2:4] / 2], 1) / scale
    b = np.clip(b, 0, [size[0], size[1], size[0], size[1]])
    rows = []
    for k in np.unique(c):
        m = c == k
        rows.extend((k, s[m][i], *b[m][i]) for i in nms(b[m], s[m]))
    return np.array(sorted(rows, key=lambda r: -r[1])[:most], np.float64).reshape(-1, 6)


def mean_ap(found, truth):
    """COCO-style AP (101 recall points, IoU .50:.05:.95) without crowds: (mAP50-95, mAP50)."""
    limits = np.arange(0.5, 0.96, 0.05)
    aps = []
    for c in sorted({int(k) for t in truth for k in t[:, 0]}):
        total = sum(int((t[:, 0] == c).sum()) for t in truth)
        rows = []
        for f, t in zip(found, truth, strict=False):
            d, g = f[f[:, 0] == c], t[t[:, 0] == c][:, 1:]
            if not len(d):
                continue
            iou = np.zeros((len(d), len(g)))
            if len(g):
                iou = iou_parts(torch.from_numpy(d[:, None, 2:]), torch.from_numpy(g[None].astype(np.float64)))[
                    0
                ].numpy()
            hit = np.zeros((len(d), len(limits)), bool)
            for j, lim in enumerate(limits):
                free = np.ones(len(g), bool)
                for i in range(len(d)):
                    cand = np.where(free & (iou[i] >= lim), iou[i], -1)
                    if len(cand) and cand.max() >= 0:
                        hit[i, j] = True
                        free[cand.argmax()] = False
            rows += [(d[i, 1], hit[i]) for i in range(len(d))]
        rows.sort(key=lambda r: -r[0])
        ap = np.zeros(len(limits))
        if rows:
            tp = np.cumsum(np.stack([r[1] for r in rows]), 0)
            recall, precision = tp / total, tp / np.arange(1, len(rows) + 1)[:, None]
            precision = np.maximum.accumulate(precision[::-1], 0)[::-1]
            for j in range(len(limits)):
                at = np.searchsorted(recall[:, j], np.linspace(0, 1, 101), side="left")
                ap[j] = np.where(at < len(rows), precision[np.minimum(at, len(rows) - 1), j], 0).mean()
        aps.append(ap)
    aps = np.array(aps)
    return float(aps.mean()), float(aps[:, 0].mean())


@torch.no_grad()
def evaluate(run, photos, labels: Path, device, xy, stride):
    """(mAP50-95, mAP50) of `run` on labelled photos.

    `run` maps RGB pictures [N, 3, S, S] in 0..255 to decoded outputs [N, A, 85]: boxes in pixels, probabilities.
    """
    found, truth = [], []
    for i in range(0, len(photos), 32):
        got = [letterbox(p) for p in photos[i : i + 32]]
        x = torch.from_numpy(np.stack([g[0] for g in got])).to(device).permute(0, 3, 1, 2).float()
        out = run(x).float().cpu().numpy()
        for p, o, (_, s, size) in zip(photos[i : i + 32], out, got, strict=False):
            found.append(detections(o, s, size))
            truth.append(read_boxes(labels, p, size))
    return mean_ap(found, truth)
