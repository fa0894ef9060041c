"""Keeps Triton serving: starts it, loads its models, and repairs what dies.

    start, loading the models -> watch --stub died--> load its model again
      ^                        |
      +------ back-off <-------+ server died: its group is killed, its shared memory swept

Triton 24.10 neither restarts a dead Python step nor calls its model unready, so the stubs' processes are watched: a
model that is READY must have as many living stubs as instances.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import IO

from modelctl.errors import CommandError
from modelctl.repository import Model, Repository
from modelctl.server import Launch, Server, clear_leftovers, say
from modelctl.triton import READY, UNAVAILABLE, State, Triton, TritonError

FIRST_BACKOFF_S, LONGEST_BACKOFF_S, HEALTHY_S = 1.0, 30.0, 5.0
WATCH_S = 0.5
START_S, UNLOAD_S = 120, 6
PATHS = re.compile(r"(?:/[^\s:,'\"]+)+/")


class Supervisor:
    """Runs one Triton until it is told to stop."""

    def __init__(self, launch: Launch, repository: Repository, wanted: list[Model]) -> None:
        self._launch = launch
        self._repository = repository
        self._wanted = wanted
        self._stopping = threading.Event()
        # Stubs per model when it was last seen whole, and how often in a row one was missing since.
        self._whole: dict[str, int] = {}
        self._missing: Counter[str] = Counter()
        self._lock: IO[str] | None = None

    def stop(self) -> None:
        """End `run`; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            CommandError: when the first start fails. Later ones are tried for ever.

        """
        self._launch.state.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        clear_leftovers(self._launch.state)
        backoff, first = FIRST_BACKOFF_S, True
        while not self._stopping.is_set():
            if first:
                self._launch.ports.check(self._launch.host)
            begun = time.monotonic()
            self._whole.clear()
            server = Server(self._launch)
            try:
                healthy_since = self._serve(server, first=first)
            finally:
                server.stop()
            if self._stopping.is_set():
                return
            first = False
            backoff = FIRST_BACKOFF_S if healthy_since and time.monotonic() - healthy_since > HEALTHY_S else backoff
            say(f"Triton ended after {time.monotonic() - begun:.0f} s; it is started again in {backoff:.0f} s.")
            self._stopping.wait(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_S)

    def _take_lock(self) -> None:
        self._lock = (self._launch.state / "serve.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError(
                f"Another modelctl serve uses {self._launch.state}: stop it, or give another folder by --state."
            ) from error

    def _serve(self, server: Server, *, first: bool) -> float | None:
        """Wait for the models and watch until the server ends; return since when it was healthy."""
        triton = Triton(f"127.0.0.1:{self._launch.ports.grpc}")
        try:
            if not self._wait_until_live(server, triton, first=first):
                return None
            self._report_failures(triton.states(), first=first)
            healthy_since = time.monotonic()
            while not self._stopping.is_set() and server.is_alive():
                self._watch(server, triton)
                self._stopping.wait(WATCH_S)
            return healthy_since
        except TritonError:
            return None  # the server died between two calls: it is started again
        finally:
            triton.close()

    def _wait_until_live(self, server: Server, triton: Triton, *, first: bool) -> bool:
        """Wait until Triton answers, which it does when it has tried to load every model, and show how far it is."""
        names = {name for model in self._wanted for name in (model.name, *model.steps)}
        deadline, shown = time.monotonic() + START_S, -1
        while not self._stopping.is_set() and server.is_alive() and time.monotonic() < deadline:
            server.stubs()
            live = triton.is_live()
            ready = len(server.loaded & names)
            if ready != shown:
                say(f"Models: {ready} of {len(names)} loaded")
                shown = ready
            if live:
                return True
            self._stopping.wait(0.1)
        if first and not self._stopping.is_set():
            loading = ", ".join(sorted(names - server.loaded)) or "none"
            log = self._launch.state / "triton.log"
            raise CommandError(f"Triton did not start in {START_S} s (not loaded: {loading}): read {log}.")
        return False

    def _report_failures(self, states: dict[str, State], *, first: bool) -> None:
        for model in self._wanted:
            if model.name not in states or states[model.name].state != READY:
                self._report(model, states, first=first)

    def _report(self, model: Model, states: dict[str, State], *, first: bool) -> None:
        """Say why a model did not load; a default model's failure ends the start."""
        parts = [states[name] for name in (*model.steps, model.name) if name in states]
        own = states.get(model.name, State(model.name, "", ""))
        fault = next((part for part in parts if part.state == UNAVAILABLE and part.reason), own)
        absent = [name for name in model.steps if name not in self._repository.models]
        reason = f"its step {absent[0]} is missing" if absent else _readable(fault.reason)
        sentence = f"Model {model.name} did not load: {fault.name}: {' '.join(reason.split())[:500]}"
        if model.default and first:
            raise CommandError(f"{sentence} Mend it, or start without it by --model NAME...")
        say(f"Warning: {sentence}")

    def _watch(self, server: Server, triton: Triton) -> None:
        """Find READY models with fewer living stubs than instances, and load them again."""
        counts = Counter(stub.model for stub in server.stubs())
        try:
            # Only where the number of stubs differs from when the model was last whole is Triton asked.
            changed = {name for name in counts.keys() | self._whole.keys() if counts[name] != self._whole.get(name)}
            dead = [name for name in sorted(changed) if self._lacks_stub(triton, name, counts[name])]
        except TritonError:
            return  # the server is going; the next look tells
        for name in dead:
            self._repair(server, triton, name)

    def _lacks_stub(self, triton: Triton, name: str, count: int) -> bool:
        state = triton.states().get(name)
        if state is None or state.state != READY:
            self._whole.pop(name, None)  # unloaded, or being loaded: no death
            self._missing.pop(name, None)
            return False
        if count >= triton.instances(name):
            self._whole[name] = count
            self._missing.pop(name, None)
            return False
        # Seen twice, since a model that has just become READY may be looked at between two of its stubs.
        self._missing[name] += 1
        return self._missing[name] >= 2

    def _repair(self, server: Server, triton: Triton, name: str) -> None:
        say(f"A process of {name} has died; it is loaded again.")
        self._missing.pop(name, None)
        try:
            triton.unload(name)
            # Living twins of the dead stub would keep the model from being unloaded, and outlive it.
            for stub in server.stubs():
                if stub.model == name:
                    with suppress(ProcessLookupError):
                        os.kill(stub.pid, signal.SIGKILL)
            deadline = time.monotonic() + UNLOAD_S
            while triton.states()[name].state not in ("", UNAVAILABLE) and time.monotonic() < deadline:
                time.sleep(0.05)
            triton.load(name)
            for ensemble in self._repository.ensembles_of(name):
                if triton.states()[ensemble.name].state != READY and self._is_wanted(ensemble):
                    triton.load(ensemble.name)
            say(f"{name} serves again.")
        except TritonError as error:
            say(f"{name} could not be loaded again ({PATHS.sub('', str(error))[:200]}); Triton is restarted.")
            server.stop()
        server.sweep()

    def _is_wanted(self, ensemble: Model) -> bool:
        return ensemble in self._wanted


def _readable(reason: str) -> str:
    """Return Triton's reason without a traceback and without the folders of paths."""
    return PATHS.sub("", reason.partition("\n\nAt:")[0]) or "Triton gave no reason"
