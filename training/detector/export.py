"""Export the detector to ONNX (float16-stored weights) and measure it beside its teacher.

    python -m training.detector.export --out OUT [--weights FILE] [--photos IMAGES --labels LABELS
        [--teacher yolox_nano.onnx] [--int8 CALIBRATION]]

The weights come from `train.py` (.pth) or, by default, from the served network, whose file is then written again.
Without --photos nothing is measured.

Input images: UINT8 [N, 416, 416, 3], RGB, fitted top left on grey 114; ImageNet's mean and deviation are folded in.
What is measured is model_fp16.onnx, the same before folding.
Output: FP32 [N, 3549, 85] = cx, cy, w, h (input pixels), objectness, 80 class probabilities.
"""

import argparse
import contextlib
import io
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from modelctl.graphs.folding import Recipe, fold
from training.detector.evaluation import detections, mean_ap
from training.detector.network import MEAN, STD, Detector, Exported, grid
from training.detector.pictures import files, letterbox, read_boxes
from training.onnx_store import half_weights, read_weights

SERVED = Path("models/lite_detector_network/1/model.onnx")
M, S = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))


def load(weights):
    """Return the inference form with the weights of a served .onnx file or of a state dict (.pth)."""
    if weights.suffix == ".onnx":  # batch norm is folded already
        net = Exported(Detector())
        net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in read_weights(onnx.load(weights)).items()})
        return net
    net, state = Detector(), torch.load(weights, map_location="cpu")
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return Exported(net)


def export(weights, path):
    """Write the float32 network."""
    torch.onnx.export(
        load(weights),
        (torch.randn(2, 3, 416, 416),),
        str(path),
        input_names=["images"],
        output_names=["output"],
        dynamic_axes={"images": {0: "N"}, "output": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )


def halved(fp32):
    """Return the network with float16-stored weights, from the float32 file."""
    model = half_weights(onnx.load(str(fp32)))
    for dim, n in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], (3549, 85), strict=False):
        dim.dim_value = n  # the exporter leaves these sizes open
    return model


def served(fp32):
    """Return the network that is served, from the float32 file: it takes pixels."""
    return fold(halved(fp32), "images", Recipe(mean=MEAN, std=STD))


def session(path, threads=1):
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    return ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])


def student(path, threads=2):
    """Runner of our network: RGB pictures [N, 3, S, S] in 0..255 -> decoded output [N, A, 85]."""
    s = session(path, threads)
    return lambda x: s.run(None, {"images": ((x / 255 - M) / S).astype(np.float32)})[0]


def teacher(path):
    """Runner of a YOLOX file, which takes BGR in 0..255 with batch 1 and gives encoded boxes."""
    s = session(path, 2)
    xy, stride = (t.numpy() for t in grid())

    def run(x):
        out = np.concatenate([s.run(None, {s.get_inputs()[0].name: p[None, ::-1].astype(np.float32)})[0] for p in x])
        out[..., :2] = (out[..., :2] + xy) * stride
        out[..., 2:4] = np.exp(out[..., 2:4]) * stride
        return out

    return run


def measure(run, photos, labels):
    """(mAP50-95, mAP50) of a runner by our evaluator, and `coco_ap` of the same outputs."""
    found, truth = [], []
    for p in photos:
        pic, scale, size = letterbox(p)
        found.append(detections(run(pic.transpose(2, 0, 1)[None].astype(np.float32))[0], scale, size))
        truth.append(read_boxes(labels, p, size))
    return mean_ap(found, truth), coco_ap(found, truth)


def coco_ap(found, truth):
    """AP, AP50, AP75, small, medium, large by pycocotools; None where it is not installed."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:  # optional
        return None

    def rows(photo, classes, boxes):
        wh = boxes[:, 2:] - boxes[:, :2]
        return [
            {"image_id": photo, "category_id": int(c), "bbox": [*map(float, b[:2]), *map(float, s)]}
            for c, b, s in zip(classes, boxes, wh, strict=True)
        ]

    anns = [r for n, t in enumerate(truth) for r in rows(n, t[:, 0], t[:, 1:])]
    dets = [
        r | {"score": float(s)}
        for n, f in enumerate(found)
        for r, s in zip(rows(n, f[:, 0], f[:, 2:]), f[:, 1], strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        g = COCO()
        g.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(len(truth))],
            "categories": [{"id": c} for c in range(80)],
            "annotations": [
                a | {"id": k + 1, "area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0} for k, a in enumerate(anns)
            ],
        }
        g.createIndex()
        e = COCOeval(g, g.loadRes(dets), "bbox")
        e.evaluate(), e.accumulate(), e.summarize()
    return e.stats[:6].round(4).tolist()


def quantise(src, dst, photos):
    """Static int8 (QDQ) of all convolutions except the last ones."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.it = iter(photos)

        def get_next(self):
            p = next(self.it, None)
            return (
                None
                if p is None
                else {"images": ((letterbox(p)[0].transpose(2, 0, 1)[None] / 255 - M) / S).astype(np.float32)}
            )

    ready = str(dst) + ".pre"
    quant_pre_process(str(src), ready, skip_symbolic_shape=True)
    convs = [
        n.name
        for n in onnx.load(ready).graph.node
        if n.op_type == "Conv" and not any(k in n.name for k in ("/cls.", "/reg."))
    ]
    quantize_static(
        ready,
        str(dst),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        nodes_to_quantize=convs,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )
    Path(ready).unlink()


def latency(path, batch, seconds=4.0):
    """Median milliseconds of one call, one thread."""
    s = session(path)
    i = s.get_inputs()[0]
    x = {i.name: np.random.default_rng(0).standard_normal((batch, 3, 416, 416), np.float32)}
    s.run(None, x)
    t, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(t) < 5:
        a = time.perf_counter()
        s.run(None, x)
        t.append(time.perf_counter() - a)
    return float(np.median(t)) * 1e3


def report(rows, photos, labels):
    """Print size, accuracy and latency of each (name, file, maker of a runner)."""
    for name, path, make in rows:
        own, coco = measure(make(path), photos, labels)
        ms = [f"batch {b} {latency(path, b):.1f} ms" for b in ((1,) if name == "teacher" else (1, 4))]
        print(
            f"{name:12s} {path.stat().st_size / 1e6:6.2f} MB  own mAP50-95 {own[0]:.4f} mAP50 {own[1]:.4f}  "
            f"pycocotools {coco}  {', '.join(ms)}",
            flush=True,
        )


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--weights", type=Path, default=SERVED, help=f"a served network or a state dict ({SERVED})")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--photos", type=Path, help="held-out photos to measure with; needs --labels")
    ap.add_argument("--labels", type=Path)
    ap.add_argument("--work", type=Path, help="folder for files that are not delivered (default: --out)")
    ap.add_argument("--teacher", type=Path)
    ap.add_argument("--int8", type=Path, help="photos to calibrate int8 with; not the held-out ones")
    args = ap.parse_args()
    if bool(args.photos) != bool(args.labels):
        ap.error("--photos and --labels go together")
    work = args.work or args.out
    args.out.mkdir(parents=True, exist_ok=True)
    fp32, stored = work / "model_fp32.onnx", work / "model_fp16.onnx"
    export(args.weights, fp32)
    onnx.save(halved(fp32), str(stored))
    onnx.save(served(fp32), str(args.out / "model.onnx"))
    rows = [("fp32", fp32, student), ("fp16-stored", stored, student)]
    if args.int8:
        quantise(fp32, work / "model_int8.onnx", files(args.int8)[:200])
        rows.append(("int8", work / "model_int8.onnx", student))
    if args.teacher:
        rows.append(("teacher", args.teacher, teacher))
    if args.photos:
        report(rows, files(args.photos), args.labels)


if __name__ == "__main__":
    main()
