"""`modelctl doctor`, and the sentences of doctor and of the start on unsuitable machines."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from modelctl.embedded import diagnosis, installation
from modelctl.errors import CommandError

ROOT = Path(__file__).resolve().parents[3]


def test_this_machine_is_fine() -> None:
    """Where the tests run nothing fails, and the report is available as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "modelctl", "doctor", "--json"], cwd=ROOT, capture_output=True, text=True
    )
    findings = json.loads(done.stdout)
    assert done.returncode == 0
    assert {finding["check"] for finding in findings} >= {"platform", "python", "libpython", "shared memory", "gpu"}
    assert not [finding for finding in findings if finding["result"] == "fail"]


def test_a_wrong_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too new or too old ends with one sentence that names the supported versions."""
    for version in ((3, 10, 0), (3, 13, 0)):
        monkeypatch.setattr(sys, "version_info", type("V", (tuple,), {"major": 3, "minor": version[1]})(version))
        with pytest.raises(CommandError, match=r"Python 3\.11 or 3\.12 is needed"):
            installation.check_python()


def test_a_missing_libpython_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian's static Python gets the name of the package to install."""
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    if any(Path(folder).glob("libpython3.1*.so.1.0") for folder in ("/usr/lib64", "/usr/lib")):
        monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(CommandError, match="libpython3"):
        installation.libpython()


@pytest.mark.parametrize(("machine", "libc"), [("aarch64", ("glibc", "2.36")), ("x86_64", ("glibc", "2.31"))])
def test_another_platform_is_pointed_to_compose(
    monkeypatch: pytest.MonkeyPatch, machine: str, libc: tuple[str, str]
) -> None:
    """On ARM and with an old glibc the advice is Docker Compose."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    with pytest.raises(CommandError, match="Docker Compose"):
        installation.check_platform()


@pytest.mark.parametrize(("capability", "result"), [("9.0", "ok"), ("7.5", "ok"), ("7.0", "warning"), ("x", "warning")])
def test_old_gpus_are_reported(monkeypatch: pytest.MonkeyPatch, capability: str, result: str) -> None:
    """TensorRT needs compute capability 7.5."""
    answers = {"name": "A GPU", "driver_version": "600.1", "compute_cap": capability}
    monkeypatch.setattr("modelctl.plans.choice.nvidia_smi", answers.__getitem__)
    findings = {finding.check: finding.result for finding in diagnosis.examine()}
    assert findings["compute"] == result


def test_little_shared_memory_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice for a container with 64 MB is to raise shm_size."""
    usage = type("Usage", (), {"free": 64 << 20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    finding = next(finding for finding in diagnosis.examine() if finding.check == "shared memory")
    assert finding.result == "fail"
    assert "shm_size" in finding.text


@pytest.mark.parametrize("variable", ["GATEWAY_PORT", "TRITON_GRPC_PORT"])
def test_a_bad_port_is_one_failing_line(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """An invalid port variable fails by name, and the rest of the report is still there."""
    good = {finding.check for finding in diagnosis.examine()}
    monkeypatch.setenv(variable, "80a")
    findings = diagnosis.examine()
    assert {finding.check for finding in findings} == good
    fault = f"'80a' is not a port for {variable}: give a number from 1 to 65535."
    assert [finding.text for finding in findings if finding.result == "fail"] == [fault]
