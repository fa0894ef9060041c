"""Keeps Triton serving: starts it, loads its models, and repairs what dies.

    read the repository, start -> watch --stub died--> load its model again
      ^                             |
      +--------- back-off <---------+ server died or hangs: its group is killed, its shared memory swept

Triton 24.10 neither restarts a dead Python step nor reports its model as unready, so the supervisor watches the stubs'
processes: a model that is READY must have as many living stubs as instances. Models may come and go while Triton runs,
so the supervisor asks Triton for its models, and reads the repository at each start.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelctl.console import say
from modelctl.embedded import control
from modelctl.embedded.server import Launch, Server
from modelctl.embedded.state import StateFolder, take_state
from modelctl.embedded.triton import READY, UNAVAILABLE, State, Triton, TritonError
from modelctl.errors import CommandError
from modelctl.models.repository import Model, Repository
from modelctl.plans import choice

FIRST_BACKOFF_S, LONGEST_BACKOFF_S, HEALTHY_S = 1.0, 30.0, 5.0
WATCH_S = 0.5
# Each look takes up to 1 s for the call, and WATCH_S of pause: 10 s in all.
SILENT_LOOKS = 7
START_S, UNLOAD_S = 120, 6
FIRST_TRIES = 3
PATHS = re.compile(r"(?:/[^\s:,'\"]+)+/")


class AbortError(CommandError):
    """A signal ended Triton while it started: 24.10 sometimes aborts when a step fails while others load."""


class Supervisor:
    """Runs one Triton until it is told to stop.

    Args:
        launch: how it is started.
        names: the models to load; empty for all in the repository.

    """

    def __init__(self, launch: Launch, names: list[str]) -> None:
        self._launch = launch
        self._names = names
        self._wanted: list[Model] = []
        self._stopping = threading.Event()
        self._has_served = False
        self._backends: Path | None = None
        # Stubs per model when it last had all (0 when Python does not run it), and models that lacked one just now.
        self._complete: dict[str, int] = {}
        self._lacking: set[str] = set()

    def stop(self) -> None:
        """End `run`; may be called from another thread."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            CommandError: when the first start fails. Later starts are retried for ever.

        """
        with take_state(self._launch.state) as state:
            self._launch = replace(self._launch, key=control.of_server(state))
            backoff, first = FIRST_BACKOFF_S, True
            while not self._stopping.is_set():
                begun = time.monotonic()
                healthy_for = self._attempt(state, first=first)
                if self._stopping.is_set():
                    return
                first = False
                backoff = FIRST_BACKOFF_S if healthy_for > HEALTHY_S else backoff
                say(f"Triton ended after {time.monotonic() - begun:.0f} s; it is started again in {backoff:.0f} s.")
                self._stopping.wait(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF_S)

    def _attempt(self, state: StateFolder, *, first: bool) -> float:
        """Do as `_run_server`, but after the first start report errors, such as those of the state folder."""
        try:
            if not state.is_there():
                state.renew()
                control.keep(state, self._launch.key)
            self._assemble(state)
            return self._run_server(state, first=first)
        except (CommandError, OSError) as error:
            if first and not self._has_served:
                raise CommandError(str(error)) from error
            say(f"Triton cannot be started: {error}")
            return 0

    def _assemble(self, state: StateFolder) -> None:
        """Assemble the backend directory again; when it cannot be written, use the previous one.

        Raises:
            CommandError: when that is gone too, and a temporary folder cannot be made.

        """
        installation, source = self._launch.installation, self._launch.backends
        try:
            self._backends = installation.backend_directory(source, state.path)
        except OSError as error:
            if self._backends is None:
                raise state.refusal(error) from error
            if self._backends.is_dir():
                say(f"{state.path} cannot be written ({error.strerror}): Triton starts with the previous backends.")
                return
            state.move()
            self._backends = installation.backend_directory(source, state.path)

    def _run_server(self, state: StateFolder, *, first: bool, tries: int = FIRST_TRIES) -> float:
        """Start Triton, watch it until it ends, and clean up; return for how many seconds it was healthy."""
        launch = self._prepare(first=first)
        if first:
            launch.ports.check(launch.host)
        self._complete.clear()
        self._lacking.clear()
        server = Server(launch, state, self._backends)
        try:
            return self._serve(server, first=first)
        except AbortError:
            if tries == 1:
                raise
            say("Triton aborted while it started; it is started again.")
        finally:
            server.stop()
        return self._run_server(state, first=first, tries=tries - 1)

    def _prepare(self, *, first: bool) -> Launch:
        """Decide which models to load, and whether as ONNX or as plans."""
        try:
            self._wanted = Repository(self._launch.models).wanted(self._names)
        except CommandError:
            if first:
                raise
            # The previous models are tried again; those that fail are reported once Triton has tried to load them.
        names = [name for model in self._wanted for name in (model.name, *model.steps)]
        chosen = choice.choose(self._launch.models, names, choice.this_machine())
        say(f"Networks run as {'TensorRT plans' if chosen.plans else 'ONNX'}: {chosen.reason}.")
        load = tuple(model.name for model in self._wanted)
        return replace(self._launch, load=load, variant=choice.VARIANT if chosen.plans else None)

    def _serve(self, server: Server, *, first: bool) -> float:
        """Wait for the models and watch until the server ends; return for how many seconds it was healthy."""
        triton = Triton(f"127.0.0.1:{self._launch.ports.grpc}", self._stopping, self._launch.key)
        try:
            if not self._wait_until_live(server, triton, first=first):
                return 0
            self._report_failures(triton.states(), first=first)
            self._has_served = True
            healthy_since = time.monotonic()
            self._watch(server, triton)
            return time.monotonic() - healthy_since
        except TritonError:
            return 0  # the server died between two calls; `run` starts it again
        finally:
            triton.close()

    def _wait_until_live(self, server: Server, triton: Triton, *, first: bool) -> bool:
        """Wait until Triton answers, which it does once it has tried to load every model; show the progress."""
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
            fault = f"did not start in {START_S} s" if server.is_alive() else "ended while it started"
            kind = AbortError if server.was_killed() else CommandError
            raise kind(f"Triton {fault} (not loaded: {loading}): read {log}.")
        return False

    def _report_failures(self, states: dict[str, State], *, first: bool) -> None:
        for model in self._wanted:
            if model.name not in states or states[model.name].state != READY:
                self._report(model, states, first=first)

    def _report(self, model: Model, states: dict[str, State], *, first: bool) -> None:
        """Say why a model did not load; a default model's failure ends the first start."""
        parts = [
            states.get(name, State(name, UNAVAILABLE, "its folder is missing")) for name in (*model.steps, model.name)
        ]
        fault = next((part for part in parts if part.state == UNAVAILABLE and part.reason), State(model.name))
        reason = " ".join(_readable(fault.reason).split())[:500]
        sentence = f"Model {model.name} did not load: {fault.name}: {reason}"
        if model.default and first:
            raise CommandError(f"{sentence} Fix it, or load only other models with --model NAME...")
        say(f"Warning: {sentence}")

    def _watch(self, server: Server, triton: Triton) -> None:
        """Repair models until the server ends; kill the server when it lives but does not answer."""
        silent = 0
        while not self._stopping.is_set() and server.is_alive():
            silent = 0 if triton.is_live() else silent + 1
            if silent == SILENT_LOOKS:
                say("Triton has not answered for 10 s; it is killed.")
                server.clear()
                return
            if not silent:
                self._repair_models(server, triton)
            self._stopping.wait(WATCH_S)

    def _repair_models(self, server: Server, triton: Triton) -> None:
        """Find READY models with fewer living stubs than instances, and load them again."""
        counts = Counter(stub.model for stub in server.stubs())
        try:
            lacking = {state.name for state in triton.states().values() if self._lacks_stub(triton, state, counts)}
        except TritonError:
            return  # the server is ending, or a model is being unloaded; the next look decides
        # Only when seen twice: not all stubs of a model that has just become READY may be there at the first look.
        dead = lacking & self._lacking
        self._lacking = lacking - dead
        for name in sorted(dead):
            self._reload(server, triton, name)

    def _lacks_stub(self, triton: Triton, state: State, counts: Counter[str]) -> bool:
        """Tell whether a READY model lacks stubs; ask Triton only when the number of stubs has changed."""
        if state.state != READY:
            self._complete.pop(state.name, None)  # unloaded or being loaded: no stub has died
            return False
        count = counts[state.name]
        if count == self._complete.get(state.name):
            return False
        if count < triton.stubs(state.name) * state.versions:
            return True
        self._complete[state.name] = count
        return False

    def _reload(self, server: Server, triton: Triton, name: str) -> None:
        say(f"A process of {name} has died; it is loaded again.")
        try:
            ensembles = triton.ensembles_of(name)
            triton.unload(name)
            self._kill_stubs(server, name)
            deadline = time.monotonic() + UNLOAD_S
            while triton.state(name) not in ("", UNAVAILABLE) and time.monotonic() < deadline:
                time.sleep(0.05)
            triton.load(name)
            # The stubs that live right after a load count as all, so that a miscount cannot cause endless reloads.
            self._complete[name] = sum(stub.model == name for stub in server.stubs())
            for ensemble in ensembles:
                if triton.state(ensemble) != READY:
                    triton.load(ensemble)
            say(f"{name} serves again.")
        except TritonError as error:
            if self._stopping.is_set():
                return
            say(f"{name} could not be loaded again ({PATHS.sub('', str(error))[:200]}); Triton is restarted.")
            server.stop()
        server.sweep()

    @staticmethod
    def _kill_stubs(server: Server, name: str) -> None:
        """Kill the other stubs of a model with a dead one: they would block its unloading, and outlive it."""
        for stub in server.stubs():
            if stub.model == name:
                with suppress(ProcessLookupError):
                    os.kill(stub.pid, signal.SIGKILL)


def _readable(reason: str) -> str:
    """Return Triton's reason without its traceback, and with file names instead of paths."""
    return PATHS.sub("", reason.partition("\n\nAt:")[0]) or "Triton gave no reason"
