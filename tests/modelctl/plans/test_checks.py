"""The description of a TensorRT plan by releases 10 and 11, and its comparison with the configuration.

The samples follow trtexec's sources and NVIDIA's documentation (`modelctl.plans.checks` names them); none was
made on a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from modelctl.plans.checks import Facts, Tensor, facts, faults, performance

OUTPUT = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v101300] [b35] # trtexec --loadEngine=model.plan
[I] Dumping I/O Bindings to RAW Files:
[I] Writing file for input binding input (with datatype fp32 and dimensions 8.3.224.224) to input.raw
[I] Writing file for output binding a b/output:0 (with datatype int64 and dimensions 8.1000) to o.raw
[I] Writing file for output binding scalar (with datatype fp16 and dimensions ) to s.raw
&&&& PASSED TensorRT.trtexec [TensorRT v101300] [b35] # trtexec --loadEngine=model.plan
"""
# TensorRT 10 with a free batch: only weights and kernels tell a type.
FREE_10 = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to Conv_0",
            "LayerType": "Reformat",
            "Outputs": [{"Name": "r", "Dimensions": [-1, 3, 224, 224], "Format/Datatype": "N/A due to dynamic shapes"}],
            "TacticValue": "0x00000000000003e8",
        },
        {
            "Name": "Conv_0 + Relu_0",
            "LayerType": "CaskConvolution",
            "Outputs": [
                {"Name": "c", "Dimensions": [-1, 32, 112, 112], "Format/Datatype": "N/A due to dynamic shapes"}
            ],
            "Weights": {"Type": "Half", "Count": 864},
            "TacticName": "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x64",
        },
    ],
    "Bindings": ["input", "output"],
}
# Without layers of convolution; the transformer's are made by another compiler, which names kernels or outputs.
GEMM_10 = {
    "Layers": [
        {
            "Name": "__myl_Fc_0",
            "LayerType": "gemm",
            "TacticName": "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64",
        },
        {"Name": "__myl_Add_1", "LayerType": "kgen", "Outputs": [{"Name": "s", "Format/Datatype": "Half"}]},
        {"Name": "__myl_Cast_2", "LayerType": "kgen", "Outputs": [{"Name": "t", "Format/Datatype": "Float"}]},
    ],
    "Bindings": ["input_ids", "logits"],
}
SINGLE_11 = {
    "Layers": [
        {
            "Name": "Conv_0",
            "LayerType": "CaskConvolution",
            "Outputs": [{"Name": "c", "Format": "Row major linear", "Datatype": "Float"}],
            "TacticName": "sm90_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc",
        }
    ],
    "I/O Tensors": [{"Name": "input", "IOMode": "Input", "DataType": "Float", "Dimensions": [-1, 3, 224, 224]}],
}


def test_tensors_are_read_from_the_output() -> None:
    """Names may contain any character, types have Triton's names, dims are those of the run."""
    assert facts(OUTPUT, {}).tensors == {
        "input": Tensor("input", "FP32", [8, 3, 224, 224]),
        "a b/output:0": Tensor("output", "INT64", [8, 1000]),
        "scalar": Tensor("output", "FP16", []),
    }


@pytest.mark.parametrize(
    ("layers", "counts", "precision"),
    [
        (FREE_10, {"fp16": 1}, "fp16"),
        (GEMM_10, {"fp16": 2, "fp32": 1}, "fp16"),
        (SINGLE_11, {"fp32": 1}, "fp32"),
        ({"Layers": ["Conv_0", "Relu_0"]}, {"untold": 2}, ""),
        ({"Layers": [{"Name": "a", "TacticName": "sm90_gemm_bf16bf16_bf16f32_f32"}]}, {"fp32": 1}, "fp32"),
        (
            {"Layers": [{"Name": "a", "TacticName": "ampere_h16816gemm_128x64_ldg8_stages_64x3_nn_v1"}]},
            {"fp16": 1},
            "fp16",
        ),
        (
            {"Layers": [{"Name": "a", "Outputs": [{"Format/Datatype": "Channel major FP16 format"}]}]},
            {"fp16": 1},
            "fp16",
        ),
        ({"Layers": [{"Name": "a", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]}]}, {"fp32": 1}, "fp32"),
        ({}, {}, ""),
    ],
)
def test_the_real_precision_is_that_of_the_layers(
    layers: dict[str, Any], counts: dict[str, int], precision: str
) -> None:
    """Weights decide first, then the kernel, then outputs; layers that only move data do not count."""
    told = facts("", layers)
    assert (told.layers, told.precision) == (counts, precision)


def config() -> Any:
    """Return a configuration with one input and one output, one size of it free."""
    made = pb.ModelConfig(name="n", max_batch_size=8)
    made.input.add(name="input", data_type=pb.TYPE_FP32, dims=[3, 224, 224])
    made.output.add(name="output", data_type=pb.TYPE_FP32, dims=[-1, 4])
    return made


GOOD = {"input": Tensor("input", "FP32", [8, 3, 224, 224]), "output": Tensor("output", "FP32", [8, 7, 4])}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"more": Tensor("output", "FP32", [8, 2])}, []),
        ({"output": Tensor("output", "FP32", [8, -1, 4])}, []),
        ({"output": Tensor("output", "FP16", [8, 7, 4])}, ["output output is FP16 in the plan and FP32"]),
        ({"input": Tensor("input", "FP32", [4, 3, 224, 224])}, ["input input is [4, 3, 224, 224] in the plan"]),
        ({"output": Tensor("output", "FP32", [8, 7])}, ["output output is [8, 7] in the plan at its largest"]),
        ({"output": Tensor("input", "FP32", [8, 7, 4])}, ["no output output", "has an input output"]),
        ({"extra": Tensor("input", "INT64", [8, 1])}, ["has an input extra that the configuration lacks"]),
    ],
)
def test_faults_name_the_tensor(changes: dict[str, Tensor], expected: list[str]) -> None:
    """A full batch must fit; free sizes of the configuration may be anything; outputs may be unused."""
    found = faults(Facts({**GOOD, **changes}, {"fp16": 3}), config(), "fp16")
    assert len(found) == len(expected)
    for sentence, part in zip(found, expected, strict=True):
        assert part in sentence


def test_a_missing_tensor_is_a_fault() -> None:
    """A plan without any described tensor cannot pass."""
    found = faults(Facts({}, {"fp16": 1}), config(), "fp16")
    assert found == ["the plan has no input input", "the plan has no output output"]


@pytest.mark.parametrize(
    ("layers", "precision"), [({"fp32": 9, "fp16": 1}, "fp16"), ({"fp16": 2}, "fp32"), ({}, "fp16")]
)
def test_another_precision_is_a_fault(layers: dict[str, int], precision: str) -> None:
    """TensorRT 11 once silently made FP32 plans when FP16 was requested."""
    (sentence,) = faults(Facts(GOOD, layers), config(), precision)
    assert f"model.yaml asks for {precision}" in sentence


def test_facts_survive_a_file() -> None:
    """The record beside a plan is read back unchanged."""
    told = facts(OUTPUT, FREE_10)
    assert Facts.from_json(told.json()) == told


def test_performance_is_read_from_the_summary() -> None:
    """Totals are left out, because they depend on the duration of the run."""
    output = (
        "[I] === Performance summary ===\n[I] Throughput: 258.892 qps\n[I] Latency: min = 1.9 ms, max = 6.8 ms\n"
        "[I] H2D Latency: min = 0 ms\n[I] GPU Compute Time: min = 1.7 ms\n[I] Total GPU Compute Time: 3.01 s\n"
    )
    assert performance(output) == {
        "Throughput": "258.892 qps",
        "Latency": "min = 1.9 ms, max = 6.8 ms",
        "GPU Compute Time": "min = 1.7 ms",
    }
