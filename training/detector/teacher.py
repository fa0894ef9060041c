"""Runs the teacher, a YOLOX ONNX file, in torch, so that the augmented pictures stay on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn


class Teacher(nn.Module):
    """The convolution graph of a YOLOX ONNX file as a torch module.

    Returns the raw maps in the student's layout, with probabilities for logits, and the features before the last
    convolutions.
    """

    def __init__(self, path):
        super().__init__()
        import onnx
        from onnx import numpy_helper

        g = onnx.load(str(path)).graph
        const = {t.name: numpy_helper.to_array(t) for t in g.initializer}
        for n in g.node:
            if n.op_type == "Constant":
                const[n.output[0]] = numpy_helper.to_array(n.attribute[0].t)
        self.const, self.steps, self.where = const, [], {}

        def attrs(n):
            return {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}

        for n in g.node:
            if n.op_type == "Conv":
                w, a = const[n.input[1]], attrs(n)
                conv = nn.Conv2d(
                    w.shape[1] * a["group"],
                    w.shape[0],
                    a["kernel_shape"],
                    a["strides"],
                    a["pads"][:2],
                    groups=a["group"],
                )
                conv.weight.data, conv.bias.data = (
                    torch.from_numpy(w.copy()),
                    torch.from_numpy(const[n.input[2]].copy()),
                )
                name = "c" + str(len(self.steps))
                self.add_module(name, conv)
                self.steps.append(("Conv", name, list(n.input), n.output[0]))
                for kind in ("cls", "reg", "obj"):
                    for k in range(3):
                        if n.input[1] == f"head.{kind}_preds.{k}.weight":
                            self.where[kind, k] = (n.input[0], n.output[0])
            elif n.op_type in ("Sigmoid", "Mul", "Add", "Concat", "Slice", "MaxPool", "Resize"):
                self.steps.append((n.op_type, attrs(n), list(n.input), n.output[0]))
        if len(self.where) != 9:
            raise ValueError("not a YOLOX head")
        last = {v[1] for v in self.where.values()}
        self.steps = self.steps[: 1 + max(i for i, s in enumerate(self.steps) if s[3] in last)]
        self.input = g.input[0].name

    def forward(self, x):
        v = {self.input: x}
        for op, a, i, o in self.steps:
            if op == "Conv":
                v[o] = getattr(self, a)(v[i[0]])
            elif op == "Sigmoid":
                v[o] = v[i[0]].sigmoid()
            elif op == "Mul":
                v[o] = v[i[0]] * v[i[1]]
            elif op == "Add":
                v[o] = v[i[0]] + v[i[1]]
            elif op == "Concat":
                v[o] = torch.cat([v[j] for j in i], a["axis"])
            elif op == "Slice":
                start, end, axis, step = (self.const[j] for j in i[1:5])
                s = [slice(None)] * 4
                s[int(axis[0])] = slice(int(start[0]), min(int(end[0]), 10**6), int(step[0]))
                v[o] = v[i[0]][tuple(s)]
            elif op == "MaxPool":
                v[o] = F.max_pool2d(v[i[0]], a["kernel_shape"], a["strides"], a["pads"][:2])
            elif op == "Resize":
                v[o] = F.interpolate(v[i[0]], scale_factor=2.0, mode="nearest")
        raw, features = [], []
        for k in range(3):
            (c, cls), (r, reg), (_, obj) = (
                v_ for v_ in (self.where["cls", k], self.where["reg", k], self.where["obj", k])
            )
            features += [v[c], v[r]]
            raw.append(torch.cat([v[reg].float(), v[obj].float().sigmoid(), v[cls].float().sigmoid()], 1).flatten(2))
        return torch.cat(raw, 2).transpose(1, 2), features
