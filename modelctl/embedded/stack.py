"""Triton and the gateway together, in the foreground.

Each runs in a session of its own, so that Ctrl-C reaches this process alone and the gateway is drained before Triton
stops.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelctl.console import say
from modelctl.embedded import control, processes
from modelctl.embedded.state import take_state
from modelctl.errors import CommandError
from modelctl.models.tasks import TASKS, Task

READY_S = 120
# The reason that /readyz gives when no default model is loaded, so that there is no canary to run.
NO_DEFAULT = "Triton serves no default model."
TRITON_STOP_S = 6.5
STOP_MARGIN_S = 1
"""A gateway that has not ended this long after its drain is killed."""
DEFAULTS = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_DRAIN_TIMEOUT_S": "2"}
"""The gateway's settings where neither the environment nor `.env` sets them."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 30.0


class Stack:
    """The two processes: Triton's supervisor and the gateway.

    Args:
        port: the gateway's.
        grpc_port: Triton's.
        state: Triton's state folder.
        gateway_stop_s: how long the gateway may take to end.

    """

    def __init__(self, port: int, grpc_port: int, state: Path, gateway_stop_s: float) -> None:
        self.stopping = threading.Event()
        self._port = port
        self._grpc_port = grpc_port
        self._state = state
        self._gateway_stop_s = gateway_stop_s
        self._triton: subprocess.Popen[bytes] | None = None
        self._gateway: subprocess.Popen[bytes] | None = None
        self._backoff = FIRST_BACKOFF_S

    def run(self, serve_arguments: list[str]) -> int:
        """Start both, print a sample request for each task, and watch them; return the exit code."""
        self._triton = self._start("modelctl", "serve", *serve_arguments)
        self._gateway = self._start("app")
        if self._wait_until_ready():
            self._show()
        while not self.stopping.wait(0.2):
            if self._triton.poll() is not None:
                return self._triton.returncode or 1
            self._revive_gateway()
        return 0

    def ask_to_stop(self) -> None:
        """End `run`, even while it waits for an answer from the gateway; may be called from another thread."""
        self.stopping.set()
        if self._gateway is not None:
            self._gateway.terminate()

    def stop(self) -> None:
        """Stop the gateway, which finishes its requests, then Triton; clean up after a killed supervisor."""
        for process, seconds in ((self._gateway, self._gateway_stop_s), (self._triton, TRITON_STOP_S)):
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._triton is not None and self._triton.returncode == -signal.SIGKILL:
            with suppress(CommandError):  # another supervisor uses the folder by now
                take_state(self._state).close()

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TRITON_GRPC_PORT": str(self._grpc_port)}
        if module == "app":
            environment[control.VARIABLE] = os.environ.get(control.VARIABLE) or str(
                self._state.resolve() / control.FILE
            )
            environment |= {name: value for name, value in DEFAULTS.items() if not os.environ.get(name)}
        return subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", module, *arguments],
            env=environment,
            start_new_session=True,
            preexec_fn=processes.dies_with_parent(),
        )

    def _revive_gateway(self) -> None:
        assert self._gateway is not None  # noqa: S101 - `run` has started it
        if self._gateway.poll() is None:
            return
        say(f"The gateway ended; it is started again in {self._backoff:.0f} s.")
        if self.stopping.wait(self._backoff):
            return
        self._backoff = min(self._backoff * 2, LONGEST_BACKOFF_S)
        self._gateway = self._start("app")

    def _wait_until_ready(self) -> bool:
        """Wait for /readyz, and print the progress; return False when told to stop, or when Triton ended.

        Raises:
            CommandError: when the gateway ended, or is not ready in time.

        """
        deadline, shown = time.monotonic() + READY_S, ""
        while not self.stopping.wait(0.1):
            for process in (self._triton, self._gateway):
                if process is not None and process.poll() is not None:
                    if process is self._gateway:
                        raise CommandError("The gateway ended while starting: its last lines above say why.")
                    return False  # Triton's supervisor has printed the reason
            status, answer = self._ask("GET", "/readyz")
            if status == http.client.OK:
                say(f"Canaries: {len(answer['models'])} of {len(answer['models'])} answer as expected")
                return True
            if answer.get("reason") == NO_DEFAULT:  # asked for by --model
                say(f"Canaries: {NO_DEFAULT}")
                return True
            line = self._waiting_for(answer)
            if line and line != shown:
                say(line)
                shown = line
            if time.monotonic() > deadline:
                why = line or answer.get("reason") or "it does not answer."
                raise CommandError(f"The gateway did not become ready in {READY_S} s: {why}")
        return False

    @staticmethod
    def _waiting_for(answer: dict[str, Any]) -> str:
        models = answer.get("models", [])
        ready = sum(model["ready"] for model in models)
        return f"Canaries: {ready} of {len(models)} answer as expected" if models else ""

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path, body or None, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()

    def _show(self) -> None:
        """Send one real request for each task that has a default model, and print how to repeat it."""
        base = f"http://127.0.0.1:{self._port}"
        _, catalogue = self._ask("GET", "/v1/models")
        tasks = {model["task"] for model in catalogue.get("models", []) if model["default"]}
        lines = []
        for task in (task for name, task in TASKS.items() if name in tasks):
            with suppress(OSError):
                lines += ["", f"  {_curl(task, base)}", f"  {self._answer(task)}"]
        print("\n".join([f"Gateway ready: {base}", *lines, "", f"  Docs: {base}/docs   Stop: Ctrl-C"]), flush=True)

    def _answer(self, task: Task) -> str:
        if task.input == "image":
            body, kind = Path(task.sample).read_bytes(), "image/jpeg"
        else:
            body, kind = json.dumps({"text": task.sample}).encode(), "application/json"
        _, answer = self._ask("POST", f"/v1/{task.route}", body, kind)
        answer.pop("request_id", None)
        text = json.dumps(answer)
        return text if len(text) <= 300 else f"{text[:300]}..."


def _curl(task: Task, base: str) -> str:
    """Return the command line that sends a task's sample."""
    if task.input == "image":
        return f"curl -F image=@{task.sample} {base}/v1/{task.route}"
    body = json.dumps({"text": task.sample})
    return f"curl -H 'Content-Type: application/json' -d '{body}' {base}/v1/{task.route}"
