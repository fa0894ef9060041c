"""Losses of the student: distance to the teacher's maps and features, and to ground truth where a photo has labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from training.detector.network import decode_boxes


def corners(b):
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


def iou_parts(a, b):
    """IoU and generalised IoU of boxes given by corners (broadcast)."""
    wh = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    inter = wh.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    iou = inter / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)


@torch.no_grad()
def add_truth(target, boxes, xy, stride):
    """Write ground truth into the teacher's target [B, A, 85] (decoded boxes, probabilities).

    Each box is written into the cells near its centre that the teacher rates best.
    """
    hurt = (boxes[..., 0] >= 0).any(1)
    if not hurt.any():
        return target
    t, b = target[hurt], boxes[hurt]
    cls, box, real = b[..., 0].clamp(min=0).long(), b[..., 1:], b[..., 0] >= 0  # [B, M]
    mid = (xy + 0.5) * stride  # [A, 2]
    centre = (box[..., :2] + box[..., 2:]) / 2
    near = ((mid[None, :, None] - centre[:, None]).abs() < 1.5 * stride[None, :, None]).all(-1)  # [B, A, M]
    inside = ((mid[None, :, None] > box[:, None, :, :2]) & (mid[None, :, None] < box[:, None, :, 2:])).all(-1)
    iou, _ = iou_parts(corners(t[..., :4])[:, :, None], box[:, None])  # [B, A, M]
    p = torch.gather(t[..., 5:], 2, cls[:, None].expand(-1, t.shape[1], -1)) * t[..., 4:5]
    quality = (iou + 0.05) * (p + 0.02).sqrt() * (near & inside & real[:, None])
    k = (iou * (near & inside)).topk(10, 1).values.sum(1).round().clamp(1, 6)  # [B, M]
    top, where = quality.topk(6, 1)  # [B, 6, M]
    use = (torch.arange(6, device=t.device)[None, :, None] < k[:, None]) & (top > 0)
    bi, ki, mi = use.nonzero(as_tuple=True)
    ai = where[bi, ki, mi]
    t[bi, ai, :4] = torch.cat([centre[bi, mi], box[bi, mi, 2:] - box[bi, mi, :2]], -1)
    t[bi, ai, 4] = torch.maximum(t[bi, ai, 4], 0.5 + 0.5 * iou[bi, ai, mi])
    t[bi, ai, 5:] *= 0.3
    t[bi, ai, 5 + cls[bi, mi]] = torch.maximum(t[bi, ai, 5 + cls[bi, mi]], 0.5 + 0.5 * iou[bi, ai, mi])
    target[hurt] = t
    return target


def distil_loss(raw, target, xy, stride):
    """Losses (objectness, class, box) of the student's raw maps `raw` [B, A, 85].

    `target` [B, A, 85]: boxes in pixels, objectness, class probabilities.
    """
    obj, cls = target[..., 4], target[..., 5:]
    fg = obj.sum().clamp(min=1)
    l_obj = F.binary_cross_entropy_with_logits(raw[..., 4], obj, reduction="none")

    # Entropy is the least possible value. It is subtracted so that the printed loss is the distance to the teacher.
    def ent(p):
        return -(p.clamp(1e-6, 1 - 1e-6).log() * p + (1 - p).clamp(1e-6, 1).log() * (1 - p))

    l_obj = (l_obj - ent(obj)).sum() / fg
    keep = (obj > 0.01).nonzero(as_tuple=True)  # elsewhere the teacher's class and box mean nothing
    w, c, r, t = obj[keep], cls[keep], raw[keep], target[keep]
    l_cls = ((F.binary_cross_entropy_with_logits(r[:, 5:], c, reduction="none") - ent(c)).sum(1) * w).sum() / fg
    w = w * c.amax(1)
    g, s = xy[keep[1]], stride[keep[1]]
    _, giou = iou_parts(corners(decode_boxes(r[:, :4], g, s)), corners(t[:, :4]))
    goal = torch.cat([t[:, :2] / s - g, (t[:, 2:4] / s).clamp(min=1e-3).log()], 1)
    l_box = (
        ((1 - giou) * 5 + F.smooth_l1_loss(r[:, :4], goal, reduction="none", beta=0.5).sum(1)) * w
    ).sum() / w.sum().clamp(min=1)
    return l_obj, l_cls, l_box


class Hints(nn.Module):
    """Linear maps from the student's tower features to the teacher's, for training only.

    Each teacher channel is normalised to mean 0 and variance 1.
    """

    def __init__(self, width, their):
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(width, c, 1) for c in their)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, affine=False, momentum=0.01) for c in their)

    def forward(self, own, theirs, obj):
        total = 0.0
        start = 0
        for k, (f, t) in enumerate(zip(own, theirs, strict=False)):
            with torch.no_grad():
                t = self.norms[k](t.float())
            n = t.shape[2] * t.shape[3]
            if k % 2 == 0:
                w = obj[:, start : start + n].reshape(-1, 1, *t.shape[2:])
                start += n
            d = F.smooth_l1_loss(self.maps[k](f).float(), t, reduction="none", beta=1.0).mean(1, keepdim=True)
            total = total + d.mean() + (d * w).sum() / w.sum().clamp(min=1)
        return total / len(own)
