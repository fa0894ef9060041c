"""A real stack for the tests: embedded Triton with the bundled models and some that misbehave, and a gateway."""

from __future__ import annotations

import io
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import modelctl  # noqa: F401 - before grpc, whose handlers of fork() it switches off

# isort: split

import httpx
import numpy as np
import pytest
from PIL import Image
from skimage import data
from starts import pytest_collection_modifyitems, pytest_ignore_collect, pytest_runtest_protocol  # noqa: F401 - hooks of pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from benchmarks import stack as launcher
from modelctl.embedded import control
from modelctl.embedded.triton import READY, Triton, TritonError

ROOT = Path(__file__).resolve().parent.parent
STANDINS = ROOT / "tests" / "standins"
BUNDLED = ("efficientnet_lite0", "lite_detector", "minilm_sentiment", "simple_net")
MISBEHAVING = ("misbehaving", "short_queue", "wrong_contract")
"""Models of tests/standins, all of the backend `misbehave`."""


for _number in (signal.SIGINT, signal.SIGHUP):
    # Tests that run in the background or under nohup were told to ignore these, and what they start would inherit it.
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

MADE: list[Stack] = []
"""All stacks of this process."""
SHARED: list[Stack] = []
"""Those that more than one module uses."""


class Stack(launcher.Stack):
    """The launcher's stack, and what tests ask of it."""

    _at_first: set[str]

    def control(self) -> Triton:
        """Return Triton, for somebody who has the control key."""
        return Triton(self.address, key=(self.key or self.state / control.FILE).read_text().strip())

    def infer(self, model: str, timeout_s: float = 10, **inputs: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        """Ask a model of Triton for its outputs; raises InferenceServerException."""
        tensors = []
        for name, array in inputs.items():
            tensors.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
            tensors[-1].set_data_from_numpy(array)
        with closing(InferenceServerClient(self.address)) as client:
            answer = client.infer(model, tensors, client_timeout=timeout_s)
        return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}

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

    def stop(self) -> list[str]:
        """Stop both, which must end in time."""
        killed = super().stop()
        assert not killed
        return killed

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
    for source in sorted((ROOT / "backends").iterdir()):
        if (source / "model.py").exists():
            (backends / source.name).symlink_to(source)
    if test_models:
        (backends / "misbehave").symlink_to(STANDINS / "backends" / "misbehave")
        for name in MISBEHAVING:
            shutil.copytree(STANDINS / "models" / name, models / name)
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
        MADE.append(Stack(folder, models, folder / "backends", settings or {}, serve_options, key))
        return MADE[-1]

    yield make
    stop([*MADE])


@pytest.fixture(scope="session")
def make_gateway(make_stack: Callable[..., Stack]) -> Callable[..., Stack]:
    """Return a function that starts a gateway before the Tritons of other stacks."""

    def make(*tritons: Any, **settings: str) -> Stack:
        urls = ",".join(triton.address for triton in tritons)
        made = make_stack((), {"GATEWAY_TRITON_URLS": urls, **settings}, test_models=False)
        made.start_gateway()
        made.wait_ready()
        return made

    return make


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
