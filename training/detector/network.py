"""The detector: EfficientNet-Lite0 trunk, small depthwise PAN, decoupled anchor-free head.

`Detector.forward` returns raw maps for training. `Exported` folds batch norm into the convolutions and decodes to one
tensor [N, 3549, 5 + classes] = (cx, cy, w, h in input pixels, objectness, class probabilities) for a 416 x 416 input:
cells of stride 8 (52 x 52), then 16, then 32, row by row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDES = (8, 16, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for RGB in 0..1


class Conv(nn.Module):
    """Convolution, batch norm and activation.

    `tf_same` pads stride 2 on even sizes as TensorFlow does (right and bottom only); the ImageNet weights need that.
    """

    def __init__(self, i, o, k=1, stride=1, groups=1, act=None, tf_same=False, eps=1e-3):
        super().__init__()
        extra = (k - 2) if (tf_same and stride == 2) else None
        self.pad = None if extra is None else (extra // 2, extra - extra // 2, extra // 2, extra - extra // 2)
        self.conv = nn.Conv2d(i, o, k, stride, 0 if self.pad else k // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(o, eps=eps, momentum=0.03)
        self.act = act

    def forward(self, x):
        if self.pad:
            x = F.pad(x, self.pad)
        x = self.bn(self.conv(x))
        return x if self.act is None else self.act(x)

    def fold(self):
        self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


class MBConv(nn.Module):
    """Inverted residual of EfficientNet-Lite (no squeeze and excitation)."""

    def __init__(self, i, o, k, stride, expand):
        super().__init__()
        m = i * expand
        self.expand = Conv(i, m, act=F.relu6) if expand > 1 else None
        self.depth = Conv(m, m, k, stride, m, act=F.relu6, tf_same=True)
        self.project = Conv(m, o)
        self.skip = stride == 1 and i == o

    def forward(self, x):
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depth(y))
        return x + y if self.skip else y


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its classifier; returns the maps of stride 8, 16 and 32."""

    channels = (40, 112, 320)

    def __init__(self):
        super().__init__()
        self.stem = Conv(3, 32, 3, 2, act=F.relu6, tf_same=True)
        blocks, i = [], 32
        for repeat, k, stride, expand, o in (
            (1, 3, 1, 1, 16),
            (2, 3, 2, 6, 24),
            (2, 5, 2, 6, 40),
            (3, 3, 2, 6, 80),
            (3, 5, 1, 6, 112),
            (4, 5, 2, 6, 192),
            (1, 3, 1, 6, 320),
        ):
            for r in range(repeat):
                blocks.append(MBConv(i, o, k, stride if r == 0 else 1, expand))
                i = o
        self.blocks = nn.ModuleList(blocks)
        self.taps = (4, 10, 15)  # last block of each stride

    def forward(self, x):
        x, out = self.stem(x), []
        for n, block in enumerate(self.blocks):
            x = block(x)
            if n in self.taps:
                out.append(x)
        return out

    def load_imagenet(self, state: dict):
        """Load the trunk from an `efficientnet_lite_pytorch` state dict.

        Both list their tensors in the same order, so they are matched one by one. Raises ValueError when a name or
        shape does not fit.
        """
        theirs = [(k, v) for k, v in state.items() if k.split(".")[0] in ("_conv_stem", "_bn0", "_blocks")]
        own = self.state_dict()
        if len(theirs) != len(own):
            raise ValueError(f"{len(theirs)} tensors for {len(own)} places")
        for (name, target), (k, v) in zip(own.items(), theirs, strict=False):
            if target.shape != v.shape or name.split(".")[-1] != k.split(".")[-1]:
                raise ValueError(f"'{k}' does not fit '{name}'")
            target.copy_(v)
        return self


class Separable(nn.Module):
    """Depthwise k x k, then pointwise."""

    def __init__(self, i, o, k=5, stride=1):
        super().__init__()
        self.depth = Conv(i, i, k, stride, i)
        self.point = Conv(i, o, act=F.relu)
        self.skip = stride == 1 and i == o

    def forward(self, x):
        y = self.point(self.depth(x))
        return x + y if self.skip else y


class Detector(nn.Module):
    def __init__(self, classes=80, width=96):
        super().__init__()
        self.trunk = Lite0()
        self.lateral = nn.ModuleList(Conv(c, width, act=F.relu) for c in Lite0.channels)

        def two():
            return nn.Sequential(Separable(width, width), Separable(width, width))

        self.top_down = nn.ModuleList(two() for _ in range(2))
        self.down = nn.ModuleList(Separable(width, width, stride=2) for _ in range(2))
        self.bottom_up = nn.ModuleList(two() for _ in range(2))
        self.cls_tower = nn.ModuleList(two() for _ in STRIDES)
        self.reg_tower = nn.ModuleList(two() for _ in STRIDES)
        self.cls = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in STRIDES)
        self.reg = nn.ModuleList(nn.Conv2d(width, 5, 1) for _ in STRIDES)  # dx, dy, log w, log h, objectness
        for layer in (*self.cls, *self.reg):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        for c, r in zip(self.cls, self.reg, strict=False):  # the untrained network finds no objects
            nn.init.constant_(c.bias, -4.0)
            nn.init.constant_(r.bias[4:], -5.0)

    def forward(self, x):
        """Raw maps [N, A, 5 + classes] and the tower features per stride."""
        p3, p4, p5 = (f(t) for f, t in zip(self.lateral, self.trunk(x), strict=False))
        p4 = self.top_down[0](p4 + F.interpolate(p5, scale_factor=2.0, mode="nearest"))
        p3 = self.top_down[1](p3 + F.interpolate(p4, scale_factor=2.0, mode="nearest"))
        p4 = self.bottom_up[0](p4 + self.down[0](p3))
        p5 = self.bottom_up[1](p5 + self.down[1](p4))
        raw, features = [], []
        for k, p in enumerate((p3, p4, p5)):
            c, r = self.cls_tower[k](p), self.reg_tower[k](p)
            features += [c, r]
            raw.append(torch.cat([self.reg[k](r), self.cls[k](c)], 1).flatten(2))
        return torch.cat(raw, 2).transpose(1, 2), features


def grid(size=416, device=None):
    """Cell corners in cells [A, 2] and strides [A, 1], in the order of the raw maps."""
    xy, st = [], []
    for s in STRIDES:
        n = size // s
        y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        xy.append(torch.stack([x, y], -1).reshape(-1, 2))
        st.append(torch.full((n * n, 1), s))
    return torch.cat(xy).float().to(device), torch.cat(st).float().to(device)


def decode_boxes(raw, xy, stride):
    """(dx, dy, log w, log h) -> (cx, cy, w, h) in pixels."""
    return torch.cat([(raw[..., :2] + xy) * stride, raw[..., 2:4].clamp(max=8).exp() * stride], -1)


class Exported(nn.Module):
    """Inference form: batch norm folded, boxes decoded, probabilities instead of logits."""

    def __init__(self, net: Detector, size=416):
        super().__init__()
        self.net = net.eval()
        for m in self.net.modules():
            if isinstance(m, Conv):
                m.fold()
        xy, stride = grid(size)
        self.register_buffer("xy", xy)
        self.register_buffer("stride", stride)

    def forward(self, images):
        raw, _ = self.net(images)
        return torch.cat([decode_boxes(raw, self.xy, self.stride), raw[..., 4:].sigmoid()], -1)
