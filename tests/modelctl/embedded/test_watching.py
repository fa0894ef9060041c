"""The supervisor's decisions, without a server: repairs, giving up, pauses between starts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from modelctl.embedded import supervisor
from modelctl.embedded.installation import Installation
from modelctl.embedded.ports import Ports
from modelctl.embedded.processes import Stub
from modelctl.embedded.server import Launch
from modelctl.embedded.supervisor import AbortError, Supervisor
from modelctl.embedded.triton import READY, UNAVAILABLE, State, TritonError
from modelctl.errors import CommandError
from modelctl.models.repository import Model


class FakeServer:
    """A server whose process ends after a number of looks; each step has one stub."""

    def __init__(self, *stubs: str, looks: int = 5) -> None:
        self.living = [Stub(0, name, "") for name in stubs]
        self.loaded: set[str] = set()
        self.killed = False
        self.calls: list[str] = []
        self._looks = looks

    def is_alive(self) -> bool:
        self._looks -= 1
        return self._looks >= 0 and not {"stop", "clear"} & set(self.calls)

    def was_killed(self) -> bool:
        return self.killed

    def stubs(self) -> list[Stub]:
        return self.living

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)  # stop, clear, sweep


class FakeTriton:
    """A Triton that serves one step, `step`, in the ensemble `whole`; a load brings its stub back."""

    def __init__(self, server: FakeServer, state: str = READY, *, live: bool = True, fault: str = "") -> None:
        self.server, self.live, self.fault = server, live, fault
        self.known = {"step": State("step", state, versions=1)}
        self.calls: list[str] = []

    def is_live(self) -> bool:
        return self.live

    def states(self) -> dict[str, State]:
        return self.known

    def state(self, name: str) -> str:
        return UNAVAILABLE

    def stubs(self, name: str) -> int:
        return 1

    def ensembles_of(self, name: str) -> list[str]:
        return ["whole"]

    def unload(self, name: str) -> None:
        self.calls.append(f"unload {name}")

    def load(self, name: str) -> None:
        if self.fault:
            raise TritonError(self.fault)
        self.calls.append(f"load {name}")
        self.server.living = [Stub(0, "step", "")]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Return a supervisor that looks without pauses, and has started nothing."""
    monkeypatch.setattr(supervisor, "WATCH_S", 0)
    found = Installation(tmp_path / "tritonserver", True, tmp_path, tmp_path)
    launch = Launch(found, tmp_path, tmp_path, tmp_path / "state", "127.0.0.1", Ports(1, 2), ())
    return Supervisor(launch, [])


def watch(made: Supervisor, server: FakeServer, triton: FakeTriton) -> None:
    """Let it watch until the server ends."""
    made._watch(server, triton)  # type: ignore[arg-type]


def test_a_model_without_its_stub_is_loaded_again_once(made: Supervisor) -> None:
    """Its ensembles are loaded again too."""
    server = FakeServer()
    triton = FakeTriton(server)
    watch(made, server, triton)
    assert triton.calls == ["unload step", "load step", "load whole"]
    assert server.calls == ["sweep"]


@pytest.mark.parametrize(("stubs", "state", "looks"), [((), READY, 1), ((), "LOADING", 5), (("step",), READY, 5)])
def test_models_not_proven_dead_are_left_alone(
    made: Supervisor, stubs: tuple[str, ...], state: str, looks: int
) -> None:
    """One seen once without a stub, one that is loading, and a complete one."""
    server = FakeServer(*stubs, looks=looks)
    triton = FakeTriton(server, state)
    watch(made, server, triton)
    assert triton.calls == []


def test_a_load_that_fails_restarts_the_server(made: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names no folders."""
    server = FakeServer()
    watch(made, server, FakeTriton(server, fault="cannot open /srv/models/step/model.py"))
    assert server.calls == ["stop", "sweep"]
    assert "step could not be loaded again (cannot open model.py)" in "".join(capsys.readouterr())


@pytest.mark.parametrize(("looks", "calls"), [(supervisor.SILENT_LOOKS - 1, []), (99, ["clear"])])
def test_a_server_that_does_not_answer_is_killed(made: Supervisor, looks: int, calls: list[str]) -> None:
    """Only after several silent looks in a row."""
    server = FakeServer(looks=looks)
    watch(made, server, FakeTriton(server, live=False))
    assert server.calls == calls


def test_only_a_default_model_ends_the_first_start(made: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is the failed step's, without its traceback. Later starts only warn."""
    states = {"step": State("step", UNAVAILABLE, "no tokenizer\n\nAt:\n  /srv/model.py(3)")}
    model = Model("whole", True, ("step",))
    with pytest.raises(CommandError, match=r"^Model whole did not load: step: no tokenizer Fix it"):
        made._report(model, states, first=True)
    made._report(model, states, first=False)
    made._report(Model("whole", False, ("step",)), states, first=True)
    assert "".join(capsys.readouterr()).count("Warning: Model whole did not load: step: no tokenizer\n") == 2


@pytest.mark.parametrize(("killed", "error"), [(True, AbortError), (False, CommandError)])
def test_an_abort_differs_from_an_exit(made: Supervisor, killed: bool, error: type[CommandError]) -> None:
    """A server that a signal ended during its start may be started again; one that exited may not."""
    server = FakeServer(looks=0)
    server.killed = killed
    made._wanted = [Model("whole", True, ("step",))]
    with pytest.raises(CommandError, match=r"ended while it started \(not loaded: step, whole\)") as caught:
        made._wait_until_live(server, FakeTriton(server, live=False), first=True)  # type: ignore[arg-type]
    assert type(caught.value) is error


def test_an_abort_is_tried_three_times(made: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server is stopped before the next begins."""
    servers = [FakeServer() for _ in range(supervisor.FIRST_TRIES)]
    begun = iter(servers)

    def abort(*_: Any, **__: Any) -> float:
        raise AbortError("aborted")

    monkeypatch.setattr(supervisor, "Server", lambda *_: next(begun))
    monkeypatch.setattr(made, "_prepare", lambda **_: made._launch)
    monkeypatch.setattr(made, "_serve", abort)
    with pytest.raises(AbortError):
        made._run_server(None, first=False)  # type: ignore[arg-type]
    assert [server.calls for server in servers] == [["stop"]] * supervisor.FIRST_TRIES
    assert next(begun, None) is None


def test_the_pause_between_starts_doubles_and_begins_anew(made: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It doubles up to a limit; after a server that was healthy for a while, it is the first pause again."""
    healthy = iter([0, 0, 0, 0, 0, 0, 0, supervisor.HEALTHY_S + 1, 0])
    pauses: list[float] = []

    def attempt(*_: Any, **__: Any) -> float:
        seconds = next(healthy, None)
        if seconds is None:
            made.stop()
        return seconds or 0

    monkeypatch.setattr(made, "_attempt", attempt)
    monkeypatch.setattr(made._stopping, "wait", pauses.append)
    made.run()
    assert pauses == [*itertools.takewhile(lambda pause: pause < 30, (2.0**n for n in range(9))), 30, 30, 1, 2]
