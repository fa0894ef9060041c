"""Training pictures on the device: loading, crops, mosaics, flips, colours, and the resizing that the service uses."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from PIL import Image

SIZE, CANVAS = 416, 448
TYPES = {".jpg", ".jpeg", ".png", ".webp"}


def load_canvas(path):
    """An RGB picture scaled to fit CANVAS, top left in a grey square, and its scaled (w, h)."""
    im = Image.open(path).convert("RGB")
    s = CANVAS / max(im.size)
    w, h = max(1, round(im.width * s)), max(1, round(im.height * s))
    out = np.full((CANVAS, CANVAS, 3), 114, np.uint8)
    out[:h, :w] = np.asarray(im.resize((w, h), Image.BICUBIC))
    return out, (w, h)


def letterbox(path):
    """Fit into SIZE x SIZE, top left on grey 114, as the service does: the picture, its scale, the photo's (w, h)."""
    im = Image.open(path).convert("RGB")
    s = SIZE / max(im.size)
    w, h = max(1, int(im.width * s)), max(1, int(im.height * s))
    out = np.full((SIZE, SIZE, 3), 114, np.uint8)
    out[:h, :w] = np.asarray(im.resize((w, h), Image.BILINEAR))
    return out, s, im.size


def read_labels(folder: Path, photo: Path):
    f = folder / (photo.stem + ".txt")
    rows = (
        [list(map(float, label.split()[:5])) for label in f.read_text().splitlines() if label.strip()]
        if f.exists()
        else []
    )
    return np.array(rows, np.float32).reshape(-1, 5)


def read_boxes(folder: Path, photo: Path, size):
    """Labels as rows (class, x1, y1, x2, y2) in pixels of a photo of `size` (w, h)."""
    label, wh = read_labels(folder, photo), np.array([*size, *size])
    half = label[:, 3:] / 2
    return np.concatenate([label[:, :1], np.concatenate([label[:, 1:3] - half, label[:, 1:3] + half], 1) * wh], 1)


def files(folder):
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in TYPES)


class Pictures:
    """All training pictures as one uint8 tensor on the device, drawn from with weights."""

    def __init__(self, groups, device, most=40):
        """Load `groups`, a list of (weight, [(path, labels or None)]), with at most `most` boxes per picture."""
        every = [(p, label, w / len(g)) for w, g in groups for p, label in g]
        with ThreadPoolExecutor(16) as pool:
            got = list(pool.map(lambda e: load_canvas(e[0]), every))
        self.data = torch.from_numpy(np.stack([g[0] for g in got])).to(device).permute(0, 3, 1, 2).contiguous()
        self.size = torch.tensor([g[1] for g in got], dtype=torch.float32, device=device)
        self.weight = torch.tensor([w for *_, w in every], device=device)
        boxes = np.zeros((len(every), most, 5), np.float32)
        boxes[..., 0] = -1  # class -1: no box
        for i, (_, label, _) in enumerate(every):
            if label is not None:
                n = min(most, len(label))
                boxes[i, :n] = label[:n]
        self.boxes = torch.from_numpy(boxes).to(device)
        self.labelled = torch.tensor([label is not None for _, label, _ in every], device=device)

    def draw(self, n):
        return torch.multinomial(self.weight, n, replacement=True)


def warp(pics: Pictures, idx, centre, zoom, flip, stretch):
    """Resample pictures so that their middle is at `centre` (pixels), with `zoom` output pixels per canvas pixel.

    The area outside a picture is grey. Returns pictures [n, 3, SIZE, SIZE] in 0..255 and the mapping used.
    """
    n, dev = len(idx), idx.device
    zx, zy = zoom * stretch.sqrt(), zoom / stretch.sqrt()
    sign = 1 - 2 * flip.float()
    mid = pics.size[idx] / 2
    # output pixel (x, y) -> canvas pixel
    t = torch.arange(SIZE, device=dev) + 0.5
    cx = (t[None] - centre[:, :1]) / zx[:, None] * sign[:, None] + mid[:, :1]  # [n, W]
    cy = (t[None] - centre[:, 1:]) / zy[:, None] + mid[:, 1:]  # [n, H]
    g = torch.stack(
        [(cx * 2 / CANVAS - 1)[:, None].expand(n, SIZE, SIZE), (cy * 2 / CANVAS - 1)[:, :, None].expand(n, SIZE, SIZE)],
        -1,
    )
    out = F.grid_sample(pics.data[idx].float(), g, mode="bilinear", padding_mode="border", align_corners=False)
    w, h = pics.size[idx].unbind(1)
    inside = ((cx >= 0) & (cx < w[:, None]))[:, None, None, :] & ((cy >= 0) & (cy < h[:, None]))[:, None, :, None]
    out = torch.where(inside, out, torch.full((), 114.0, device=dev, dtype=out.dtype))
    return out, (zx, zy, sign, mid, centre)


def colour(x):
    """Random brightness, contrast, saturation, channel gains and grey, on 0..255 pictures."""
    n, dev = len(x), x.device

    def r(lo, hi, c=1):
        return torch.rand(n, c, 1, 1, device=dev, dtype=x.dtype) * (hi - lo) + lo

    grey = (x * torch.tensor([0.299, 0.587, 0.114], device=dev, dtype=x.dtype)[:, None, None]).sum(1, keepdim=True)
    sat = torch.where(r(0, 1) < 0.05, torch.zeros_like(r(0, 1)), r(0.5, 1.6))
    x = grey + (x - grey) * sat
    x = (x - 114) * r(0.65, 1.4) + 114
    return (x * r(0.7, 1.35) * r(0.9, 1.1, 3)).clamp(0, 255)


def make_batch(pics: Pictures, n, mosaic_share):
    """Augmented pictures [n, 3, SIZE, SIZE] in 0..255, and boxes [n, M, 5] (class, x1, y1, x2, y2 in pixels).

    Class -1 marks an unused row. Mosaics have no boxes.
    """
    dev = pics.data.device
    k = round(n * mosaic_share)

    def u(lo, hi, *s):
        return torch.rand(*s, device=dev) * (hi - lo) + lo

    out = []
    if k:
        idx = pics.draw(4 * k)
        c = u(0.3, 0.7, k, 2) * SIZE  # where the four tiles meet
        x, y = c.unbind(1)
        lo, hi = torch.zeros_like(x), torch.full_like(x, SIZE)
        tiles = torch.stack(
            [torch.stack(t, 1) for t in ((lo, lo, x, y), (x, lo, hi, y), (lo, y, x, hi), (x, y, hi, hi))], 1
        ).reshape(-1, 4)
        span = tiles[:, 2:] - tiles[:, :2]
        # from a picture that is smaller than its tile to one that overfills it
        fit = (span / pics.size[idx]).amin(1)
        zoom = fit * torch.exp(u(math.log(0.8), math.log(2.6), 4 * k))
        mid = (tiles[:, :2] + tiles[:, 2:]) / 2 + u(-0.2, 0.2, 4 * k, 2) * span
        img, _ = warp(pics, idx, mid, zoom, u(0, 1, 4 * k) < 0.5, u(0.8, 1.25, 4 * k))
        t = torch.arange(SIZE, device=dev) + 0.5
        inx = (t[None] >= tiles[:, :1]) & (t[None] < tiles[:, 2:3])
        iny = (t[None] >= tiles[:, 1:2]) & (t[None] < tiles[:, 3:])
        img = img * (inx[:, None, None, :] & iny[:, None, :, None]).to(img.dtype)
        out.append(img.reshape(k, 4, 3, SIZE, SIZE).sum(1))
    m = n - k
    boxes = torch.full((n, pics.boxes.shape[1], 5), -1.0, device=dev)
    if m:
        idx = pics.draw(m)
        zoom = SIZE / CANVAS * torch.exp(u(math.log(0.55), math.log(1.9), m))
        plain = u(0, 1, m) < 0.25  # a quarter is prepared as in the service
        zoom = torch.where(plain, torch.full_like(zoom, SIZE / CANVAS), zoom)
        shown = pics.size[idx] * zoom[:, None]
        room = (SIZE - shown).abs() / 2
        mid = torch.where(plain[:, None], shown / 2, SIZE / 2 + u(-1, 1, m, 2) * room)
        stretch = torch.where(plain, torch.ones_like(zoom), u(0.8, 1.25, m))
        flip = u(0, 1, m) < 0.5
        img, (zx, zy, sign, pm, cen) = warp(pics, idx, mid, zoom, flip, stretch)
        out.append(img)
        b, wh = pics.boxes[idx], pics.size[idx][:, None]
        xy, half = b[..., 1:3] * wh, b[..., 3:5] * wh / 2
        z = torch.stack([zx, zy], 1)[:, None]
        s = torch.stack([sign, torch.ones_like(sign)], 1)[:, None]
        xy = (xy - pm[:, None]) * s * z + cen[:, None]
        whole = (half * z * 2).prod(-1)
        x1y1, x2y2 = (xy - half * z).clamp(0, SIZE), (xy + half * z).clamp(0, SIZE)
        seen = (x2y2 - x1y1).prod(-1)
        ok = (b[..., 0] >= 0) & (seen > 0.3 * whole) & (seen > 16)
        boxes[k:] = torch.cat([torch.where(ok, b[..., 0], torch.full_like(b[..., 0], -1))[..., None], x1y1, x2y2], -1)
    return colour(torch.cat(out)), boxes
