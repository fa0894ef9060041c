"""One configuration for the gateway, `modelctl` and Compose: the environment, and `.env` of the working directory.

    .env --load--> environment of this command and of what it starts     (a variable that is set there already stays)
    environment --python -m app.settings--> the gateway's settings, checked, with the source of each

An empty environment variable stands for the default, whatever `.env` says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from modelctl.errors import CommandError

FILE = ".env"
PREFIXES = ("GATEWAY_", "TRITON_")
OTHERS = ("MODELOPT_PYTHON", "ULTRALYTICS_PYTHON", "NO_COLOR")
"""Other variables that `modelctl` reads. Nothing else is taken from `.env`: the working directory may be any folder."""
GATEWAY = Path("app") / "settings.py"


@dataclass(frozen=True)
class Setting:
    """A variable, its value in force, and where that comes from: `environment`, `.env` or `default`."""

    name: str
    value: Any
    source: str


@dataclass(frozen=True)
class Gateway:
    """The gateway's report on its settings.

    Attributes:
        settings: all of them; none when there are faults.
        unknown: each GATEWAY_ variable that no setting reads, with the most similar setting.
        faults: a sentence for each invalid value.

    """

    settings: tuple[Setting, ...]
    unknown: Mapping[str, str | None]
    faults: tuple[str, ...]

    def value(self, name: str) -> Any:
        """Return the value of a setting."""
        return next(setting.value for setting in self.settings if setting.name == name)


def load() -> frozenset[str]:
    """Copy the project's variables from `.env` to the environment; return the names that were not set there.

    Raises:
        CommandError: when the file cannot be read.

    """
    for name in [name for name in os.environ if name != name.upper() and name.upper().startswith(PREFIXES)]:
        os.environ.setdefault(name.upper(), os.environ[name])  # the gateway ignores case too
    try:
        values = dotenv_values(FILE)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandError(f"{FILE} cannot be read: {reason}.") from error
    given = {name.upper(): value for name, value in values.items() if value}
    wanted = {name for name in given if name.startswith(PREFIXES) or name in OTHERS} - os.environ.keys()
    os.environ.update({name: given[name] for name in wanted})
    return frozenset(wanted)


def source(name: str, from_file: Collection[str]) -> str:
    """Return where a variable comes from: `environment`, `.env` or `default`; `from_file` is what `load` returned."""
    return FILE if name in from_file else "environment" if os.environ.get(name) else "default"


def gateway(
    from_file: Collection[str],
    defaults: Mapping[str, str] | None = None,
    preexec_fn: Callable[[], None] | None = None,
) -> Gateway | None:
    """Ask the gateway in this folder for its settings; None where there is no gateway, as in Triton's container.

    Args:
        from_file: what `load` returned.
        defaults: values for variables that neither the environment nor `.env` sets.
        preexec_fn: passed to `subprocess`, for a child that must not outlive this process.

    Raises:
        CommandError: when the gateway cannot be asked.

    """
    if not GATEWAY.is_file():
        return None
    environment = {name: value for name, value in os.environ.items() if name not in from_file}
    environment |= {name: value for name, value in (defaults or {}).items() if not os.environ.get(name)}
    command = [sys.executable, "-m", "app.settings"]
    done = subprocess.run(  # noqa: S603 - ours
        command, env=environment, capture_output=True, text=True, check=False, preexec_fn=preexec_fn
    )
    try:
        report = json.loads(done.stdout)
        settings = tuple(Setting(**setting) for setting in report["settings"])
        return Gateway(settings, report["unknown"], tuple(report["faults"]))
    except (ValueError, KeyError, TypeError) as error:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise CommandError(f"The gateway does not report its settings: {last}") from error
