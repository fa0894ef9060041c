"""Rules about one config by itself: tensors, instances, warm-up and the response cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from modelctl.lint.repository import Model
from modelctl.lint.rule import CONFIGURATION, MEASURED, Finding, Rule

PLATFORMS = (
    *("ensemble", "tensorrt_plan", "onnxruntime_onnx", "pytorch_libtorch", "tensorflow_graphdef"),
    "tensorflow_savedmodel",
)
TYPE_INVALID, TYPE_STRING = 0, 13
KIND_GPU, KIND_CPU = 1, 2

NO_BACKEND = Rule(
    code="TG010",
    title="No backend runs the model",
    severity="error",
    evidence="refuses",
    why="Triton takes the backend from `backend`, or from one of the few names that `platform` may have, or from a "
    "file such as model.onnx.",
    fix='Write `backend`, such as `backend: "onnxruntime"`, or `platform: "ensemble"`.',
    source=f"{CONFIGURATION}#name-platform-and-backend",
)
TENSOR = Rule(
    code="TG011",
    title="A tensor is not described",
    severity="error",
    evidence="refuses",
    why="Every input and output needs a name, a data type and dims; a size in dims is 1 or more, or -1 for any size.",
    fix="Write all three; for a single number per item write `dims: [1]`.",
    source=f"{CONFIGURATION}#inputs-and-outputs",
)
TWICE = Rule(
    code="TG012",
    title="Two tensors have one name",
    severity="error",
    evidence="serves wrongly",
    why="Triton loads the model and then refuses every request, because it counts two inputs and gets one.",
    fix="Remove one, or rename it.",
    source=MEASURED,
)
NEGATIVE_BATCH = Rule(
    code="TG013",
    title="max_batch_size is negative",
    severity="error",
    evidence="refuses",
    why="It is the number of items in a batch, or 0 for a model whose dims hold the batch themselves.",
    fix="Write 0 or more.",
    source=f"{CONFIGURATION}#maximum-batch-size",
)
RESHAPE = Rule(
    code="TG014",
    title="A reshape changes the number of elements",
    severity="error",
    evidence="refuses",
    why="`reshape` gives the same elements another shape; it cannot add or drop any.",
    fix="Make the products of `reshape.shape` and `dims` equal.",
    source=f"{CONFIGURATION}#reshape",
)
CACHE = Rule(
    code="TG015",
    title="The response cache ignores request parameters",
    severity="warning",
    evidence="serves wrongly",
    why="Triton makes the cache key from the inputs alone: a request with other parameters gets the cached answer.",
    fix="Switch the cache off, or pass options as input tensors; if no caller sends parameters, say so in lint_ignore.",
    source=MEASURED,
)
EMPTY_WARMUP = Rule(
    code="TG016",
    title="The warm-up sends empty strings",
    severity="warning",
    evidence="serves wrongly",
    why="For TYPE_STRING both random_data and zero_data are b'': the model warms up on unrealistic input, or fails "
    "on it.",
    fix="Use `input_data_file` with a real input, in the folder `warmup`.",
    source=MEASURED,
)
NO_WARMUP = Rule(
    code="TG017",
    title="The warm-up never runs",
    severity="warning",
    evidence="serves wrongly",
    why="A sample without batch_size has batch size 0, which Triton skips silently, even where max_batch_size is 0.",
    fix="Write `batch_size: 1`.",
    source=MEASURED,
)
WARMUP = Rule(
    code="TG018",
    title="The warm-up does not fit the model",
    severity="error",
    evidence="refuses",
    why="A sample is a request: it needs every input, the config's types and sizes, at most max_batch_size items, "
    "and its file.",
    fix="Correct the sample.",
    source=f"{CONFIGURATION}#model-warmup",
)
CPU_WITH_GPUS = Rule(
    code="TG019",
    title="CPU instances name GPUs",
    severity="error",
    evidence="refuses",
    why="`gpus` is allowed only with KIND_GPU and KIND_AUTO.",
    fix="Remove `gpus`, or change `kind`.",
    source=f"{CONFIGURATION}#instance-groups",
)
WARMUP_BATCH = Rule(
    code="TG021",
    title="A warm-up's batch is too large",
    severity="error",
    evidence="refuses",
    why="The sample's batch_size is above max_batch_size. Triton refuses the model, or, about every second time, "
    "crashes with a segmentation fault.",
    fix="Lower batch_size; it is 1 where max_batch_size is 0.",
    source=MEASURED,
)
TWO_DEFAULTS = Rule(
    code="TG022",
    title="A task has two default models",
    severity="error",
    evidence="documented",
    why="The gateway answers a request that names no model by the model of its `task` whose parameter `default` is "
    "true. With two of them it uses the one that it read first, and /readyz answers 503.",
    fix='Keep `default` "true" in only one of them.',
    source="docs/models.md; app/triton/canary.py",
)
RULES = (
    *(NO_BACKEND, TENSOR, TWICE, NEGATIVE_BATCH, RESHAPE, CACHE, EMPTY_WARMUP, NO_WARMUP, WARMUP),
    *(CPU_WITH_GPUS, WARMUP_BATCH, TWO_DEFAULTS),
)


def check(model: Model) -> Iterator[Finding]:
    """Check one model's config."""
    message = model.message
    is_ensemble = message.HasField("ensemble_scheduling")  # rules/ensemble.py says when its platform is wrong
    known = message.platform in PLATFORMS if message.platform else model.backend  # a file's name gives the backend too
    if not message.backend and not is_ensemble and not known:
        said = f"the platform '{message.platform}' is unknown" if message.platform else "neither is written"
        yield model.finding(NO_BACKEND, f"Neither backend nor platform names a backend: {said}.", "platform")
    if message.max_batch_size < 0:
        yield model.finding(NEGATIVE_BATCH, f"max_batch_size is {message.max_batch_size}.", "max_batch_size")
    if message.response_cache.enable:
        yield model.finding(CACHE, "Answers are cached whatever the parameters of a request.", "response_cache")
    for kind in ("input", "output"):
        yield from _tensors(model, kind)
    rivals = [other.name for other in model.repository.models.values() if other is not model and _share(model, other)]
    if rivals:
        sentence = f"'{min(rivals)}' is the default of the task '{model.parameter('task')}' too."
        yield model.finding(TWO_DEFAULTS, sentence, 'parameters["default"]')
    for index, group in enumerate(message.instance_group):
        if group.kind == KIND_CPU and group.gpus:
            field = f"instance_group[{index}].gpus"
            yield model.finding(CPU_WITH_GPUS, f"KIND_CPU with gpus {list(group.gpus)}.", field)
    for index, sample in enumerate(message.model_warmup if not is_ensemble else ()):
        yield from _warmup(model, sample, f"model_warmup[{index}]")


def _share(one: Model, other: Model) -> bool:
    """Tell whether both are the default of one task."""
    is_default = all(model.parameter("default").lower() == "true" for model in (one, other))
    return is_default and one.parameter("task") == other.parameter("task") != ""


def _tensors(model: Model, kind: str) -> Iterator[Finding]:
    entries = getattr(model.message, kind)
    for index, entry in enumerate(entries):
        field, called = f"{kind}[{index}]", f"The {kind} '{entry.name}'"
        if not entry.name:
            yield model.finding(TENSOR, f"The {kind} number {index + 1} has no name.", field)
        if entry.data_type == TYPE_INVALID:
            yield model.finding(TENSOR, f"{called} has no data_type.", field)
        if not entry.dims:
            yield model.finding(TENSOR, f"{called} has no dims.", field)
        if any(size < 1 and size != -1 for size in entry.dims):
            yield model.finding(TENSOR, f"{called} has the dims {list(entry.dims)}.", f"{field}.dims")
        if _reshapes_wrongly(entry):
            sentence = f"{called} has {prod(entry.dims)} elements, its reshape {prod(entry.reshape.shape)}."
            yield model.finding(RESHAPE, sentence, f"{field}.reshape")
    names = Counter(entry.name for entry in entries if entry.name)
    for name in (name for name, count in names.items() if count > 1):
        index = max(index for index, entry in enumerate(entries) if entry.name == name)
        yield model.finding(TWICE, f"There are {names[name]} {kind}s called '{name}'.", f"{kind}[{index}]")


def _reshapes_wrongly(entry: Any) -> bool:
    sizes = (*entry.dims, *entry.reshape.shape)
    fixed = entry.HasField("reshape") and entry.dims and all(size > 0 for size in sizes)
    return bool(fixed and prod(entry.dims) != prod(entry.reshape.shape))


def _warmup(model: Model, sample: Any, field: str) -> Iterator[Finding]:
    if not sample.batch_size:
        yield model.finding(NO_WARMUP, f"The sample '{sample.name}' has no batch_size.", field)
        return
    inputs = {entry.name: entry for entry in model.message.input}
    if sample.batch_size > max(model.message.max_batch_size, 1):
        sentence = f"The sample has {sample.batch_size} items, max_batch_size is {model.message.max_batch_size}."
        yield model.finding(WARMUP_BATCH, sentence, f"{field}.batch_size")
    for name in sorted(set(sample.inputs) ^ {name for name, entry in inputs.items() if not entry.optional}):
        said = "is not an input of the model" if name in sample.inputs else "is missing in the sample"
        if (name not in inputs or name not in sample.inputs) and not model.is_completed("input"):
            yield model.finding(WARMUP, f"'{name}' {said}.", f"{field}.inputs")
    for name in sorted(set(sample.inputs) & set(inputs)):
        yield from _sample(model, sample.inputs[name], inputs[name], f'{field}.inputs["{name}"]')


def _sample(model: Model, given: Any, wanted: Any, field: str) -> Iterator[Finding]:
    """Check what a warm-up sends for one input."""
    if given.data_type != wanted.data_type or _differ(given.dims, wanted.dims):
        yield model.finding(WARMUP, f"'{wanted.name}' has another data type or other dims than the input.", field)
    if given.data_type == TYPE_STRING and (given.random_data or given.zero_data):
        yield model.finding(EMPTY_WARMUP, f"'{wanted.name}' is an empty string.", field)
    if given.input_data_file and not (model.folder / "warmup" / given.input_data_file).is_file():
        yield model.finding(WARMUP, f"There is no file warmup/{given.input_data_file}.", field)


def _differ(given: Any, wanted: Any) -> bool:
    return len(given) != len(wanted) or any(b not in (-1, a) for a, b in zip(given, wanted, strict=True))
