"""`modelctl config`: the settings in force, and where each comes from."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection
from dataclasses import asdict

from modelctl import configuration
from modelctl.configuration import Setting, source
from modelctl.console import say
from modelctl.embedded import control
from modelctl.embedded.ports import PORTS, port, port_text
from modelctl.embedded.stack import DEFAULTS
from modelctl.errors import CommandError
from modelctl.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_json(parser, "a list of objects")


def run(arguments: argparse.Namespace) -> int:
    """Print a table; raises CommandError when a value is invalid."""
    own = [
        *(Setting(name, port(port_text(name), name), source(name, arguments.from_file)) for name in PORTS),
        _own(control.VARIABLE, str(control.DEFAULT), arguments.from_file),
        _own("MODELOPT_PYTHON", sys.executable, arguments.from_file),
        _own("ULTRALYTICS_PYTHON", sys.executable, arguments.from_file),
    ]
    gateway = configuration.gateway(arguments.from_file)
    if gateway and gateway.faults:
        raise CommandError(" ".join(gateway.faults))
    shown = {setting.name: setting for setting in (*(gateway.settings if gateway else ()), *own)}
    if arguments.json:
        print(json.dumps([{**asdict(one), "up": _of_up(one)} for one in shown.values()], indent=2))
    else:
        for setting in shown.values():
            value = ",".join(setting.value) if isinstance(setting.value, list) else str(setting.value)
            text = value.lower() if isinstance(setting.value, bool) else value or "none"
            up = _of_up(setting)
            print(f"{setting.name:32}{text:32} {setting.source}{f' (modelctl up: {up})' if up else ''}")
    for name, closest in (gateway.unknown if gateway else {}).items():
        hint = f" Did you mean {closest}?" if closest else ""
        say(f"warning: no setting reads {name} ({source(name, arguments.from_file)}).{hint}")
    return 0


def _own(name: str, default: str, from_file: Collection[str]) -> Setting:
    return Setting(name, os.environ.get(name) or default, source(name, from_file))


def _of_up(setting: Setting) -> str | None:
    """Return the value that `modelctl up` uses instead of the gateway's default, if any."""
    return DEFAULTS.get(setting.name) if setting.source == "default" else None
