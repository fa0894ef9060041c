"""Train the detector by distillation from a YOLOX-nano ONNX file, plus a few labelled photos.

    python -m training.detector.train --photos DIR [--photos DIR ...] --labelled IMAGES LABELS --held-out IMAGES LABELS
             --teacher yolox_nano.onnx --trunk efficientnet_lite0.pth --out OUT

--photos    unlabelled photos (searched recursively)
--labelled  photos + YOLO text labels ('class cx cy w h', 0..1) that may be trained on
--held-out  photos + labels used for evaluation only; photos of the same name are never trained on
All augmentation (crops, mosaics, flips, colours) runs on the GPU. The teacher sees the same augmented picture as the
student, so no labels are stored.

OUT receives weights.pth (fp16, averaged weights) and metrics.json.
Needs torch, numpy, pillow and onnx (to read the teacher). Made for one large GPU.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import time
from pathlib import Path

import torch
from torch import nn

from training.detector.evaluation import evaluate
from training.detector.losses import Hints, add_truth, distil_loss
from training.detector.network import MEAN, STD, Detector, decode_boxes, grid
from training.detector.pictures import SIZE, Pictures, files, make_batch, read_labels
from training.detector.teacher import Teacher

LAST = torch.channels_last


class Trainer:
    """The student, its teacher and the steps of training. Pictures are RGB, 0..255."""

    def __init__(self, args, device):
        self.args, self.device = args, device
        self.xy, self.stride = grid(SIZE, device)
        self.mean, self.std = (torch.tensor(v, device=device)[:, None, None] * 255 for v in (MEAN, STD))
        self.teacher = Teacher(args.teacher).to(device).eval().requires_grad_(False)
        self.net = Detector()
        trunk = torch.load(args.trunk, map_location="cpu")
        self.net.trunk.load_imagenet({k: v.float() for k, v in trunk.items()})
        self.net.to(device, memory_format=LAST)
        self.hints = Hints(96, [64] * 6).to(device)
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)  # averaged weights
        self.opt = optimizer(self.net, self.hints, args.lr, device)

    def quick_teacher(self):
        """Make the teacher faster, on a GPU in float16; call this after scoring it."""
        self.teacher = self.teacher.to(memory_format=LAST)
        if self.device.type == "cuda":
            self.teacher.half()

    def teach(self, x):
        """Boxes and probabilities of the teacher, which takes BGR, and its features."""
        raw, features = self.teacher(x.flip(1).to(next(self.teacher.parameters()).dtype))
        return torch.cat([decode_boxes(raw, self.xy, self.stride), raw[..., 4:]], -1), features

    def answer(self, x):
        """Boxes and probabilities of the student with averaged weights."""
        r, _ = self.ema((x - self.mean) / self.std)
        return torch.cat([decode_boxes(r.float(), self.xy, self.stride), r[..., 4:].float().sigmoid()], -1)

    def score(self, run, held):
        """(mAP50-95, mAP50) on the held-out photos."""
        return evaluate(run, held, self.args.held_out[1], self.device, self.xy, self.stride)

    def step(self, pics, done):
        """Take one training step; `done` is the progress from 0 to 1. Returns the four losses."""
        mosaic = self.args.mosaic if done < 0.9 else 0.0  # the last steps resemble real use
        with torch.no_grad():
            x, boxes = make_batch(pics, self.args.batch, mosaic)
            x = x.to(memory_format=LAST)
            target, t_feat = self.teach(x)
            clean = target[..., 4].clone()
            target = add_truth(target, boxes, self.xy, self.stride)
            x = ((x - self.mean) / self.std).contiguous(memory_format=LAST)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            raw, feat = self.net(x)
            l_hint = self.hints(feat, t_feat, clean)
        l_obj, l_cls, l_box = distil_loss(raw.float(), target, self.xy, self.stride)
        loss = l_obj + l_cls + l_box + self.args.hint * (1 - 0.7 * done) * l_hint * 4
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in self.opt.param_groups for p in g["params"]], 10.0)
        self.opt.step()
        return torch.stack([l_obj, l_cls, l_box, l_hint]).detach()

    @torch.no_grad()
    def average(self, step):
        """Update the moving average of the weights."""
        keep = min(0.9995, 1 - 1 / (step / 8 + 1))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - keep)
        for p, q in zip(self.ema.buffers(), self.net.buffers(), strict=False):
            p.lerp_(q, 1 - keep) if p.is_floating_point() else p.copy_(q)

    def save(self):
        """Write the averaged weights in float16."""
        state = {k: v.half() if v.is_floating_point() else v for k, v in self.ema.state_dict().items()}
        torch.save(state, self.args.out / "weights.pth")


def optimizer(net, hints, lr, device):
    """AdamW; the trunk, which is trained already, learns at half the rate."""
    slow, fast, plain = [], [], []
    for name, p in [*net.named_parameters(), *hints.named_parameters()]:
        (plain if p.ndim <= 1 else slow if name.startswith("trunk") else fast).append(p)
    return torch.optim.AdamW(
        [
            {"params": slow, "weight_decay": 0.02, "k": 0.5},
            {"params": fast, "weight_decay": 0.02, "k": 1.0},
            {"params": plain, "weight_decay": 0.0, "k": 1.0},
        ],
        lr=lr,
        betas=(0.9, 0.99),
        fused=device.type == "cuda",
    )


def photos(args, held):
    """Groups of (share, [(photo, labels or None)]), without the held-out photos."""
    banned = {p.stem for p in held} | {"COCO_train2014_" + p.stem for p in held}
    images, labels = args.labelled
    groups = [(args.labelled_share, [(p, read_labels(labels, p)) for p in files(images) if p.stem not in banned])]
    for folder, share in zip(args.photos, args.share, strict=False):
        groups.append((share, [(p, None) for p in files(folder) if p.stem not in banned]))
    return groups


def train(trainer, pics, held, log):
    """Train until --steps or --max-seconds: (steps, seconds, intermediate scores)."""
    args = trainer.args
    t0, step, seen, sums = time.time(), 0, 0, torch.zeros(4, device=trainer.device)
    pause = args.max_seconds / (args.looks + 1)  # seconds between evaluations
    next_eval, history = pause, []
    while step < args.steps and time.time() - t0 < args.max_seconds:
        done = max(step / args.steps, (time.time() - t0) / args.max_seconds)
        rate = min(1.0, (step + 1) / 150) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for g in trainer.opt.param_groups:
            g["lr"] = args.lr * rate * g["k"]
        sums += trainer.step(pics, done)
        step += 1
        trainer.average(step)
        if step in (20, 100) or step % 500 == 0:
            v = (sums / (step - seen)).tolist()
            log(f"step {step} obj {v[0]:.3f} cls {v[1]:.3f} box {v[2]:.3f} hint {v[3]:.3f}  {time.time() - t0:.0f} s")
            seen = step
            sums.zero_()
        if time.time() - t0 > next_eval:
            next_eval += pause
            m = trainer.score(trainer.answer, held)
            history.append((step, *m))
            log("   averaged weights on held-out: mAP50-95 {:.4f} mAP50 {:.4f}".format(*m))
            trainer.save()
    return step, time.time() - t0, history


def arguments():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--photos", type=Path, action="append", default=[], help="FOLDER; repeat")
    ap.add_argument(
        "--share", type=float, action="append", default=[], help="weight of each --photos folder in the sampling"
    )
    ap.add_argument("--labelled", type=Path, nargs=2, required=True)
    ap.add_argument("--labelled-share", type=float, default=0.25)
    ap.add_argument("--held-out", type=Path, nargs=2, required=True)
    ap.add_argument("--teacher", type=Path, required=True)
    ap.add_argument("--trunk", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--steps", type=int, default=10000)
    ap.add_argument("--max-seconds", type=float, default=1e9, help="the learning-rate schedule also follows the clock")
    ap.add_argument("--batch", type=int, default=128)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--mosaic", type=float, default=0.5)
    ap.add_argument("--hint", type=float, default=1.0)
    ap.add_argument("--looks", type=int, default=0, help="number of evaluations during training (with --max-seconds)")
    return ap.parse_args()


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    log = functools.partial(print, flush=True)
    t0, held = time.time(), files(args.held_out[0])
    groups = photos(args, held)
    pics = Pictures(groups, device)
    pictures = [(len(g), w) for w, g in groups]
    log("pictures", pictures, f"{time.time() - t0:.0f} s")
    trainer = Trainer(args, device)
    t_map = trainer.score(lambda x: trainer.teach(x)[0], held)
    log("teacher on held-out: mAP50-95 {:.4f} mAP50 {:.4f}".format(*t_map))
    trainer.quick_teacher()
    steps, seconds, history = train(trainer, pics, held, log)
    m = trainer.score(trainer.answer, held)
    log(f"student on held-out: mAP50-95 {m[0]:.4f} mAP50 {m[1]:.4f}  steps {steps}, {seconds:.0f} s")
    trainer.save()
    metrics = {
        "teacher": t_map,
        "student": m,
        "history": history,
        "steps": steps,
        "seconds": seconds,
        "pictures": pictures,
        "args": {k: str(v) for k, v in vars(args).items()},
    }
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
