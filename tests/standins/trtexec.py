"""Stands in for trtexec: accepts the options of one release only, and records them.

Called as `trtexec.py RELEASE OPTION...`. Its plan is a JSON file with the tensors of the ONNX file. A file
`behaviour.json` in the folder $STAND_IN changes what it does.

The options are those that samples/common/sampleOptions.cpp of github.com/NVIDIA/TensorRT parses (10: with --int4, of
10.12 and later; 11: of 11.1 and later), whatever else is "Unknown option" there too.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

BOTH = """
--onnx --inputIOFormats --outputIOFormats --profile --minShapes --optShapes --maxShapes --memPoolSize
--avgTiming --refit --stripWeights --stripAllWeights --vc --versionCompatible --pi --pluginInstanceNorm
--uint8AsymmetricQuantizationDLA --excludeLeanRuntime --noCompilationCache --monitorMemory --noTF32
--stronglyTyped --distributiveIndependence --safe --dumpKernelText --buildDLAStandalone --allowGPUFallback
--consistency --skipInference --directIO --layerDeviceTypes --decomposableAttentions --markDebug
--markUnfusedTensorsAsDebugTensors --sparsity --profilingVerbosity --loadEngine --asyncFileReader
--getPlanVersionOnly --saveEngine --tacticSources --noBuilderCache --timingCacheFile --errorOnTimingCacheMiss
--builderOptimizationLevel --maxTactics --runtimePlatform --hardwareCompatibilityLevel --maxAuxStreams
--preview --tempdir --tempfileControls --useRuntime --leanDLLPath --allowWeightStreaming
--tilingOptimizationLevel --l2LimitForTiling --remoteAutoTuningConfig --device --useDLACore --plugins
--staticPlugins --setPluginsToSerialize --dynamicPlugins --ignoreParsedPluginLibs --streams --infStreams
--iterations --duration --warmUp --sleepTime --idleTime --exposeDMA --noDataTransfers --useManagedMemory
--useSpinWait --threads --useCudaGraph --separateProfileRun --timeDeserialize --timeRefit
--persistentCacheRatio --loadInputs --shapes --useProfile --allocationStrategy --weightStreamingBudget
--saveDebugTensors --saveAllDebugTensors --refitFromOnnx --avgRuns --verbose --dumpRefit --dumpOutput
--dumpRawBindingsToFile --dumpProfile --dumpLayerInfo --dumpOptimizationProfile --exportTimes --exportOutput
--exportProfile --exportLayerInfo --percentile --help -h
"""
ONLY_10 = """
--calibProfile --minShapesCalib --optShapesCalib --maxShapesCalib --best --weightless --fp16 --bf16 --int8
--fp8 --int4 --restricted --precisionConstraints --layerPrecisions --layerOutputTypes --calib
"""
ONLY_11 = """
--cpuOnly --reportCapabilityDLA --adjustForDLA --enablePluginOverride --saveAllEngines --setBuildRoute
--includeDataTransfers --noSpinWait --noCudaGraph --refPair --loadRefOutputs --accuracyAlgorithm --atol --rtol
--accuracyThreshold --helpBuildRoute --tuneBuildRoutes --tuneBuildRouteFile --tuningSearch --tuningTimeOut
--tuningCacheFile --continue --dryRun --tuningResultFile
"""
KNOWN = {"10": set((BOTH + ONLY_10).split()), "11": set((BOTH + ONLY_11).split())}
TYPES = {1: "fp32", 6: "int32", 7: "int64", 10: "fp16"}  # onnx.TensorProto.DataType
PERFORMANCE = """\
[11/21/2026-08:00:00] [I] === Performance summary ===
[11/21/2026-08:00:00] [I] Throughput: 2461.59 qps
[11/21/2026-08:00:00] [I] Latency: min = 0.39 ms, max = 0.52 ms, mean = 0.41 ms, median = 0.4 ms
[11/21/2026-08:00:00] [I] Enqueue Time: min = 0.01 ms, max = 0.06 ms, mean = 0.02 ms, median = 0.02 ms
[11/21/2026-08:00:00] [I] GPU Compute Time: min = 0.38 ms, max = 0.51 ms, mean = 0.4 ms, median = 0.39 ms
[11/21/2026-08:00:00] [I] Total GPU Compute Time: 2.99 s"""


def main(release: str, arguments: list[str]) -> int:
    """Do what the options say."""
    folder = Path(os.environ["STAND_IN"])
    behaviour = json.loads((folder / "behaviour.json").read_text()) if (folder / "behaviour.json").exists() else {}
    with (folder / "calls.txt").open("a") as calls:
        calls.write(" ".join(["trtexec", *arguments]) + "\n")
    options = dict(argument.partition("=")[::2] for argument in arguments)
    for name in options:
        if name not in KNOWN[release]:
            print(f"[E] Unknown option: {name} {options[name]}")
            return 1
    if behaviour.get("fails") in options:
        print("[I] Starting\n[E] Error[9]: out of memory\n[E] Engine set up failed\n&&&& FAILED TensorRT.trtexec")
        return 1
    if "--saveEngine" in options:
        return build(options, behaviour)
    shapes = dict(one.rsplit(":", 1) for one in options.get("--shapes", "").split(",") if one)
    plan = json.loads(Path(options["--loadEngine"]).read_text())
    for given in options.get("--loadInputs", "").split(",") if "--loadInputs" in options else []:
        name, path = given.rsplit(":", 1)
        count = eval(shapes[name].replace("x", "*"))
        assert Path(path).stat().st_size == count * 8, given  # int64; trtexec insists on the exact size
    if "--exportLayerInfo" in options:
        Path(options["--exportLayerInfo"]).write_text(json.dumps(plan["layers"]))
    if "--dumpRawBindingsToFile" in options:
        batch = next(iter(shapes.values())).split("x")[0]
        for name, (mode, kind, dims) in plan["tensors"].items():
            sizes = shapes[name].replace("x", ".") if name in shapes else ".".join([batch, *map(str, dims[1:])])
            print(f"[I] Writing file for {mode} binding {name} (with datatype {kind} and dimensions {sizes}) to x.raw")
    print(PERFORMANCE)
    return 0


def build(options: dict[str, str], behaviour: dict[str, object]) -> int:
    """Write a plan: the tensors of the network, and layers of its type."""
    import onnx  # here, because most calls need no network and this takes most of their time

    model = onnx.load(options["--onnx"])
    if any(node.name.startswith("trim/") for node in model.graph.node):
        print("[E] a shape depends on data")
        return 1
    tensors = {}
    for mode, entries in (("input", model.graph.input), ("output", model.graph.output)):
        for entry in entries:
            dims = [size.dim_value or -1 for size in entry.type.tensor_type.shape.dim]
            tensors[entry.name] = (mode, TYPES[entry.type.tensor_type.elem_type], dims)
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    weights = behaviour.get("weights", "Half" if half else "Float")
    layers = {"Layers": [{"Name": "multiply", "LayerType": "CaskConvolution", "Weights": {"Type": weights}}]}
    plan = {"tensors": tensors | dict(behaviour.get("tensors", {})), "layers": layers}  # type: ignore[call-overload]
    Path(options["--saveEngine"]).write_text(json.dumps(plan))
    Path(options["--timingCacheFile"]).write_text("timings")
    print("&&&& PASSED TensorRT.trtexec")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
