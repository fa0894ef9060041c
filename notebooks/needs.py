"""Checks for requirements that not every machine meets; each prints why its cell is skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from urllib.parse import urlsplit

HUB = "huggingface.co"
LOOK_S = 3.0
TRTEXEC_FOLDER = "/usr/src/tensorrt/bin"  # in NVIDIA's containers


def hub() -> bool:
    """Tell whether checkpoints can be fetched: the hub answers, offline mode is off and the packages are installed."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "on", "true", "yes"):
        return _skipped(f"needs {HUB}, and HF_HUB_OFFLINE is set")
    if not (find_spec("torch") and find_spec("transformers")):
        return _skipped("needs PyTorch and transformers: ./dev_start.sh --setup-only export")
    try:
        address = urlsplit(os.environ.get("HF_ENDPOINT", f"https://{HUB}"))
        socket.create_connection((address.hostname, address.port or 443), LOOK_S).close()
    except OSError:
        return _skipped(f"needs {HUB}, which cannot be reached from here")
    return True


def ultralytics() -> bool:
    """Tell whether the user has installed Ultralytics, which this project neither contains nor installs (AGPL-3.0)."""
    if "ULTRALYTICS_PYTHON" in os.environ or find_spec("ultralytics"):
        return True
    return _skipped("needs an installation of Ultralytics of your own; name its Python in ULTRALYTICS_PYTHON")


def tensorrt() -> bool:
    """Tell whether plans can be built: TensorRT's builder and a GPU are present."""
    if not shutil.which("trtexec", path=f"{os.environ['PATH']}:{TRTEXEC_FOLDER}"):
        return _skipped("needs TensorRT, which is in the container: docker compose run --rm plans")
    if not shutil.which("nvidia-smi") or subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode:  # noqa: S607
        return _skipped("needs a GPU")
    return True


def _skipped(reason: str) -> bool:
    print(f"skipped: {reason}")
    return False
