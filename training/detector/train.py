"""Train the detector by distillation from a YOLOX-nano ONNX file, plus a few labelled photos.

    python -m training.detector.train --photos DIR [--photos DIR ...] --labelled IMAGES LABELS --held-out IMAGES LABELS
             --teacher yolox_nano.onnx --trunk efficientnet_lite0.pth --out OUT

--photos    unlabelled photos (searched recursively)
--labelled  photos + YOLO text labels ('class cx cy w h', 0..1) that may be trained on
--held-out  photos + labels used for evaluation only; photos of the same name are never trained on
Everything random (crops, mosaics, flips, colours) happens on the GPU, and the teacher looks at
the same augmented picture as the student, so no label has to be stored.

OUT receives weights.pth (fp16, averaged weights) and metrics.json.
Needs torch, numpy, pillow, onnx (to read the teacher).  Built for one large GPU.
"""

from __future__ import annotations

import argparse
import copy
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


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--photos", type=Path, action="append", default=[], help="FOLDER; repeat")
    ap.add_argument(
        "--share", type=float, action="append", default=[], help="how often each --photos folder is drawn from"
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
    ap.add_argument("--looks", type=int, default=0, help="evaluations on the way (with --max-seconds)")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)

    def log(*a):
        return print(*a, flush=True)

    t0 = time.time()

    held = files(args.held_out[0])
    banned = {p.stem for p in held} | {"COCO_train2014_" + p.stem for p in held}
    groups = [
        (
            args.labelled_share,
            [(p, read_labels(args.labelled[1], p)) for p in files(args.labelled[0]) if p.stem not in banned],
        )
    ]
    for folder, share in zip(args.photos, args.share, strict=False):
        groups.append((share, [(p, None) for p in files(folder) if p.stem not in banned]))
    pics = Pictures(groups, device)
    log("pictures", [(len(g), w) for w, g in groups], f"{time.time() - t0:.0f} s")

    xy, stride = grid(SIZE, device)
    mean, std = (torch.tensor(v, device=device)[:, None, None] * 255 for v in (MEAN, STD))
    last = torch.channels_last

    def amp():
        return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    teacher = Teacher(args.teacher).to(device).eval().requires_grad_(False)

    def teach_fp32(x):
        return (lambda r: torch.cat([decode_boxes(r, xy, stride), r[..., 4:]], -1))(teacher(x.flip(1))[0])

    t_map = evaluate(teach_fp32, held, args.held_out[1], device, xy, stride)
    log("teacher on held-out: mAP50-95 {:.4f} mAP50 {:.4f}".format(*t_map))
    teacher = teacher.to(memory_format=last)
    if device.type == "cuda":
        teacher.half()
    their_type = next(teacher.parameters()).dtype

    net = Detector()
    net.trunk.load_imagenet({k: v.float() for k, v in torch.load(args.trunk, map_location="cpu").items()})
    net.to(device, memory_format=last)
    hints = Hints(96, [64] * 6).to(device)
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    slow, fast, plain = [], [], []
    for name, p in [*net.named_parameters(), *hints.named_parameters()]:
        (plain if p.ndim <= 1 else slow if name.startswith("trunk") else fast).append(p)
    opt = torch.optim.AdamW(
        [
            {"params": slow, "weight_decay": 0.02, "k": 0.5},
            {"params": fast, "weight_decay": 0.02, "k": 1.0},
            {"params": plain, "weight_decay": 0.0, "k": 1.0},
        ],
        lr=args.lr,
        betas=(0.9, 0.99),
        fused=device.type == "cuda",
    )

    def student_run(model):
        def run(x):
            r, _ = model((x - mean) / std)
            return torch.cat([decode_boxes(r.float(), xy, stride), r[..., 4:].float().sigmoid()], -1)

        return run

    t0, step, seen, sums = time.time(), 0, 0, torch.zeros(4, device=device)
    pause = args.max_seconds / (args.looks + 1)  # looks at the held-out set on the way
    next_eval = pause
    history = []
    while step < args.steps and time.time() - t0 < args.max_seconds:
        done = max(step / args.steps, (time.time() - t0) / args.max_seconds)
        rate = min(1.0, (step + 1) / 150) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for g in opt.param_groups:
            g["lr"] = args.lr * rate * g["k"]
        mosaic = args.mosaic if done < 0.9 else 0.0  # the end looks like real use
        with torch.no_grad():
            x, boxes = make_batch(pics, args.batch, mosaic)
            x = x.to(memory_format=last)
            t_raw, t_feat = teacher(x.flip(1).to(their_type))  # the teacher wants BGR, 0..255
            target = torch.cat([decode_boxes(t_raw, xy, stride), t_raw[..., 4:]], -1)
            clean = target[..., 4].clone()
            target = add_truth(target, boxes, xy, stride)
            x = ((x - mean) / std).contiguous(memory_format=last)
        with amp():
            raw, feat = net(x)
            l_hint = hints(feat, t_feat, clean)
        l_obj, l_cls, l_box = distil_loss(raw.float(), target, xy, stride)
        loss = l_obj + l_cls + l_box + args.hint * (1 - 0.7 * done) * l_hint * 4
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in opt.param_groups for p in g["params"]], 10.0)
        opt.step()
        step += 1
        with torch.no_grad():
            keep = min(0.9995, 1 - 1 / (step / 8 + 1))
            a, b = list(ema.parameters()), list(net.parameters())
            torch._foreach_lerp_(a, b, 1 - keep)
            for p, q in zip(ema.buffers(), net.buffers(), strict=False):
                p.lerp_(q, 1 - keep) if p.is_floating_point() else p.copy_(q)
            sums += torch.stack([l_obj, l_cls, l_box, l_hint]).detach()
        if step in (20, 100) or step % 500 == 0:
            v = (sums / (step - seen)).tolist()
            log(f"step {step} obj {v[0]:.3f} cls {v[1]:.3f} box {v[2]:.3f} hint {v[3]:.3f}  {time.time() - t0:.0f} s")
            seen = step
            sums.zero_()
        if time.time() - t0 > next_eval:
            next_eval += pause
            m = evaluate(student_run(ema), held, args.held_out[1], device, xy, stride)
            history.append((step, *m))
            log("   averaged weights on held-out: mAP50-95 {:.4f} mAP50 {:.4f}".format(*m))
            torch.save(
                {k: v.half() if v.is_floating_point() else v for k, v in ema.state_dict().items()},
                args.out / "weights.pth",
            )
    m = evaluate(student_run(ema), held, args.held_out[1], device, xy, stride)
    log(f"student on held-out: mAP50-95 {m[0]:.4f} mAP50 {m[1]:.4f}  steps {step}, {time.time() - t0:.0f} s")
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in ema.state_dict().items()}, args.out / "weights.pth"
    )
    (args.out / "metrics.json").write_text(
        json.dumps(
            {
                "teacher": t_map,
                "student": m,
                "history": history,
                "steps": step,
                "seconds": time.time() - t0,
                "pictures": [(len(g), w) for w, g in groups],
                "args": {k: str(v) for k, v in vars(args).items()},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
