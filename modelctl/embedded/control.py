"""The key of Triton's control protocols. Whoever has it can load models, and a model can contain code.

    serve     TRITON_CONTROL_KEY_FILE, else <state>/control.key, made once  --> tritonserver's command line
    commands  TRITON_CONTROL_KEY_FILE, else .triton/control.key             --> metadata of the call, sent again

The commands send the key only after Triton has refused a call without it. The gateway does the same
(`app.triton.control`).
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelctl.embedded.state import StateFolder
from modelctl.errors import CommandError

VARIABLE = "TRITON_CONTROL_KEY_FILE"
FILE = "control.key"
DEFAULT = Path(".triton") / FILE
HEADER = "control"
METADATA = f"triton-grpc-protocol-{HEADER}"
"""Triton puts this prefix before the header's name."""
PROTOCOLS = ("model-repository", "shared-memory", "trace", "logging")
RESTRICTED = "This protocol is restricted"
"""Start of Triton's refusal. Its gRPC status is UNAVAILABLE, the same as for a server that is down."""
NEEDED = (
    f"Triton requires a control key: set {VARIABLE} to its file ({FILE} in the --state folder of `modelctl serve`)."
)
KEY = re.compile(r"[A-Za-z0-9_-]{16,512}")
MAX_BYTES = 4096


def new() -> str:
    """Return a random key."""
    return secrets.token_urlsafe(32)


def option(key: str) -> str:
    """Return tritonserver's option. Triton requires all protocols of one key in one option."""
    return f"--grpc-restricted-protocol={','.join(PROTOCOLS)}:{HEADER}={key}"


def of_server(state: StateFolder) -> str:
    """Return the key to start Triton with: from the file that the environment names, else from the state folder.

    Raises:
        CommandError: when the file cannot be used or made.

    """
    named = os.environ.get(VARIABLE)
    if named:
        return _read(named, lambda: os.open(named, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    own = str(state.path / FILE)
    if state.lacks(FILE):
        try:
            state.write(".gitignore", "*\n")  # the folder may have a name that the project's .gitignore lacks
            state.write(FILE, f"{new()}\n")
        except OSError as error:
            raise state.refusal(error) from error
    return _read(own, lambda: state.open(FILE, os.O_RDONLY))


def check() -> str:
    """Return a sentence about the key that Triton would start with; raises CommandError when it cannot be used."""
    named = os.environ.get(VARIABLE)
    file = named or str(DEFAULT)
    if not named and not (DEFAULT.exists() and DEFAULT.stat().st_size):
        return f"{file} is made when Triton starts"
    _read(file, lambda: os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    return f"{file} can be used"


def keep(state: StateFolder, key: str) -> None:
    """Write the running Triton's key to a state folder that was made again, unless the environment names its file."""
    if not os.environ.get(VARIABLE):
        with suppress(OSError):  # a gateway that has read the key already goes on
            state.write(FILE, f"{key}\n")


def _read(name: str, open_file: Callable[[], int]) -> str:
    """Return the key of a file that only its owner and its group may read."""
    try:
        with os.fdopen(open_file(), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise CommandError(f"The control key {name} cannot be read ({error.strerror}): check {VARIABLE}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise CommandError(f"The control key {name} is not a regular file.")
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise CommandError(f"The control key {name} is open to every user: chmod o-rwx {name}.")
    text = data.decode("ascii", "replace").strip()
    if not KEY.fullmatch(text):
        fault = "does not hold 16 or more letters, digits, - and _" if text else "is empty"
        raise CommandError(f"The control key {name} {fault}: put the output of `openssl rand -hex 32` there.")
    return text


def find() -> str:
    """Return the key for a call that Triton refused without one; empty when no key can be read."""
    try:
        with Path(os.environ.get(VARIABLE) or DEFAULT).open("rb") as file:
            text = file.read(MAX_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if KEY.fullmatch(text) else ""


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
