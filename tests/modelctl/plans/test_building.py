"""`modelctl plan`: command lines, cache, and plans that differ from the configuration.

There is no TensorRT here. Programs that know exactly the options of a release stand in for trtexec and AutoCast
(tests/standins). What real ones answer is in test_engine.py.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelctl import __main__
from modelctl.errors import CommandError
from modelctl.graphs.trim import trim_to_longest
from modelctl.models import rendering
from modelctl.plans import choice, command_lines

ROOT = Path(__file__).resolve().parents[3]
STANDINS = ROOT / "tests" / "standins"
PICTURES = """\
name: pictures
task: none
source: {origin: a test}
network:
  inputs: {image: {name: x, dtype: FP32, dims: [3, 4, 4]}}
  outputs: {scores: {name: y, dtype: FP32, dims: [3, 4, 4]}}
  batching: {max_batch_size: 32}
  tensorrt: {precision: fp16, opt_batch: 8}
"""
TEXTS = """\
name: texts
task: text-classification
source: {origin: a test}
preprocess: {max_length: 12}
network:
  inputs:
    input_ids: {name: input_ids, dtype: INT64}
    attention_mask: {name: attention_mask, dtype: INT64}
  outputs: {logits: {name: logits, dtype: FP32, dims: [4]}}
  tensorrt: {precision: fp32}
"""
Run = Callable[..., tuple[int, str, str]]


def picture_network() -> onnx.ModelProto:
    """Return x [N,3,4,4] -> y = 2 x."""
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 4, 4]) for name in "xy"]
    two = numpy_helper.from_array(np.array([2], np.float32), "two")
    graph = helper.make_graph([node], "pictures", tensors[:1], tensors[1:], [two])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def text_network() -> onnx.ModelProto:
    """Return the mean of a table's rows over real tokens, trimmed of its padding."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "two"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceMean", ["kept"], ["logits"], axes=[1], keepdims=0),
    ]
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "L"]) for name in names]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])]
    constants = [
        numpy_helper.from_array(np.zeros((30, 4), np.float32), "table"),
        numpy_helper.from_array(np.array([2], np.int64), "two"),
    ]
    graph = helper.make_graph(nodes, "texts", inputs, outputs, constants)
    return trim_to_longest(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a model repository and stand-ins for TensorRT 10.13, AutoCast and a GPU."""
    for name, text, network in (
        ("pictures", PICTURES, picture_network()),
        ("texts_network", "", text_network()),
        ("texts", TEXTS, None),
    ):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        if text:
            (tmp_path / "models" / name / "model.yaml").write_text(text)
        if network:
            onnx.save(network, tmp_path / "models" / name / "1" / "model.onnx")
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    install(tmp_path, monkeypatch, "10.13.0")
    return tmp_path


def install(house: Path, monkeypatch: pytest.MonkeyPatch, version: str, capability: str = "9.0") -> None:
    """Install this TensorRT and this GPU there."""
    release = version.partition(".")[0]
    monkeypatch.setattr(choice, "_tensorrt_version", lambda: version)
    smi = f'case "$1" in *compute_cap*) echo {capability} ;; *) echo "NVIDIA H100 80GB" ;; esac'
    python = shlex.quote(sys.executable)
    for name, line in (
        ("trtexec", f'exec {python} {STANDINS / "trtexec.py"} {release} "$@"'),
        ("python", f'exec {python} {STANDINS / "autocast.py"} "$@"'),
        ("nvidia-smi", smi),
    ):
        path = house / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)


@pytest.fixture
def run(house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        options = [f"--models={house}/models", f"--cache={house}/cache", f"--modelopt-python={house}/bin/python"]
        monkeypatch.setattr(sys, "argv", ["modelctl", "plan", *arguments, *options])
        code = __main__.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def calls(house: Path) -> list[str]:
    """Return the commands that ran, and forget them; paths are relative to the folder."""
    log = house / "calls.txt"
    lines = log.read_text().replace(f"{house}/", "").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def served(house: Path, network: str = "pictures") -> Path:
    """Return the place of a network's plan."""
    return house / "models" / network / "1" / "model.plan"


PLAN = "models/pictures/1/model.plan"
CONVERT = (
    "-m modelopt.onnx.autocast --onnx_path=models/pictures/1/model.onnx --output_path=cache/build/pictures/fp16.onnx "
    "--low_precision_type=fp16 --keep_io_types --calibration_data=cache/build/pictures/samples"
)
SHAPES = "--minShapes=x:1x3x4x4 --optShapes=x:8x3x4x4 --maxShapes=x:32x3x4x4"
BUILD = {
    version: f"trtexec --onnx=cache/build/pictures/fp16.onnx {typed}{SHAPES} --profilingVerbosity=detailed "
    f"--timingCacheFile=cache/timing-{version}-NVIDIA-H100-80GB.cache --skipInference "
    "--saveEngine=cache/build/pictures/model.plan"
    for version, typed in (("10.13.0", "--stronglyTyped "), ("11.0.0", ""))
}
CHECK = (
    "trtexec --loadEngine=cache/build/pictures/model.plan --shapes=x:32x3x4x4 --iterations=1 --warmUp=0 --duration=0 "
    "--dumpRawBindingsToFile --exportLayerInfo=cache/build/pictures/layers.json"
)
TIME = f"trtexec --loadEngine={PLAN} --shapes=x:8x3x4x4 --noDataTransfers --useSpinWait --useCudaGraph"


@pytest.mark.parametrize("version", ["10.13.0", "11.0.0"])
def test_the_lines_are_exact_and_known_to_the_release(
    house: Path, run: Run, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """A dry run prints the lines that run; a trtexec with only its release's options accepts all of them."""
    install(house, monkeypatch, version)
    expected = [f"python {CONVERT}", BUILD[version], CHECK, TIME]
    code, out, _ = run("pictures", "--dry-run", "--time")
    printed = out.replace(f"{house}/bin/", "").replace(f"{house}/", "").splitlines()
    assert (code, calls(house)) == (0, [])
    assert printed == [f"# TensorRT {version}: pictures, fp16", *expected]
    assert not (house / "cache").exists()
    assert run("pictures", "--time")[0] == 0
    assert calls(house) == expected


def test_a_dry_run_needs_no_tensorrt(house: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TensorRT and GPU it prints the lines of 10 and 11, or those of the requested release."""
    monkeypatch.setattr(choice, "_tensorrt_version", lambda: "")
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, _ = run("--dry-run")
    heads = [line for line in out.splitlines() if line.startswith("# TensorRT")]
    assert code == 0
    assert heads == [
        f"# TensorRT {release}: {name}" for release in (10, 11) for name in ("pictures, fp16", "texts_network, fp32")
    ]
    assert "trtexec --onnx=" in out
    assert "timing-10-gpu.cache" in out
    assert "TensorRT 11.4.1" in run("--dry-run", "--tensorrt-version", "11.4.1")[1]
    code, _, err = run("--dry-run", "--tensorrt-version", "9.3.0")
    assert (code, "9.3.0 is not in the table" in err) == (1, True)


def test_no_removed_option_is_ever_used() -> None:
    """No option that 10.0 or 11.0 removed is in the table."""
    gone = {"--explicitBatch", "--workspace", "--buildOnly"}
    gone |= {"--fp16", "--bf16", "--int8", "--fp8", "--best", "--calib", "--int4"}
    assert not gone & set(command_lines.OPTIONS)


@pytest.mark.parametrize(("missing", "sentence"), [("trtexec", "no TensorRT here"), ("nvidia-smi", "no GPU here")])
def test_a_missing_tensorrt_or_gpu_is_one_sentence(house: Path, run: Run, missing: str, sentence: str) -> None:
    """The exit code is 1, and nothing changes."""
    (house / "bin" / missing).unlink()
    code, out, err = run()
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert sentence in err
    assert "ONNX" in err
    assert not (house / "cache").exists()


def test_a_plan_has_a_record_and_is_chosen(house: Path, run: Run) -> None:
    """The record has the values that `modelctl.plans.choice` compares, the profile and the precision."""
    for model in rendering.specs(house / "models", []):
        rendering.write(model, house / "models")
    assert run()[0] == 0
    for network in ("pictures", "texts_network"):
        record = json.loads(served(house, network).with_name("model.plan.json").read_text())
        digest = hashlib.sha256(served(house, network).with_name("model.onnx").read_bytes()).hexdigest()
        assert record["onnx_sha256"] == digest
        assert (record["tensorrt_version"], record["compute_capability"]) == ("10.13.0", "9.0")
    record = json.loads(served(house).with_name("model.plan.json").read_text())
    assert record["profile"] == {"x": {"min": [1, 3, 4, 4], "opt": [8, 3, 4, 4], "max": [32, 3, 4, 4]}}
    assert record["precision"] == "fp16"
    machine = choice.this_machine()
    assert choice.choose(house / "models", ["pictures", "texts", "texts_network"], machine).plans
    assert sorted(path.name for path in served(house).parent.iterdir()) == [
        ".gitkeep",
        "model.onnx",
        "model.plan",
        "model.plan.json",
    ]


def test_a_text_network_is_untrimmed_first(house: Path, run: Run) -> None:
    """TensorRT gets no node that depends on data, and integers of its types; the served file stays."""
    before = served(house, "texts_network").with_name("model.onnx").read_bytes()
    assert "without its nodes trim/..." in run("texts", "--dry-run")[1]
    code, _, err = run("texts", "--time")
    assert (code, err) == (0, "")
    build, check, timed = calls(house)
    assert "--onnx=cache/build/texts_network/untrimmed.onnx" in build
    assert "--maxShapes=input_ids:8x12,attention_mask:8x12" in build
    samples = "cache/build/texts_network/samples"
    assert f"--loadInputs=input_ids:{samples}/0.max.raw,attention_mask:{samples}/1.max.raw" in check
    assert f"--loadInputs=input_ids:{samples}/0.opt.raw" in timed
    assert served(house, "texts_network").with_name("model.onnx").read_bytes() == before


def test_nothing_is_built_twice(house: Path, run: Run) -> None:
    """A plan that is up to date stays; a lost one comes out of the cache."""
    run("pictures")
    assert len(calls(house)) == 3
    assert "up to date" in run("pictures")[1]
    served(house).unlink()
    assert "there is a new plan" in run("pictures")[1]
    assert calls(house) == []
    assert served(house).exists()


@pytest.mark.parametrize("part", ["onnx", "tensorrt", "gpu", "profile", "precision"])
def test_another_part_means_another_plan(house: Path, run: Run, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """A change of any part of the key makes a new build; changing it back makes none."""
    run("pictures")
    calls(house)
    spec, network = house / "models" / "pictures" / "model.yaml", served(house).with_name("model.onnx")
    before = spec.read_text(), network.read_bytes()
    if part == "onnx":
        changed = picture_network()
        changed.producer_name = "another"
        onnx.save(changed, network)
    elif part == "tensorrt":
        install(house, monkeypatch, "10.14.0")
    elif part == "gpu":
        install(house, monkeypatch, "10.13.0", "8.6")
    else:
        old, new = ("opt_batch: 8", "opt_batch: 4") if part == "profile" else ("fp16", "fp32")
        spec.write_text(spec.read_text().replace(old, new))
    assert run("pictures")[0] == 0
    assert any("--saveEngine" in line for line in calls(house))
    spec.write_text(before[0])
    network.write_bytes(before[1])
    install(house, monkeypatch, "10.13.0")
    assert run("pictures")[0] == 0
    assert calls(house) == []


@pytest.mark.parametrize("step", ["--saveEngine", "--loadEngine"])
def test_a_failure_leaves_the_old_plan(house: Path, run: Run, step: str) -> None:
    """The sentence has trtexec's errors; the served plan stays, and the other networks are built."""
    served(house).write_text("old")
    (house / "behaviour.json").write_text(json.dumps({"fails": step}))
    code, _, err = run()
    assert code == 1
    assert len(err.splitlines()) == 2
    assert "[E] Error[9]: out of memory / [E] Engine set up failed" in err
    assert "pictures" in err
    assert "texts_network" in err
    assert served(house).read_text() == "old"
    assert not list((house / "cache").glob("*.plan"))
    assert not list((house / "cache" / "build").iterdir())
    assert "Starting" in next((house / "cache").glob("pictures.*.log")).read_text() or step == "--loadEngine"


def test_a_missing_autocast_is_one_sentence(house: Path, run: Run) -> None:
    """FP16 needs ModelOpt; the sentence names the Python without it."""
    (house / "bin" / "python").write_text("#!/bin/sh\necho No module named modelopt; exit 1\n")
    code, _, err = run("pictures")
    assert code == 1
    assert "No module named modelopt" in err
    assert "--modelopt-python" in err
    assert not served(house).exists()


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        ({"weights": "Float"}, "model.yaml asks for fp16, but the plan's layers are 1 fp32"),
        ({"tensors": {"y": ["output", "fp16", [-1, 3, 4, 4]]}}, "output y is FP16 in the plan and FP32 in the config"),
        ({"tensors": {"y": ["output", "fp32", [-1, 5]]}}, "output y is [32, 5] in the plan at its largest"),
        ({"tensors": {"z": ["input", "fp32", [-1, 5]]}}, "the plan has an input z that the configuration lacks"),
    ],
)
def test_a_plan_that_is_not_as_configured_is_not_used(
    house: Path, run: Run, behaviour: dict[str, object], sentence: str
) -> None:
    """The sentence names the tensor and both types; neither repository nor cache takes the plan."""
    (house / "behaviour.json").write_text(json.dumps(behaviour))
    code, _, err = run("pictures")
    assert code == 1
    assert sentence in err
    assert not served(house).exists()
    assert not list((house / "cache").glob("*.plan"))


def test_a_changed_configuration_refuses_the_plan_that_is_there(house: Path, run: Run) -> None:
    """The plan's record is kept, and compared with the current configuration."""
    run("pictures")
    spec = house / "models" / "pictures" / "model.yaml"
    spec.write_text(spec.read_text().replace("y, dtype: FP32", "y, dtype: FP16"))
    code, _, err = run("pictures")
    assert code == 1
    assert "output y is FP32 in the plan and FP16 in the configuration" in err


def test_times_are_printed(run: Run) -> None:
    """Throughput, latency and GPU time, with their batch size."""
    out = run("pictures", "--time")[1]
    assert "pictures: Throughput, batches of 8: 2461.59 qps" in out
    assert "pictures: GPU Compute Time, batches of 8: min = 0.38 ms" in out
    assert "pictures: Latency, batches of 8: min = 0.39 ms" in out
    assert "2.99 s" not in out


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("opt_batch: 8", "opt_batch: 64", "opt_batch 64 is above max_batch_size 32"),
        ("[3, 4, 4]}}\n  outputs", "[3, -1, 4]}}\n  outputs", "network.tensorrt.shapes.image is needed"),
        ("opt_batch: 8", "shapes: {image: {min: [3], opt: [3], max: [3]}}", "must have 3 sizes"),
        (
            "opt_batch: 8",
            "shapes: {image: {min: [3, 4, 4], opt: [3, 4, 4], max: [3, 4, 5]}}",
            "must ascend and fit the configuration's [3, 4, 4]",
        ),
        ("  tensorrt: {precision: fp16, opt_batch: 8}\n", "", "has no network.tensorrt"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(house: Path, run: Run, old: str, new: str, sentence: str) -> None:
    """Each error of the spec is a sentence, before anything runs."""
    spec = house / "models" / "pictures" / "model.yaml"
    assert old in spec.read_text()
    spec.write_text(spec.read_text().replace(old, new))
    code, _, err = run("pictures")
    assert code == 1
    assert sentence in err
    assert calls(house) == []


def test_free_sizes_come_from_the_spec(house: Path) -> None:
    """Inputs with free sizes get those of network.tensorrt.shapes; the batch reaches max_batch_size."""
    spec = house / "models" / "pictures" / "model.yaml"
    shapes = "shapes: {image: {min: [3, 2, 4], opt: [3, 4, 4], max: [3, 9, 4]}}"
    text = spec.read_text().replace("[3, 4, 4]}}\n  outputs", "[3, -1, 4]}}\n  outputs").replace("opt_batch: 8", shapes)
    spec.write_text(text)
    (model,) = rendering.specs(house / "models", ["pictures"])
    assert command_lines.profile(model) == {"x": {"min": [1, 3, 2, 4], "opt": [32, 3, 4, 4], "max": [32, 3, 9, 4]}}


def test_bundled_profiles_hold_the_largest_batch() -> None:
    """Triton refuses a plan whose profile ends below max_batch_size."""
    found = 0
    for model in rendering.specs(ROOT / "models", []):
        if model.network.tensorrt:
            found += 1
            for sizes in command_lines.profile(model).values():
                assert sizes["max"][0] == model.network.batching.max_batch_size
                assert all(low <= best <= most for low, best, most in zip(*sizes.values(), strict=True))
    assert found


def test_two_do_not_build_at_once(house: Path, run: Run) -> None:
    """The second is refused with a sentence, and changes nothing."""
    import fcntl

    (house / "cache").mkdir()
    with (house / "cache" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = run("pictures")
    assert code == 1
    assert "Another modelctl plan uses" in err
    assert calls(house) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(house: Path, run: Run) -> None:
    """The sentence has the path; the plan stays in the cache."""
    (served(house).parent / ".model.plan.new").mkdir()
    code, _, err = run("pictures")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "model.plan cannot be written" in err
    assert len(list((house / "cache").glob("*.plan"))) == 1


def test_links_in_the_cache_are_not_followed(house: Path, run: Run) -> None:
    """Foreign links in place of a build's files are replaced, and their targets stay."""
    assert run("pictures")[0] == 0
    served(house).with_name("model.plan.json").unlink()
    cache = house / "cache"
    (plan,) = cache.glob("*.plan")
    logs = [path.name for path in cache.glob("*.log")]
    assert logs
    shutil.rmtree(cache)
    cache.mkdir()
    precious = house / "precious"
    (precious / "pictures").mkdir(parents=True)
    (precious / "file").write_text("mine")
    for name in (*logs, f".{plan.name}.new", f".{plan.name}.json.new"):
        (cache / name).symlink_to(precious / "file")
    (cache / "build").symlink_to(precious)
    assert run("pictures")[0] == 0
    assert served(house).exists()
    assert sorted(path.name for path in precious.iterdir()) == ["file", "pictures"]
    assert (precious / "file").read_text() == "mine"
    (cache / "lock").unlink()
    (cache / "lock").symlink_to(precious / "file")
    code, _, err = run("pictures")
    assert code == 1
    assert "cannot be written to" in err
    assert (precious / "file").read_text() == "mine"


def test_no_model_with_tensorrt_is_no_failure(house: Path, run: Run) -> None:
    """Without names, a repository without plans is fine; a wrong name is not."""
    for spec in (house / "models").glob("*/model.yaml"):
        lines = spec.read_text().splitlines(keepends=True)
        spec.write_text("".join(line for line in lines if "tensorrt" not in line))
    assert run()[0] == 0
    assert run("nobody")[0] == 1


def test_releases_are_taken_from_versions() -> None:
    """10.x and 11.x are known, 9.x, 12.x and 100.x are not."""
    assert [command_lines.release(version) for version in ("10.0.1", "11", "11.4.1")] == [10, 11, 11]
    for version in ("9.3", "12.0.0", "100.1", ""):
        with pytest.raises(CommandError):
            command_lines.release(version)
