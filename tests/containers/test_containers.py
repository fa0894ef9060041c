"""The images and the Compose file, as far as they can be tested without a Docker engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import VARIABLES, Settings
from modelctl.embedded.control import FILE, VARIABLE
from modelctl.embedded.state import take_state

ROOT = Path(__file__).resolve().parent.parent.parent


def compose(*arguments: str, **settings: str) -> str:
    """Run Docker Compose on the project's file."""
    docker = shutil.which("docker")
    has_plugin = docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0
    command = ["docker", "compose"] if has_plugin else ["docker-compose"]
    environment = {**os.environ, "COMPOSE_PROJECT_NAME": "gateway", **settings}
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services, as Docker Compose reads them."""
    found: dict[str, Any] = yaml.safe_load(compose("--profile", "cpu", "--profile", "plans", "config"))["services"]
    return found


def test_compose_reads_its_file(services: dict[str, Any]) -> None:
    """The real tool accepts it, and finds the four services."""
    assert sorted(services) == ["gateway", "plans", "triton", "triton-cpu"]
    assert "profiles" not in services["triton"]
    assert services["triton-cpu"]["profiles"] == ["cpu"]


def test_only_plans_may_write_models(services: dict[str, Any]) -> None:
    """The serving services mount the repository read-only, and no service keeps unneeded capabilities."""
    for name in ("triton", "triton-cpu", "plans"):
        mount = next(str(volume) for volume in services[name]["volumes"] if "/models" in str(volume))
        read_only = mount.endswith(":ro") or "'read_only': True" in mount
        assert read_only is (name != "plans")
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["restart"] in ("unless-stopped", "no")
    assert str(services["triton"]["shm_size"]) in ("1gb", "1073741824")
    assert services["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert "deploy" not in services["triton-cpu"]


@pytest.mark.slow
def test_plans_are_written_by_the_owner_of_the_models() -> None:
    """The service that builds plans runs as the given user, by default 1000, most machines' first user."""
    for settings, user in (({}, "1000:1000"), ({"PLANS_USER": "1234:5678"}, "1234:5678")):
        found = yaml.safe_load(compose("--profile", "plans", "config", **settings))["services"]
        assert str(found["plans"]["user"]) == user
        assert "user" not in found["triton"]


@pytest.mark.parametrize("name", ["Dockerfile.triton", "Dockerfile.app"])
def test_dockerfiles_are_clean(name: str) -> None:
    """The linter finds nothing; every image runs as a user other than root and has a health check."""
    done = subprocess.run([Path(sys.prefix) / "bin" / "hadolint", name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = (ROOT / name).read_text()
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "10001"
    assert "HEALTHCHECK" in text


@pytest.mark.parametrize("name", ["Dockerfile.triton", "Dockerfile.app"])
def test_everything_copied_exists_and_is_not_ignored(name: str) -> None:
    """Each COPY from the build context names something that .dockerignore lets through."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / name).read_text(), re.MULTILINE)
    assert copies
    for source in (source for line in copies for source in line.split()[:-1]):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed


def test_the_image_of_triton_has_every_backend_but_the_stand_in() -> None:
    """A new backend must be in the image; the stand-in would hide NVIDIA's ONNX Runtime backend."""
    copied = set(re.findall(r"^COPY backends/(\w+) ", (ROOT / "Dockerfile.triton").read_text(), re.MULTILINE))
    backends = {path.parent.name for path in (ROOT / "backends").glob("*/model.py")}
    assert copied == backends - {"onnxruntime"}


def test_plans_are_built_in_triton_s_image_with_modelopt_beside_it(services: dict[str, Any]) -> None:
    """The image that builds plans is the serving one plus ModelOpt; the serving one is what is built by default."""
    text = (ROOT / "Dockerfile.triton").read_text()
    stages = {name: source for source, name in re.findall(r"^FROM (\S+) AS (\w+)$", text, re.MULTILINE)}
    assert stages["plans"] == "triton"
    assert stages["triton"].startswith("nvcr.io/nvidia/tritonserver:")
    _, plans, serving = re.split(r"^FROM triton.*$", text, flags=re.MULTILINE)
    assert "modelopt" in plans
    assert "modelopt" not in serving
    assert services["plans"]["build"]["target"] == "plans"
    assert "target" not in services["triton"]["build"]
    assert services["plans"]["build"]["args"] == services["triton"]["build"]["args"]
    assert services["plans"]["image"] != services["triton"]["image"]
    # Anyone may write to the folder of earlier plans, since the user is whoever owns models/.
    assert "--mode=1777 /plans" in plans
    assert any("/plans" in str(volume) for volume in services["plans"]["volumes"])


def test_the_plans_service_runs_an_existing_command() -> None:
    """It runs `modelctl plan` with valid options, on the folders that it mounts."""
    (line,) = re.findall(
        r'^ENTRYPOINT (\["modelctl", "plan".*\])$', (ROOT / "Dockerfile.triton").read_text(), re.MULTILINE
    )
    command = yaml.safe_load(line)
    done = subprocess.run([sys.executable, "-m", *command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert {"--models", "--cache"} <= set(command) & set(re.findall(r"--\w+", done.stdout))
    assert command[command.index("--models") + 1] == "/models"
    assert command[command.index("--cache") + 1] == "/plans"


def test_read_only_services_have_a_temporary_folder(services: dict[str, Any]) -> None:
    """Python needs one to start."""
    for name, service in services.items():
        assert not service.get("read_only") or "/tmp" in str(service.get("tmpfs")), name


def test_compose_and_kubernetes_wait_for_the_drain(services: dict[str, Any]) -> None:
    """Compose and Kubernetes give it slightly more time than its drain settings need."""
    image = re.findall(r"GATEWAY_DRAIN_(?:DELAY|TIMEOUT)_S=(\d+)", (ROOT / "Dockerfile.app").read_text())
    assert len(image) == 2
    grace = int(re.sub(r"\D", "", str(services["gateway"]["stop_grace_period"])))
    assert grace >= sum(map(int, image)) + 2
    deployment, *_ = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "gateway.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    given = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    times = int(given["GATEWAY_DRAIN_DELAY_S"]) + int(given["GATEWAY_DRAIN_TIMEOUT_S"])
    assert pod["terminationGracePeriodSeconds"] >= times + 2
    Settings.model_validate({name.removeprefix("GATEWAY_").lower(): value for name, value in given.items()})


def test_compose_hands_the_gateway_every_setting(
    tmp_path: Path, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `.env`, by the usual names; addresses inside the network stay, the host's ports are mapped."""
    file = tmp_path / "env"
    file.write_text(
        "GATEWAY_PORT=28080 # a comment\nGATEWAY_HOST=0.0.0.0\nTRITON_GRPC_PORT=28001\nGATEWAY_TRITON_URLS=a:1\n"
        "GATEWAY_WORKERS='3'\nGATEWAY_LOG_LEVEL=INFO\nGATEWAY_DRAIN_TIMEOUT_S=7\n"
    )
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "TRITON_"))]:
        monkeypatch.delenv(name)  # it would win over the file
    found = yaml.safe_load(compose("--env-file", str(file), "--profile", "cpu", "config"))["services"]
    given = found["gateway"]["environment"]
    assert given.keys() >= set(VARIABLES) - {"TRITON_GRPC_PORT"}
    assert (given["GATEWAY_WORKERS"], given["GATEWAY_LOG_LEVEL"]) == ("3", "INFO")
    assert (str(given["GATEWAY_PORT"]), given["GATEWAY_TRITON_URLS"]) == ("8080", "triton:8001")
    assert given["GATEWAY_DRAIN_TIMEOUT_S"] == "7"
    ports = str(found["gateway"]["ports"])
    assert "0.0.0.0" in ports
    assert "28080" in ports
    assert "28001" in str(found["triton-cpu"]["ports"])
    # Where neither has it, what the image sets stays.
    usual = services["gateway"]["environment"]
    image = dict(re.findall(r"(GATEWAY_\w+)=(\S+)", (ROOT / "Dockerfile.app").read_text()))
    assert {name: str(usual[name]) for name in image} == image
    assert usual["GATEWAY_WORKERS"] is None


def test_gateway_and_triton_share_the_control_key(services: dict[str, Any]) -> None:
    """The gateway reads the key in Triton's state folder as the same user, and cannot change it."""
    text = (ROOT / "Dockerfile.triton").read_text()
    (line,) = re.findall(r'^CMD (\["serve".*\])$', text, re.MULTILINE)
    command = yaml.safe_load(line)
    state = Path(command[command.index("--state") + 1])
    mounts = {
        name: next(mount for mount in service["volumes"] if "state" in str(mount))
        for name, service in services.items()
        if name in ("triton", "triton-cpu", "gateway")
    }
    assert len({str(mount).replace(":ro", ":rw").replace("'read_only': True, ", "") for mount in mounts.values()}) == 1
    assert ":ro" in str(mounts["gateway"]) or "'read_only': True" in str(mounts["gateway"])
    assert f"{state.parent}:r" in str(mounts["gateway"]) or f"'target': '{state.parent}'" in str(mounts["gateway"])
    assert services["gateway"]["environment"][VARIABLE] == str(state / FILE)
    for name in ("Dockerfile.triton", "Dockerfile.app"):
        users = re.findall(r"useradd .*--uid (\d+) \S+ && mkdir /state && chown", (ROOT / name).read_text())
        assert users == ["10001"], name
    assert not any("8000" in str(service.get(key)) for service in services.values() for key in ("ports", "expose"))


@pytest.mark.parametrize("mode", [0o755, 0o2775, 0o2777])
def test_the_image_of_triton_keeps_its_state_on_any_volume(tmp_path: Path, mode: int) -> None:
    """Its folder belongs to its user alone, even on a volume that others may write, as on Kubernetes."""
    (line,) = re.findall(r'^CMD (\["serve".*\])$', (ROOT / "Dockerfile.triton").read_text(), re.MULTILINE)
    command = yaml.safe_load(line)
    mount = tmp_path / "state"
    mount.mkdir()
    mount.chmod(mode)
    path = tmp_path / command[command.index("--state") + 1].lstrip("/")
    for _ in range(2):
        with take_state(path) as state:
            state.write(FILE, "key")
        assert path.stat().st_mode & 0o777 == 0o700


def test_kubernetes_gives_the_control_key_to_the_gateway_alone() -> None:
    """It is a secret mounted as a file that only the gateway's group may read."""
    deployment, *_ = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "gateway.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    file = Path(next(one["value"] for one in container["env"] if one["name"] == VARIABLE))
    mount = next(one for one in container["volumeMounts"] if one["mountPath"] == str(file.parent))
    secret = next(one["secret"] for one in pod["volumes"] if one["name"] == mount["name"])
    assert mount["readOnly"]
    assert secret["defaultMode"] & 0o007 == 0
    assert pod["securityContext"]["fsGroup"] == 10001


def test_the_image_of_triton_has_a_working_health_check() -> None:
    """It is `modelctl ready`, which fails where no Triton answers."""
    (line,) = re.findall(r"^  CMD (.+)$", (ROOT / "Dockerfile.triton").read_text(), re.MULTILINE)
    program, *words = yaml.safe_load(line)
    assert program == "modelctl"
    done = subprocess.run([sys.executable, "-m", program, *words, "--grpc-port", "1"], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"not ready\n")


def environment(folder: Path, *installs: list[str]) -> Path:
    """Make a clean virtual environment, run the installations in it, and return its Python."""
    venv.create(folder)
    python = folder / "bin" / "python"
    # By uv, whose cache holds most of these packages since the set-up: pip takes twenty times as long.
    uv = [Path(sys.executable).parent / "uv", "pip", "install", "--quiet", "--python", python]
    for words in installs:
        done = subprocess.run([*uv, *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return python


def absent(python: Path, *modules: str) -> None:
    """Assert that none of these modules is installed."""
    code = f"from importlib.util import find_spec; print([m for m in {modules!r} if find_spec(m)])"
    assert subprocess.run([python, "-I", "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_gateways_packages_suffice_and_hold_no_triton(tmp_path: Path) -> None:
    """What Dockerfile.app installs makes the gateway importable, without Triton, ONNX Runtime or torch."""
    python = environment(tmp_path / "venv", ["--require-hashes", "-r", "requirements/gateway.txt"])
    code = "from app import main, settings; print(len(main.create_app(settings.Settings()).openapi()['paths']))"
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout) >= 11, done.stderr
    absent(python, "onnxruntime", "pytriton", "torch", "tokenizers", "stages", "modelctl")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_tritons_packages_suffice(tmp_path: Path) -> None:
    """What Dockerfile.triton installs, the project's own wheel included, runs modelctl and the steps."""
    wheels = tmp_path / "wheels"
    build = environment(tmp_path / "build", ["--require-hashes", "-r", "requirements/build.txt"])
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for name in ("modelctl", "stages"):
        shutil.copytree(ROOT / name, source / name)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        build,
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        wheels,
        ".",
    ]
    done = subprocess.run(pip, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    python = environment(
        tmp_path / "venv",
        ["--require-hashes", "-r", "requirements/triton.txt"],
        ["--no-deps", *map(str, wheels.glob("*.whl"))],
    )
    code = "import stages.imaging, stages.decoders.head, stages.tokens, stages.boxes, stages.scores, stages.workers"
    done = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([python.parent / "modelctl", "serve", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert "--models" in done.stdout
    recipes = [python.parent / "modelctl", "add", "finbert", "--models", source]
    done = subprocess.run(recipes, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"needs? .*(onnxruntime|torch)", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    absent(python, "onnxruntime", "pytriton", "torch", "fastapi", "app")
