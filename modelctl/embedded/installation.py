"""Finds Triton, and prepares its environment and its backend directory.

There are two servers: NVIDIA's container has a complete one in /opt/tritonserver; on a machine without Docker it comes
from the wheel `nvidia-pytriton`. The wheel spreads the parts of a backend directory over several folders, and modelctl
never writes to site-packages, so it assembles a backend directory in the state folder from links and copies.
"""

from __future__ import annotations

import platform
import shutil
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from modelctl.errors import CommandError

CONTAINER = Path("/opt/tritonserver")
PYTHONS = ((3, 11), (3, 12))
OLDEST_GLIBC = (2, 35)


@dataclass(frozen=True)
class Installation:
    """A tritonserver and its files.

    Attributes:
        embedded: True for the server of the wheel, False for the container's.
        parts: for the wheel, the folder that holds the server's parts.

    """

    binary: Path
    embedded: bool
    parts: Path
    cache_directory: Path

    @property
    def libraries(self) -> Path:
        """The folder of the libraries that the wheel's server is linked with, including the CUDA runtime."""
        return self.parts.parent.parent / "nvidia_pytriton.libs"

    def backend_directory(self, backends: Path, state: Path) -> Path:
        """Return the folder of all backends; for the wheel's server, assemble it in `state`.

        Raises:
            CommandError: when there are no backends.
            OSError: when it cannot be assembled; the previous one is still there then.

        """
        if not self.embedded:
            return CONTAINER / "backends"
        if not backends.is_dir():
            raise CommandError(f"There is no folder of backends at {backends}: give it with --backends.")
        target, new, old = (state / f"backends{suffix}" for suffix in ("", ".new", ".old"))
        for path in (new, old):
            _remove(path)
        try:
            self._assemble(backends, new)
            if target.is_symlink() or target.exists():
                target.rename(old)
            new.rename(target)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
        with suppress(OSError):
            _remove(old)
        return target

    def _assemble(self, backends: Path, target: Path) -> None:
        python = target / "python"
        target.mkdir(mode=0o700)
        python.mkdir()
        # Copies, because Triton refuses a backend library that lies outside the backend directory.
        stub = self.parts / "python_backend_stubs" / _minor() / "triton_python_backend_stub"
        for source in (stub, *(self.parts / "backends" / "python").glob("*.*")):
            shutil.copy(source, python)
        (python / stub.name).chmod(0o755)
        for source in sorted(backends.resolve().iterdir()):
            if (source / "model.py").exists():
                (target / source.name).symlink_to(source.resolve())

    def environment(self, inherited: dict[str, str]) -> dict[str, str]:
        """Return the server's environment, where its Python steps find libpython and this environment's `python3`."""
        if not self.embedded:
            return inherited
        libraries = [str(libpython().parent), str(self.libraries), *filter(None, [inherited.get("LD_LIBRARY_PATH")])]
        paths = [str(Path(sys.prefix) / "bin"), inherited.get("PATH", "")]
        return {**inherited, "LD_LIBRARY_PATH": ":".join(libraries), "PATH": ":".join(paths)}


def find() -> Installation:
    """Return the container's server where there is one, else the wheel's.

    Raises:
        CommandError: when there is none, or when this machine cannot run it.

    """
    if (CONTAINER / "bin" / "tritonserver").exists():
        return Installation(CONTAINER / "bin" / "tritonserver", False, CONTAINER, CONTAINER / "caches")
    check_platform()
    check_python()
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise CommandError("Triton is not installed: run ./dev_start.sh, or install requirements/local.txt.")
    libpython()
    parts = Path(spec.origin).parent / "tritonserver"
    return Installation(parts / "bin" / "tritonserver", True, parts, parts / "caches")


def check_platform() -> None:
    """Raise CommandError when the wheel's server cannot run on this system."""
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2]) if version else (0, 0)
    if sys.platform == "linux" and platform.machine() == "x86_64" and name == "glibc" and numbers >= OLDEST_GLIBC:
        return
    here = f"{platform.system()} {platform.machine()} {name} {version}".strip()
    raise CommandError(
        f"The embedded Triton needs Linux on x86-64 with glibc 2.35 or later, this is {here}: "
        "use Docker Compose instead (docs/containers.md)."
    )


def check_python() -> None:
    """Raise CommandError when this Python is too old or too new."""
    if sys.version_info[:2] not in PYTHONS:
        raise CommandError(f"Python 3.11 or 3.12 is needed, this is {_minor()}: run PYTHON=python3.12 ./dev_start.sh.")


def libpython() -> Path:
    """Return the shared library of this Python, which Triton's Python steps are linked to.

    Raises:
        CommandError: naming the package that holds it.

    """
    name = f"libpython{_minor()}.so.1.0"
    folders = [sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LIBPL"), f"{sys.base_prefix}/lib"]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    system = [f"/usr/lib/{multiarch}" if multiarch else None, "/usr/lib64", "/usr/lib"]
    for folder in filter(None, folders + system):
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise CommandError(
        f"{name} is missing: install Debian's libpython{_minor()} (Fedora: python{_minor()}-libs), "
        "or use a Python that was built with --enable-shared."
    )


def _remove(path: Path) -> None:
    """Remove a folder with its contents, or a link without its target."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
