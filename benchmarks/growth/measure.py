"""`python -m benchmarks growth`: the gateway's CPU time per request, as one dimension of a service grows.

    light models (which answer at once), a Triton and a gateway for each number of models
    --> a few concurrent requests --> processor time of the gateway, from /proc, per request

Dimensions: open connections, models in the repository, items of a batch, size of a picture.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import struct
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from benchmarks import light
from benchmarks.growth import report
from benchmarks.growth.order import AXES, WARM_UP_S, Growth, Served, Setting
from benchmarks.load import connections
from benchmarks.load.connections import Connections
from benchmarks.stack import QUIET, Stack
from modelctl.bench import quiet
from modelctl.bench.load import CALLERS, Load
from modelctl.bench.reading import number, numbers, whole
from modelctl.bench.results import Machine
from modelctl.console import say
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError

SECONDS, ROUNDS, PATIENCE_S = 5.0, 3, 5.0
QUICK_SECONDS = 1.5
TEXT = "The pictures are sharp and the battery lasts for days."
MAX_VALUES = {"connections": 20_000, "tensor models": 1000, "ensembles": 100, "batch": 64, "image KB": 19_000}
"""Highest values accepted; the gateway's own limits where it has them."""
COMMENT, COMMENT_BYTES = b"\xff\xfe", 65_533

Metrics = dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement, and redefine shared ones that differ here."""
    for axis in AXES:
        text = f"compared with {axis.base} (default: {','.join(map(str, axis.values))}; fewer with --quick)"
        least = 0 if axis.name == "tensor models" else 1
        parser.add_argument(axis.option, type=numbers(least, MAX_VALUES[axis.name]), metavar="N,N", help=text)
    text = f"concurrent requests (default: {CALLERS})"
    parser.add_argument("--callers", type=whole(1, 10), default=CALLERS, help=text)
    text = f"seconds of load for each setting in each round (default: {SECONDS:g})"
    parser.add_argument("--seconds", type=number(0.1, 3600), default=SECONDS, help=text)
    text = f"number of rounds (default: {ROUNDS})"
    parser.add_argument("--rounds", type=whole(1, 100), default=ROUNDS, help=text)
    text = f"longest wait in seconds for an idle machine before each measurement (default: {PATIENCE_S:g})"
    parser.add_argument("--patience", type=number(0, 3600), default=PATIENCE_S, metavar="SECONDS", help=text)
    for option in ("--models", "--backends"):
        parser.add_argument(option, type=_refused, help=argparse.SUPPRESS)


def _refused(_: str) -> None:
    raise CommandError("benchmarks growth makes its own models: leave out --models and --backends.")


def run(arguments: argparse.Namespace, stopping: threading.Event) -> int:
    """Measure, print and write; return the exit code."""
    if arguments.quick:
        arguments.seconds = QUICK_SECONDS
    order = Growth.of(arguments)
    connections.allow(max(setting.connections for setting in order.settings))
    say(
        f"{len(order.settings)} settings, {len(order.served)} servers with their gateways; "
        f"about {order.estimate_s / 60:.1f} minutes on an idle machine."
    )
    made = report.of(order, measure(order, stopping), Machine.this())
    made.publish(arguments.out, as_json=arguments.json)
    return 0


def measure(order: Growth, stopping: threading.Event) -> dict[Setting, list[Metrics]]:
    """Start all servers, and measure all settings in rounds; every other round runs in reverse.

    Raises:
        CommandError: when a server does not start, or a request is not answered.
        Stopped: when `stopping` is set; nothing is left running.

    """
    rounds: dict[Setting, list[Metrics]] = {setting: [] for setting in order.settings}
    folder = order.state / "growth"
    with closing(take_state(order.state)):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with ExitStack() as running:
                stacks = {served: running.enter_context(_stack(folder, served, stopping)) for served in order.served}
                for count in range(order.rounds):
                    for setting in order.settings[:: -1 if count % 2 else 1]:
                        quiet.wait(order.patience, stopping)
                        one = _turn(order, setting, stacks, stopping)
                        rounds[setting].append(one)
                        label = next(name for name, other in order.labels.items() if other == setting)
                        say(
                            f"Round {count + 1} of {order.rounds}, {label}: {one['cost']:.3f} ms of gateway CPU, "
                            f"{one['throughput']:.0f} requests/s; others kept {one['cores_others']:.1f} cores busy"
                        )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return rounds


def _stack(folder: Path, served: Served, stopping: threading.Event) -> Stack:
    own = folder / f"{served.ensembles}-{served.tensor_models}"
    light.write(own, served.ensembles, served.tensor_models)
    return Stack(own, own / "models", own / "backends", QUIET, stopping=stopping)


def _turn(order: Growth, setting: Setting, stacks: Mapping[Served, Stack], stopping: threading.Event) -> Metrics:
    stack = stacks[setting.served]
    load = Load(min(order.callers, setting.connections), order.seconds, WARM_UP_S)
    sent = Connections(stack.port, request(setting), setting.connections)
    answered = load.run(sent, stack.gateway_group, stopping, beside=stack.triton_group)
    stack.check()
    return {
        "cost": 1e3 * answered.cores.server / answered.throughput / max(1, setting.batch),
        "throughput": answered.throughput,
        "p50": answered.percentile(50),
        "p99": answered.percentile(99),
        "reopened": float(sent.reopened),
        "cores_gateway": answered.cores.server,
        "cores_triton": answered.cores.beside,
        "cores_client": answered.cores.client,
        "cores_others": answered.cores.others,
    }


def request(setting: Setting) -> bytes:
    """Return the HTTP request of a setting."""
    if setting.image_kb:
        return connections.post(f"/v1/classify?model={light.IMAGE}", "image/jpeg", picture(1000 * setting.image_kb))
    path, content = ("/batch", {"texts": [TEXT] * setting.batch}) if setting.batch else ("", {"text": TEXT})
    return connections.post(f"/v1/sentiment{path}", "application/json", json.dumps(content).encode())


def picture(size: int) -> bytes:
    """Return a real JPEG of `size` bytes, or up to 3 fewer, padded with comments of random bytes.

    ITU-T T.81, B.2.4.5: a comment is its marker, two bytes of length, which count themselves, and its content.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "orange").save(buffer, "JPEG")
    small, chance = buffer.getvalue(), np.random.default_rng(0)
    parts, missing = [small[:2]], size - len(small)
    while missing >= 4:
        content = min(missing - 4, COMMENT_BYTES)
        parts += [COMMENT, struct.pack(">H", content + 2), chance.bytes(content)]
        missing -= content + 4
    return b"".join([*parts, small[2:]])
