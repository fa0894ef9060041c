"""Makes the configurations of a spec's models, as protobuf messages.

    <name>              the ensemble: what callers see, and how tensors pass between the steps
    <name>_preprocess   bytes -> the network's tensors     (backends/image_preprocess, backends/text_tokenize)
    <name>_network      ONNX, or a TensorRT plan by the variant `tensorrt`
    <name>_postprocess  tensors -> the answer              (backends/*_postprocess)

Between the steps tensors are named by their role (`logits`, `input_ids`), whatever the network's file calls them.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from modelctl.errors import CommandError
from modelctl.models.spec import FILE, EnsembleSpec, ModelSpec, TensorModel
from modelctl.models.steps import DetectionPostprocess, ImagePreprocess, TextPreprocess
from modelctl.models.tasks import GEOMETRY, TASKS, Tensors

HEADER = f"# Written by `modelctl render` from {FILE}: change that and render again.\n"
LABELS, TOKENIZER = "labels.txt", "tokenizer.json"
# A step loads its files at its first call: warm-up makes that call before any client does.
CANARY_DATA, ONES_DATA = "canary", "ones"
KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}


def text(config: Any) -> bytes:
    """Return a configuration as the bytes of its file."""
    body: str = text_format.MessageToString(config, as_utf8=True, use_short_repeated_primitives=True)
    return (HEADER + body).encode()


def all_of(model: ModelSpec, folder: Path) -> dict[str, Any]:
    """Return every configuration of a spec by the model's name; `folder` holds the canary's picture."""
    if isinstance(model, TensorModel):
        return {model.name: network(model)}
    return {
        model.name: ensemble(model, folder),
        f"{model.name}_preprocess": preprocess(model),
        model.network_name: network(model),
        f"{model.name}_postprocess": postprocess(model),
    }


def variants(model: ModelSpec) -> dict[str, Any]:
    """Return the network's other configurations, each chosen by `--model-config-name`."""
    configs = {}
    if model.network.tensorrt:
        config = _for_platform(model, "tensorrt_plan", "model.plan")
        _instances(config, model.network.tensorrt.instances, "gpu")
        configs["tensorrt"] = config
    if model.network.torchscript:
        config = _for_platform(model, "pytorch_libtorch", "model.pt")
        _instances(config, model.network.instances.count, model.network.instances.kind)
        config.ClearField("model_warmup")
        configs["pytorch"] = config
    return configs


def ensemble(model: EnsembleSpec, folder: Path) -> Any:
    """Return the ensemble's configuration, which callers see."""
    task, inputs, outputs = TASKS[model.task], model.network.inputs, model.network.outputs
    config = pb.ModelConfig(name=model.name, platform="ensemble", max_batch_size=model.network.batching.max_batch_size)
    public = {name: tensor for name, tensor in task.extras.items() if name not in GEOMETRY}
    _add(config.input, task.given)
    _add(config.output, {**task.answer, **public})
    between = {tensor.name: _between(role) for role, tensor in inputs.items()}
    _step(config, f"{model.name}_preprocess", _same(task.given), _same([*between.values(), *task.extras]))
    _step(config, model.network_name, between, {tensor.name: role for role, tensor in outputs.items()})
    _step(config, f"{model.name}_postprocess", _same([*outputs, *task.carried]), _same(task.answer))
    default = "true" if model.default else None
    _parameters(config, {"task": model.task, "default": default, "canary": _canary(model, folder)})
    return config


def preprocess(model: EnsembleSpec) -> Any:
    """Return the configuration of the step before the network."""
    task, given = TASKS[model.task], model.preprocess
    config = _model(model, f"{model.name}_preprocess", task.preprocess)
    tensors = {
        _between(role): (tensor.dtype, given.dims if isinstance(given, ImagePreprocess) else [given.max_length])
        for role, tensor in model.network.inputs.items()
    }
    _add(config.input, task.given)
    _add(config.output, {**tensors, **task.extras})
    _instances(config, given.instances, "cpu")
    own = given.model_dump(exclude={"instances"}, exclude_defaults=True, exclude_none=True)
    if isinstance(given, TextPreprocess):
        own["tokenizer"] = f"{model.name}_preprocess/{TOKENIZER}"
    _parameters(config, own)
    if model.canary:
        (name,) = task.given
        warmup = config.model_warmup.add(name="canary", batch_size=1)
        warmup.inputs[name].CopyFrom(
            pb.ModelWarmup.Input(data_type=pb.TYPE_STRING, dims=[1], input_data_file=CANARY_DATA)
        )
    return config


def network(model: ModelSpec) -> Any:
    """Return the network's configuration, run by ONNX Runtime."""
    config = _model(model, model.network_name, "onnxruntime")
    _add_network_tensors(config, model)
    _instances(config, model.network.instances.count, model.network.instances.kind)
    runtime = model.network.onnxruntime
    _parameters(
        config,
        {
            "intra_op_thread_count": runtime.threads,
            "inter_op_thread_count": 1,
            "enable_mem_pattern": runtime.memory_pattern,
        },
    )
    if model.network.lint_ignore:
        reasons = [f"{code}: {reason}" for code, reason in model.network.lint_ignore.items()]
        _parameters(config, {"lint_ignore": "; ".join(reasons)})
    if not any(size < 0 for tensor in config.input for size in tensor.dims):
        _warm_network(config, text=_takes_text(model))
    return config


def postprocess(model: EnsembleSpec) -> Any:
    """Return the configuration of the step after the network."""
    task, given = TASKS[model.task], model.postprocess
    config = _model(model, f"{model.name}_postprocess", task.postprocess)
    outputs = {role: (tensor.dtype, tensor.dims or []) for role, tensor in model.network.outputs.items()}
    _add(config.input, {**outputs, **task.carried})
    _add(config.output, task.answer)
    _instances(config, given.instances, "cpu")
    # False is the default of every key but `nms`, whose default depends on the decoder.
    own = {
        name: value
        for name, value in given.model_dump(exclude={"instances"}).items()
        if name == "nms" or (value is not False and value != {})
    }
    if isinstance(given, DetectionPostprocess) and isinstance(model.preprocess, ImagePreprocess):
        own |= {"width": model.preprocess.width, "height": model.preprocess.height}
    _parameters(config, {"labels": f"{model.network_name}/{LABELS}", **own})
    return config


def warmup_data(model: ModelSpec, folder: Path) -> dict[str, bytes]:
    """Return the warm-up inputs by path in the repository: raw numbers, or a string after its length (uint32)."""
    files = {}
    if not isinstance(model, TensorModel) and model.canary is not None:
        data = _canary_bytes(model, folder)
        files[f"{model.name}_preprocess/warmup/{CANARY_DATA}"] = struct.pack("<I", len(data)) + data
    for tensor in network(model).input:
        if _takes_text(model):
            ones = np.ones(_input_dims(model), np.int32 if tensor.data_type == pb.TYPE_INT32 else np.int64)
            files[f"{model.network_name}/warmup/{ONES_DATA}"] = ones.tobytes()
    return files


def _warm_network(config: Any, *, text: bool) -> None:
    """Make Triton run the network once at load: on zeros, or for texts on ones, because a text needs some token."""
    warmup = config.model_warmup.add(name=ONES_DATA if text else "zeros", batch_size=1)
    for tensor in config.input:
        given = pb.ModelWarmup.Input(data_type=tensor.data_type, dims=tensor.dims)
        if text:
            given.input_data_file = ONES_DATA
        else:
            given.zero_data = True
        warmup.inputs[tensor.name].CopyFrom(given)


def _model(model: ModelSpec, name: str, backend: str) -> Any:
    """Return the part that the steps and the network have in common."""
    batching = model.network.batching
    config = pb.ModelConfig(name=name, backend=backend, max_batch_size=batching.max_batch_size)
    if not batching.max_batch_size:
        return config  # Triton cuts nothing: dims hold every axis
    config.dynamic_batching.SetInParent()
    if name == model.network_name and batching.queue_delay_us:
        config.dynamic_batching.max_queue_delay_microseconds = batching.queue_delay_us
    if batching.max_queue_size:
        config.dynamic_batching.default_queue_policy.max_queue_size = batching.max_queue_size
    return config


def _for_platform(model: ModelSpec, platform: str, file: str) -> Any:
    """Return the network's configuration for another platform, without instances and ONNX Runtime's parameters."""
    config = network(model)
    for field in ("backend", "parameters", "instance_group"):
        config.ClearField(field)
    config.platform, config.default_model_filename = platform, file
    return config


def _add_network_tensors(config: Any, model: ModelSpec) -> None:
    inputs, outputs = model.network.inputs.values(), model.network.outputs.values()
    _add(config.input, {tensor.name: (tensor.dtype, tensor.dims or _input_dims(model)) for tensor in inputs})
    _add(config.output, {tensor.name: (tensor.dtype, tensor.dims or []) for tensor in outputs})
    # A detector's logits belong to its queries; a tensor model has no labels, whatever its outputs are called.
    if (
        not isinstance(model, TensorModel)
        and "logits" in model.network.outputs
        and "boxes" not in model.network.outputs
    ):
        config.output[0].label_filename = LABELS  # for Triton's classification extension


def _input_dims(model: ModelSpec) -> list[int]:
    if isinstance(model, TensorModel):
        return []
    return model.preprocess.dims if isinstance(model.preprocess, ImagePreprocess) else [model.preprocess.max_length]


def _takes_text(model: ModelSpec) -> bool:
    return not isinstance(model, TensorModel) and TASKS[model.task].input == "text"


def _between(role: str) -> str:
    """Return the name of a network's input between the steps; `image` itself is the picture that callers send."""
    return "tensor" if role == "image" else role


def _same(names: Any) -> dict[str, str]:
    return {name: name for name in names}


def _add(field: Any, tensors: Tensors) -> None:
    for name, (data_type, dims) in tensors.items():
        field.add(name=name, data_type=pb.DataType.Value(f"TYPE_{data_type}"), dims=dims)


def _step(config: Any, name: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    config.ensemble_scheduling.step.add(model_name=name, model_version=-1, input_map=inputs, output_map=outputs)


def _instances(config: Any, count: int, kind: str) -> None:
    config.instance_group.add(count=count, kind=pb.ModelInstanceGroup.Kind.Value(KINDS[kind]))


def _parameters(config: Any, values: Mapping[str, object]) -> None:
    """Set the parameters that are not None; Triton keeps them as text."""
    for name, value in values.items():
        if value is not None:
            config.parameters[name].string_value = _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _canary(model: EnsembleSpec, folder: Path) -> str | None:
    if model.canary is None:
        return None
    data = _canary_bytes(model, folder)
    given = {"text": model.canary.text} if model.canary.text else {"image": base64.b64encode(data).decode()}
    return json.dumps({**given, **({"label": model.canary.label} if model.canary.label else {})}, ensure_ascii=False)


def _canary_bytes(model: EnsembleSpec, folder: Path) -> bytes:
    assert model.canary is not None  # noqa: S101 - callers check it
    if model.canary.text is not None:
        return model.canary.text.encode()
    path = folder / str(model.canary.image)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"The canary {path} cannot be read: {error.strerror}.") from error
