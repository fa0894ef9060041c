"""Command lines that turn a network into a TensorRT plan, check it and time it; on TensorRT 10 and 11.

    model.onnx --autocast--> fp16.onnx --trtexec--> model.plan --trtexec--> its tensors and layers

TensorRT 11 has no precision options any more: the types of the ONNX file are the types of the plan ("strongly typed").
TensorRT 10 does the same with an option. So both get the same input: NVIDIA's AutoCast first converts the ONNX file to
FP16. Its `--keep_io_types` leaves inputs and outputs as the configuration has them.

Sources: docs.nvidia.com/deeplearning/tensorrt/11.0.0/api/migration/tensorrt-10x-to-11x-trtexec.html, for 10.0
.../tensorrt-8x-to-10x-trtexec.html, samples/common/sampleOptions.cpp of github.com/NVIDIA/TensorRT (an option that is
not parsed there is an error), and for AutoCast nvidia.github.io/Model-Optimizer/guides/8_autocast.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelctl.errors import CommandError
from modelctl.models import configs
from modelctl.models.network import Shapes
from modelctl.models.spec import ModelSpec

# trtexec's options, each with the releases that get it. `--stronglyTyped` is the default on 11. The last three are the
# default on newer 11.x, which still accepts them: with them every release times the same thing.
OPTIONS: Mapping[str, tuple[int, ...]] = {
    "--onnx": (10, 11),
    "--stronglyTyped": (10,),
    "--minShapes": (10, 11),
    "--optShapes": (10, 11),
    "--maxShapes": (10, 11),
    "--profilingVerbosity": (10, 11),
    "--timingCacheFile": (10, 11),
    "--skipInference": (10, 11),
    "--saveEngine": (10, 11),
    "--loadEngine": (10, 11),
    "--shapes": (10, 11),
    "--loadInputs": (10, 11),
    "--iterations": (10, 11),
    "--warmUp": (10, 11),
    "--duration": (10, 11),
    "--dumpRawBindingsToFile": (10, 11),
    "--exportLayerInfo": (10, 11),
    "--noDataTransfers": (10, 11),
    "--useSpinWait": (10, 11),
    "--useCudaGraph": (10, 11),
}
RELEASES = sorted({release for releases in OPTIONS.values() for release in releases})

Size = Literal["min", "opt", "max"]
Profile = dict[str, dict[Size, list[int]]]  # input -> its dims, batch first


@dataclass(frozen=True)
class Files:
    """The files of one build.

    Attributes:
        samples: a folder with one item on which AutoCast runs the network, and with integers for trtexec, whose own
            random ones can be outside an embedding table; see `modelctl.plans.network`.
        integers: the names of the integer inputs.

    """

    onnx: Path
    fp16: Path
    plan: Path
    layers: Path
    timing_cache: Path
    samples: Path
    integers: tuple[str, ...]

    def integers_file(self, name: str, size: Size) -> Path:
        """Return the file of an input's integers; it is named by index, because tensor names can hold any character."""
        return self.samples / f"{self.integers.index(name)}.{size}.raw"


def release(version: str) -> int:
    """Return the release that a version such as `10.13.0` belongs to.

    Raises:
        CommandError: when OPTIONS does not have it.

    """
    major = version.partition(".")[0]
    if major not in map(str, RELEASES):
        known = " and ".join(f"{number}.x" for number in RELEASES)
        raise CommandError(
            f"TensorRT {version} is not in the table of modelctl/plans/command_lines.py, which has {known}."
        )
    return int(major)


def profile(model: ModelSpec) -> Profile:
    """Return the shapes that a plan is built for; the largest holds max_batch_size, else Triton refuses the plan.

    Raises:
        CommandError: when the spec's `network.tensorrt` does not fit its inputs.

    """
    given = model.network.tensorrt
    if given is None:
        raise CommandError(
            f"{model.name} has no network.tensorrt in its model.yaml, so it is served as ONNX: for a plan add "
            "'tensorrt: {}' below 'network:' and run modelctl render (modelctl add does so with --tensorrt)."
        )
    config = configs.network(model)
    largest = config.max_batch_size
    tuned = given.opt_batch or largest
    if tuned > largest:
        raise CommandError(f"{model.name}: network.tensorrt.opt_batch {tuned} is above max_batch_size {largest}.")
    made: Profile = {}
    for (role, tensor), entry in zip(model.network.inputs.items(), config.input, strict=True):
        shapes = _shapes(model.name, role, list(entry.dims), given.shapes.get(role))
        made[tensor.name] = {"min": [1, *shapes.min], "opt": [tuned, *shapes.opt], "max": [largest, *shapes.max]}
    return made


def _shapes(model: str, role: str, dims: list[int], given: Shapes | None) -> Shapes:
    """Return an input's shapes without the batch: those of the spec, else the configuration's fixed sizes."""
    if given is None:
        if any(size < 0 for size in dims):
            raise CommandError(
                f"{model}: the sizes of {role} are free, {dims}: network.tensorrt.shapes.{role} is needed."
            )
        return Shapes(min=dims, opt=dims, max=dims)
    for least, best, most, size in zip(given.min, given.opt, given.max, dims, strict=False):
        if not 0 < least <= best <= most or (size >= 0 and not least == most == size):
            raise CommandError(
                f"{model}: network.tensorrt.shapes.{role} must ascend and fit the configuration's {dims}."
            )
    if not len(given.min) == len(given.opt) == len(given.max) == len(dims):
        raise CommandError(f"{model}: network.tensorrt.shapes.{role} must have {len(dims)} sizes, as {dims} has.")
    return given


def convert(python: str, files: Files) -> list[str]:
    """Return the command that converts an FP32 network to FP16, but keeps the types of inputs and outputs."""
    return [
        *(python, "-m", "modelopt.onnx.autocast", f"--onnx_path={files.onnx}", f"--output_path={files.fp16}"),
        *("--low_precision_type=fp16", "--keep_io_types", f"--calibration_data={files.samples}"),
    ]


def build(trtexec: str, version: str, files: Files, shapes: Profile, precision: str) -> list[str]:
    """Return the command that builds a plan. Only with this verbosity does the plan report the types of its layers."""
    source = files.fp16 if precision == "fp16" else files.onnx
    sizes: tuple[Size, ...] = ("min", "opt", "max") if shapes else ()
    options = [
        ("--onnx", str(source)),
        ("--stronglyTyped", None),
        *((f"--{size}Shapes", _spell(shapes, size)) for size in sizes),
        ("--profilingVerbosity", "detailed"),
        ("--timingCacheFile", str(files.timing_cache)),
        ("--skipInference", None),
        ("--saveEngine", str(files.plan)),
    ]
    return [trtexec, *_options(version, options)]


def check(trtexec: str, version: str, files: Files, shapes: Profile) -> list[str]:
    """Return the command that loads a plan, runs it once at its largest, and reports its tensors and layers."""
    options = [
        ("--loadEngine", str(files.plan)),
        *_inputs(files, shapes, "max"),
        *(("--iterations", "1"), ("--warmUp", "0"), ("--duration", "0")),
        ("--dumpRawBindingsToFile", None),
        ("--exportLayerInfo", str(files.layers)),
    ]
    return [trtexec, *_options(version, options)]


def time(trtexec: str, version: str, plan: Path, files: Files, shapes: Profile) -> list[str]:
    """Return the command that times a plan alone, at the shapes it is tuned for, without copies to and from the GPU."""
    flags = ("--noDataTransfers", "--useSpinWait", "--useCudaGraph")
    options = [("--loadEngine", str(plan)), *_inputs(files, shapes, "opt"), *((flag, None) for flag in flags)]
    return [trtexec, *_options(version, options)]


def _inputs(files: Files, shapes: Profile, size: Size) -> list[tuple[str, str | None]]:
    options: list[tuple[str, str | None]] = [("--shapes", _spell(shapes, size))] if shapes else []
    if files.integers:
        given = ",".join(f"{name}:{files.integers_file(name, size)}" for name in files.integers)
        options.append(("--loadInputs", given))
    return options


def _options(version: str, options: Iterable[tuple[str, str | None]]) -> list[str]:
    number = release(version)
    given = [(name, value) for name, value in options if number in OPTIONS[name]]
    return [name if value is None else f"{name}={value}" for name, value in given]


def _spell(shapes: Profile, size: Size) -> str:
    """Return `input:1x3x224x224,other:1x128`."""
    return ",".join(f"{name}:{'x'.join(map(str, sizes[size]))}" for name, sizes in shapes.items())
