"""Builds TensorRT plans; it needs TensorRT and a GPU, as in the container.

    model.yaml, model.onnx --> the present plan, or one from the cache, or a new one --> model.plan, model.plan.json

A plan is used only when its inputs, outputs and precision match the configuration. After a failure the previous plan,
or the ONNX network, stays in use (`modelctl.plans.choice` decides at the next start).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelctl.errors import CommandError
from modelctl.models import rendering
from modelctl.plans import cache, checks, choice, command_lines, network
from modelctl.plans.checks import Facts
from modelctl.plans.choice import Machine
from modelctl.plans.command_lines import Files
from modelctl.plans.job import Job

# NVIDIA's packages and archives put it in these folders, outside PATH.
TRTEXEC = ("trtexec", "/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
NO_PLAN_BUILT = "No plan was built. Networks without a matching plan are served as ONNX."


@dataclass(frozen=True)
class Tools:
    """The programs and the machine of a build. `gpu` is the GPU's name: each kind of GPU has its own timing cache."""

    trtexec: str
    modelopt_python: str
    machine: Machine
    gpu: str


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Build the plans; print and return what was done for each network."""
    specs = rendering.specs(arguments.models, arguments.names)
    wanted = [model for model in specs if arguments.names or model.network.tensorrt]
    jobs = [Job(model, arguments.models.resolve(), arguments.cache.resolve()) for model in wanted]
    if not jobs:
        print("No model.yaml has network.tensorrt: there is no plan to build.")
        return []
    if arguments.dry_run:
        return _print_lines(jobs, arguments)
    tools = _tools(arguments.modelopt_python)
    with _locked(arguments.cache.resolve()):
        return [_attempt(job, tools, arguments.time) for job in jobs]


def _tools(modelopt_python: str) -> Tools:
    """Return the programs and the machine.

    Raises:
        CommandError: when there is no TensorRT, or no GPU.

    """
    machine = choice.this_machine()
    trtexec = next((found for name in TRTEXEC if (found := shutil.which(name))), None)
    if trtexec is None or not machine.tensorrt_version:
        raise CommandError(
            f"There is no TensorRT here. {NO_PLAN_BUILT} To build in the container: docker compose run --rm plans."
        )
    if not machine.compute_capability:
        raise CommandError(f"There is no GPU here (nvidia-smi shows none). {NO_PLAN_BUILT}")
    command_lines.release(machine.tensorrt_version)
    return Tools(trtexec, modelopt_python, machine, choice.nvidia_smi("name"))


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Lock the cache, so that only one build uses it."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if (cache / "build").is_symlink():
            (cache / "build").unlink()
        lock = os.fdopen(os.open(cache / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "w")
    except OSError as error:
        raise CommandError(
            f"{cache} cannot be written to: {error.strerror}; give another folder with --cache."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(
                f"Another modelctl plan uses {cache}: wait until it ends, or give another --cache."
            ) from None
        yield


def _attempt(job: Job, tools: Tools, timed: bool) -> dict[str, Any]:
    """Bring one plan up to date and time it; on failure, print and return the error."""
    try:
        row = {"name": job.name, **_update(job, tools)}
        return {**row, "performance": _time(job, tools)} if timed else row
    except CommandError as error:
        print(f"modelctl: {job.name}: {error}", file=sys.stderr, flush=True)
        return {"name": job.name, "error": str(error)}
    finally:
        shutil.rmtree(job.work, ignore_errors=True)


def _update(job: Job, tools: Tools) -> dict[str, Any]:
    _ = job.profile, job.graph  # faults in these are raised before anything else happens
    parts = job.parts(tools.machine)
    facts = cache.find(job.served, parts)
    if facts:
        _check(facts, job)
        _say(job, f"its plan is up to date, {_layers(facts)}")
        return {"new": False, "plan": str(job.served), "layers": dict(facts.layers)}
    cached = job.cache / f"{parts.key}.plan"
    facts = cache.find(cached, parts)
    if facts is None:
        _say(job, f"building for TensorRT {parts.tensorrt_version} on {tools.gpu}, which takes minutes")
        facts = _build(job, tools)
        _check(facts, job)
        cache.put(job.work / "model.plan", cached, parts, facts)
    _check(facts, job)
    cache.put(cached, job.served, parts, facts)
    _say(job, f"there is a new plan, {_layers(facts)}; it is served after the next start of Triton")
    return {"new": True, "plan": str(job.served), "layers": dict(facts.layers)}


def _build(job: Job, tools: Tools) -> Facts:
    """Build a plan in the work folder, run it once, and return its facts."""
    files, shapes, version = _prepare(job, tools), job.shapes(), tools.machine.tensorrt_version
    if job.precision == "fp16":
        hint = f"fp16 needs NVIDIA ModelOpt in {tools.modelopt_python}, see --modelopt-python"
        _call(job, "convert", command_lines.convert(tools.modelopt_python, files), files.fp16, hint)
    _call(job, "build", command_lines.build(tools.trtexec, version, files, shapes, job.precision), files.plan)
    output = _call(job, "check", command_lines.check(tools.trtexec, version, files, shapes), files.layers)
    try:
        return checks.facts(output, json.loads(files.layers.read_text()))
    except ValueError as error:
        raise CommandError(f"trtexec's layers cannot be read: {error}.") from error


def _time(job: Job, tools: Tools) -> dict[str, str]:
    files, shapes = _prepare(job, tools), job.shapes()
    command = command_lines.time(tools.trtexec, tools.machine.tensorrt_version, job.served, files, shapes)
    output = _call(job, "time", command, job.served)
    batch = max(sizes["opt"][0] for sizes in job.profile.values())
    found = checks.performance(output)
    for name, value in found.items():
        _say(job, f"{name}, batches of {batch}: {value}")
    return found


def _prepare(job: Job, tools: Tools) -> Files:
    """Empty the work folder, and write the files that no command makes."""
    files = job.files(tools.machine.tensorrt_version, tools.gpu)
    shutil.rmtree(job.work, ignore_errors=True)
    job.work.mkdir(parents=True)
    if files.onnx != job.onnx:
        network.untrim(job.onnx, files.onnx)
    network.write_samples(files, job.config, job.profile)
    return files


def _call(job: Job, step: str, command: list[str], made: Path, hint: str = "") -> str:
    """Run one command, keep its output in a log, and return it.

    Raises:
        CommandError: when the command fails, or does not make the file `made`; with the last lines of its output.

    """
    log = job.cache / f"{job.name}.{step}.log"
    try:
        done = subprocess.run(  # noqa: S603 - our own line
            command,
            cwd=job.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be run: {error.strerror}.") from error
    with cache.make(log) as file:
        file.write(f"{shlex.join(command)}\n{done.stdout}".encode())
    if done.returncode or not made.exists():
        raise CommandError(f"the step '{step}' failed{hint and f' ({hint})'}: {_last(done.stdout)} (all of it: {log})")
    return done.stdout


def _last(output: str) -> str:
    """Return the last lines of a command's output; for trtexec, its last errors."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " / ".join(([line for line in lines if "[E]" in line] or lines)[-3:]) or "it printed nothing"


def _check(facts: Facts, job: Job) -> None:
    found = checks.faults(facts, job.config, job.precision)
    if found:
        raise CommandError(f"{'; '.join(found)}. The plan is not used.")


def _layers(facts: Facts) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(facts.layers.items()))
    return f"its layers by precision: {counts}"


def _say(job: Job, text: str) -> None:
    print(f"{job.name}: {text}", flush=True)


def _print_lines(jobs: list[Job], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the command lines of a build, and return them."""
    rows = []
    trtexec = next((found for name in TRTEXEC if (found := shutil.which(name))), "trtexec")
    here = choice.this_machine().tensorrt_version
    for version in [arguments.tensorrt_version or here] if arguments.tensorrt_version or here else ["10", "11"]:
        for job in jobs:
            _ = job.profile  # a model without a plan is refused before anything is printed
            print(f"# TensorRT {version}: {job.name}, {job.precision}")
            files, shapes = job.files(version, choice.nvidia_smi("name")), job.shapes()
            if files.onnx != job.onnx:
                print(f"# modelctl itself: {job.onnx} without its nodes trim/... -> {files.onnx}")
            lines = [command_lines.convert(arguments.modelopt_python, files)] if job.precision == "fp16" else []
            lines.append(command_lines.build(trtexec, version, files, shapes, job.precision))
            lines.append(command_lines.check(trtexec, version, files, shapes))
            lines += [command_lines.time(trtexec, version, job.served, files, shapes)] if arguments.time else []
            print(*map(shlex.join, lines), sep="\n")
            rows.append({"name": job.name, "tensorrt": version, "precision": job.precision, "commands": lines})
    return rows
