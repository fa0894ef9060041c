"""The package is built and installed alone, with its dependencies and nothing more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
UV = str(Path(sys.executable).parent / "uv")
USE = """
import sys
import httpx
from triton_gateway_client import AsyncGateway, Gateway

found = {name for name in ("PIL", "numpy", "app", "tritonclient") if __import__("importlib.util").util.find_spec(name)}
assert not found, found
answer = {"model": "m", "version": "1", "request_id": "r", "image": {"width": 2, "height": 1},
          "predictions": [{"label": "cat", "class_id": 1, "score": 0.5}]}
transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
with httpx.Client(transport=transport) as http:
    gateway = Gateway(http=http)
    print(gateway.classify(b"image").best.label)
    try:
        gateway.classify(object())
    except TypeError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package from a copy of its folder alone."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "client", folder / "client", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", str(folder)]
    subprocess.run([*command, str(folder / "client")], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_its_types_and_its_licence(wheel: Path) -> None:
    """Every module, the marker `py.typed`, and the licence; nothing else of this repository."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (licence,) = (name for name in names if name.endswith("/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    package = {f"triton_gateway_client/{path.name}" for path in (ROOT / "client/triton_gateway_client").glob("*.*")}
    assert "triton_gateway_client/py.typed" in package
    assert {name for name in names if ".dist-info/" not in name} == package


def test_it_works_alone(wheel: Path, tmp_path: Path) -> None:
    """In an environment with only the package and its dependencies, it is imported and answers without Pillow."""
    environment = tmp_path / "environment"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    # The lock says which versions, so that a new release elsewhere breaks no test here.
    lock = str(ROOT / "requirements" / "dev.txt")
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--python", python, "-c", lock, str(wheel)], check=True, cwd=tmp_path
    )
    done = subprocess.run([python, "-I", "-c", USE], check=True, capture_output=True, text=True, cwd=tmp_path)
    label, refusal = done.stdout.splitlines()
    assert label == "cat"
    assert "triton-gateway-client[images]" in refusal
