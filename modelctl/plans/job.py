"""The build of one TensorRT plan: its files, and what the plan depends on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from tritonclient.grpc import model_config_pb2 as pb

from modelctl.errors import CommandError
from modelctl.models import configs
from modelctl.models.spec import ModelSpec
from modelctl.plans import command_lines, network
from modelctl.plans.cache import Parts
from modelctl.plans.choice import Machine, onnx_digest
from modelctl.plans.command_lines import Files, Profile

INTEGERS = (pb.TYPE_INT32, pb.TYPE_INT64)


@dataclass(frozen=True)
class Job:
    """One network for which a plan is wanted."""

    model: ModelSpec
    models: Path
    cache: Path

    @property
    def name(self) -> str:
        """The network's name."""
        return self.model.network_name

    @property
    def served(self) -> Path:
        """The plan that Triton loads."""
        return self.models / self.name / "1" / "model.plan"

    @property
    def onnx(self) -> Path:
        """The network that is served where there is no plan."""
        return self.served.with_name("model.onnx")

    @property
    def work(self) -> Path:
        """The folder for files that one step of a build leaves for the next."""
        return self.cache / "build" / self.name

    @cached_property
    def config(self) -> Any:
        """The network's configuration; the plan's has the same inputs and outputs."""
        return configs.network(self.model)

    @cached_property
    def profile(self) -> Profile:
        """The shapes that the plan is built for."""
        return command_lines.profile(self.model)

    @cached_property
    def graph(self) -> Any:
        """The network's ONNX model.

        Raises:
            CommandError: when its file is missing or cannot be read.

        """
        try:
            return onnx.load(self.onnx)
        except (OSError, ValueError, DecodeError) as error:
            raise CommandError(f"{self.onnx} cannot be read as ONNX: {error}.") from error

    @property
    def precision(self) -> str:
        """The precision that model.yaml asks for."""
        return self.model.network.tensorrt.precision if self.model.network.tensorrt else "fp32"

    def parts(self, machine: Machine) -> Parts:
        """Return what the plan depends on."""
        return Parts(
            onnx_digest(self.onnx.parent),
            machine.tensorrt_version,
            machine.compute_capability,
            self.profile,
            self.precision,
        )

    def files(self, version: str, gpu: str) -> Files:
        """Return the files of a build."""
        integers = (entry.name for entry in self.config.input if entry.data_type in INTEGERS)
        return Files(
            onnx=self.work / "untrimmed.onnx" if network.is_trimmed(self.graph) else self.onnx,
            fp16=self.work / "fp16.onnx",
            plan=self.work / "model.plan",
            layers=self.work / "layers.json",
            timing_cache=self.cache / f"timing-{version}-{re.sub('[^A-Za-z0-9]+', '-', gpu) or 'gpu'}.cache",
            samples=self.work / "samples",
            integers=tuple(integers),
        )

    def shapes(self) -> Profile:
        """Return the profile's shapes of inputs with free sizes: trtexec refuses shapes for others."""
        free = network.free_inputs(self.graph)
        return {name: sizes for name, sizes in self.profile.items() if name in free}
