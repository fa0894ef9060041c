"""A real stack for the tests: embedded Triton with the bundled models and some that misbehave, and a gateway."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import modelctl  # noqa: F401 - before grpc, whose handlers of fork() it switches off

# isort: split

import httpx
import numpy as np
import pytest
from dotenv import dotenv_values
from PIL import Image
from skimage import data
from starts import pytest_collection_modifyitems, pytest_ignore_collect, pytest_runtest_protocol  # noqa: F401 - hooks of pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from modelctl.embedded import control
from modelctl.embedded.triton import READY, Triton, TritonError

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ("efficientnet_lite0", "lite_detector", "minilm_sentiment", "simple_net")


for _number in (signal.SIGINT, signal.SIGHUP):
    # Tests that run in the background or under nohup were told to ignore these, and what they start would inherit it.
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

MADE: list[Stack] = []
"""All stacks of this process."""
SHARED: list[Stack] = []
"""Those that more than one module uses."""
PORTS_EACH = 1500


def _ports() -> Iterator[int]:
    """Yield ports for this process alone, below those that Linux gives to clients, which could take them meanwhile."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    first = 12_000 + worker * PORTS_EACH
    begun = os.getpid() * 8 % PORTS_EACH  # another run of the tests beside this one begins elsewhere
    while True:
        for number in range(PORTS_EACH):
            yield first + (begun + number) % PORTS_EACH


PORTS = _ports()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and that no other process of this run is given."""
    found: list[int] = []
    while len(found) < count:
        port = next(PORTS)
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


@dataclass
class Stack:
    """One Triton with its supervisor, and one gateway."""

    folder: Path
    models: Path
    settings: dict[str, str] = field(default_factory=dict)
    serve_options: tuple[str, ...] = ()
    key: Path | None = None
    """The file with the control key, where it is not `serve` that makes one."""

    def __post_init__(self) -> None:
        self.port, self.grpc, self.metrics = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = self.folder / "state"
        self.triton: subprocess.Popen[bytes] | None = None
        self.gateway: subprocess.Popen[bytes] | None = None
        self._at_first: set[str] = set()

    def environment(self) -> dict[str, str]:
        """Return the environment of both processes."""
        ports = {
            "GATEWAY_PORT": str(self.port),
            "TRITON_GRPC_PORT": str(self.grpc),
            "TRITON_METRICS_PORT": str(self.metrics),
        }
        key = {control.VARIABLE: str(self.key)} if self.key else {}
        # The settings of whoever runs the tests are none of theirs: empty stands for the default.
        others = dict.fromkeys(dotenv_values(ROOT / ".env"), "")
        return {**others, **os.environ, **ports, **key, **self.settings}

    def control(self) -> Triton:
        """Return a client of Triton with the control key."""
        return Triton(f"127.0.0.1:{self.grpc}", key=(self.key or self.state / control.FILE).read_text().strip())

    def infer(self, model: str, timeout_s: float = 10, **inputs: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        """Ask a model of Triton for its outputs; raises InferenceServerException."""
        tensors = []
        for name, array in inputs.items():
            tensors.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
            tensors[-1].set_data_from_numpy(array)
        with closing(InferenceServerClient(f"127.0.0.1:{self.grpc}")) as client:
            answer = client.infer(model, tensors, client_timeout=timeout_s)
        return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}

    def start(self) -> None:
        """Start both and wait until the gateway is ready."""
        self.start_triton()
        self.start_gateway()
        self.wait_ready()

    def share(self) -> Self:
        """Start the stack for several modules; each must leave it unchanged."""
        self.start()
        self._at_first = self._found()
        SHARED.append(self)
        return self

    def _found(self) -> set[str]:
        """Return the content of the repository, Triton's models, and the gateway's list."""
        with closing(self.control()) as triton:
            states = triton.states()
        listed = httpx.get(f"{self.url}/v1/models", timeout=10).raise_for_status().json()["models"]
        return {
            *(f"folder {path.name}" for path in self.models.iterdir()),
            *(f"served {one.name} {one.versions}" for one in states.values() if one.state == READY),
            *(f"listed {one['name']} {one['state']} {one['versions']}" for one in listed),
        }

    def wait_as_it_was(self, *, gone: bool = False, seconds: float = 60) -> None:
        """Wait until it serves what it served at first.

        Args:
            gone: whether the gateway must have forgotten what was there meanwhile, which takes it half a minute.

        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                different = self._found() ^ self._at_first
            except (httpx.HTTPError, TritonError) as error:
                different = {f"no answer: {error}"}
            different = {one for one in different if gone or " not_ready " not in one}
            if not different:
                return
            if time.monotonic() > deadline:
                self._at_first = self._found()  # one module fails, not all that come after it
                pytest.fail(f"a test has left the shared stack otherwise than it was: {sorted(different)}")
            time.sleep(0.2)

    def start_triton(self) -> None:
        """Start Triton under its supervisor."""
        command = [
            *(sys.executable, "-m", "modelctl", "serve", "--models", str(self.models)),
            *("--backends", str(self.folder / "backends"), "--state", str(self.state), *self.serve_options),
        ]
        with (self.folder / "triton.out").open("ab") as out:
            self.triton = subprocess.Popen(command, cwd=ROOT, env=self.environment(), stdout=out, stderr=out)

    def start_gateway(self) -> None:
        """Start the gateway."""
        with (self.folder / "gateway.out").open("ab") as out:
            self.gateway = subprocess.Popen(
                [sys.executable, "-m", "app"], cwd=ROOT, env=self.environment(), stdout=out, stderr=out
            )

    def wait_ready(self, seconds: float = 90) -> float:
        """Wait until readyz reports ready; return the seconds that it took."""
        begun = time.monotonic()
        answer = "nothing"
        while time.monotonic() - begun < seconds:
            for process, name in ((self.triton, "triton.out"), (self.gateway, "gateway.out")):
                if process is not None and process.poll() is not None:
                    pytest.fail(f"a process ended: {(self.folder / name).read_text()[-3000:]}")
            try:
                response = httpx.get(f"{self.url}/readyz", timeout=10)
                answer = response.text
                if response.status_code == 200:
                    return time.monotonic() - begun
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        logs = "".join((self.folder / name).read_text()[-3000:] for name in ("triton.out", "gateway.out"))
        return pytest.fail(f"not ready after {seconds} s: {answer}\n{logs}")

    def tell_to_stop(self) -> None:
        """Send both the signal."""
        for process in (self.gateway, self.triton):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop both."""
        self.tell_to_stop()
        for process in (self.gateway, self.triton):
            if process is not None:
                process.wait(20)

    def client(self, **options: object) -> httpx.Client:
        """Return an HTTP client of the gateway."""
        return httpx.Client(base_url=self.url, timeout=60, **options)  # type: ignore[arg-type]


def repository(folder: Path, names: tuple[str, ...] = BUNDLED, *, test_models: bool = True) -> Path:
    """Make a model repository of links to bundled models, and copies of the tests' own; and a folder of backends."""
    models, backends = folder / "models", folder / "backends"
    models.mkdir(parents=True)
    backends.mkdir()
    for source in sorted((ROOT / "models").iterdir()):
        if source.is_dir() and any(source.name == name or source.name.startswith(f"{name}_") for name in names):
            shutil.copytree(source, models / source.name)
    sources = [ROOT / "backends", *([ROOT / "tests" / "backends"] if test_models else [])]
    for source in [folder for parent in sources for folder in sorted(parent.iterdir())]:
        if (source / "model.py").exists():
            (backends / source.name).symlink_to(source)
    if test_models:
        for source in sorted((ROOT / "tests" / "models").iterdir()):
            shutil.copytree(source, models / source.name)
            (models / source.name / "1").mkdir(exist_ok=True)
    return models


@pytest.fixture(scope="session")
def make_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Return a function that makes a stack without starting it; the stack ends with its module or last sharer."""
    key = tmp_path_factory.mktemp("control") / control.FILE
    key.touch(0o600)
    key.write_text(control.new())

    def make(
        names: tuple[str, ...] = BUNDLED,
        settings: dict[str, str] | None = None,
        serve_options: tuple[str, ...] = (),
        *,
        test_models: bool = True,
    ) -> Stack:
        folder = tmp_path_factory.mktemp("stack")
        models = repository(folder, names, test_models=test_models)
        MADE.append(Stack(folder, models, settings or {}, serve_options, key))
        return MADE[-1]

    yield make
    stop([*MADE])


@pytest.fixture(scope="session")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """Return the stack that most tests share; they must leave it unchanged."""
    return make_stack().share()


@pytest.fixture(scope="module", autouse=True)
def as_it_was() -> Iterator[None]:
    """Fail a module that has changed a shared stack; stop the module's own, which cost CPU while idle."""
    yield
    stop([one for one in MADE if one not in SHARED])
    for one in SHARED:
        one.wait_as_it_was()


def stop(stacks: list[Stack]) -> None:
    """Stop several stacks at once."""
    for stack in stacks:
        stack.tell_to_stop()
    for stack in stacks:
        stack.stop()
        MADE.remove(stack)


@pytest.fixture
def settled(stack: Stack) -> None:
    """Wait until the shared stack's catalogue no longer changes, for a test that reads it twice."""
    stack.wait_as_it_was(gone=True)


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    """Return a client of the shared stack's gateway."""
    with closing(stack.client()) as client:
        yield client


def encode(array: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:  # type: ignore[type-arg]
    """Return an image file of an array."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def coffee() -> bytes:
    """Return a cup of espresso, 600 x 400, as JPEG."""
    return encode(data.coffee())


@pytest.fixture(scope="session")
def astronaut() -> bytes:
    """Return a person, 512 x 512, as JPEG."""
    return encode(data.astronaut())


@pytest.fixture(scope="session")
def chelsea() -> bytes:
    """Return a cat, 451 x 300, as JPEG."""
    return encode(data.chelsea())


@pytest.fixture
def report(record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Return a function that prints the figures of a test."""

    def tell(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, value)
        with capsys.disabled():
            print("  " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)

    return tell
