"""docs/instances.md on `modelctl load`: another number of instances loses no call."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from modelctl.bench import sample
from modelctl.bench.load import Grpc, Load
from modelctl.embedded import processes
from modelctl.models.repository import Repository

ROOT = Path(__file__).resolve().parents[3]


def test_a_count_is_changed_without_losing_a_call(make_stack: Callable[..., Any]) -> None:
    """`modelctl load` after another count starts the new instance while callers go on, as docs/instances.md says."""
    stack = make_stack(("simple_net",), test_models=False)
    stack.start_triton()
    requests = sample.requests(stack.models, Repository(stack.models).models["simple_net"])
    triton = stack.control()
    deadline = time.monotonic() + 30
    while not triton.is_live() and time.monotonic() < deadline:
        time.sleep(0.1)
    path = stack.models / "simple_net" / "model.yaml"
    path.write_text(path.read_text().replace("network:\n", "network:\n  instances: {count: 2}\n"))
    for words in (["render", "simple_net"], ["load", "simple_net", "--grpc-port", str(stack.grpc)]):
        command_line = [sys.executable, "-m", "modelctl", *words, "--models", str(stack.models)]
        changing = subprocess.Popen(command_line, cwd=ROOT, env=stack.environment(), stdout=subprocess.DEVNULL)
        while changing.poll() is None:  # raises when a call fails
            Load(2, 0.2, 0).run(Grpc(f"127.0.0.1:{stack.grpc}", requests), stack.triton.pid, threading.Event())
        assert changing.returncode == 0
    server = next(one for one in psutil.Process(stack.triton.pid).children() if one.name() == "tritonserver")
    deadline = time.monotonic() + 20  # what is replaced ends a few seconds later
    while len(processes.stubs(server.pid)) != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [stub.model for stub in processes.stubs(server.pid)] == ["simple_net", "simple_net"]
    triton.close()
