"""The key of Triton's control protocols. Who has it may load models, and a model may be code.

    serve     TRITON_CONTROL_KEY_FILE, else <state>/control.key, made once  --> tritonserver's command line
    commands  TRITON_CONTROL_KEY_FILE, else .triton/control.key             --> metadata of a call that Triton refused

The gateway does what the commands do (`app.triton.control`). A Triton that asks for no key gets none.
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
"""How Triton's refusal begins; its status is UNAVAILABLE, as if the server were down."""
NEEDED = (
    f"Triton wants a control key: {VARIABLE} must name its file ({FILE} in the --state folder of `modelctl serve`)."
)
KEY = re.compile(r"[A-Za-z0-9_-]{16,512}")
MOST_BYTES = 4096


def new() -> str:
    """Return a random key."""
    return secrets.token_urlsafe(32)


def option(key: str) -> str:
    """Return tritonserver's option. Triton wants all protocols of one key in one option."""
    return f"--grpc-restricted-protocol={','.join(PROTOCOLS)}:{HEADER}={key}"


def of_server(state: StateFolder) -> str:
    """Return the key to start Triton with: from the file that the environment names, else the state folder's own.

    Raises:
        CommandError: when the file cannot be used, or when none can be made.

    """
    named = os.environ.get(VARIABLE)
    if named:
        return _read(named, lambda: os.open(named, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    own = str(state.path / FILE)
    if state.lacks(FILE):
        try:
            state.write(".gitignore", "*\n")  # whose name may be no known one
            state.write(FILE, f"{new()}\n")
        except OSError as error:
            raise state.refusal(error) from error
    return _read(own, lambda: state.open(FILE, os.O_RDONLY))


def check() -> str:
    """Return a sentence on the key that a start of Triton would use; raises CommandError when it cannot be used."""
    named = os.environ.get(VARIABLE)
    file = named or str(DEFAULT)
    if not named and not (DEFAULT.exists() and DEFAULT.stat().st_size):
        return f"{file} is made when Triton is started"
    _read(file, lambda: os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    return f"{file} can be used"


def keep(state: StateFolder, key: str) -> None:
    """Write the key that Triton runs with to a state folder that was made anew, unless it is kept elsewhere."""
    if not os.environ.get(VARIABLE):
        with suppress(OSError):  # those who know it already go on
            state.write(FILE, f"{key}\n")


def _read(name: str, open_file: Callable[[], int]) -> str:
    """Return the key of a file that only its owner and its group may read."""
    try:
        with os.fdopen(open_file(), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MOST_BYTES)
    except OSError as error:
        raise CommandError(f"The control key {name} cannot be read ({error.strerror}): {VARIABLE} names it.") from error
    if not stat.S_ISREG(status.st_mode):
        raise CommandError(f"The control key {name} is no file.")
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise CommandError(f"The control key {name} is open to every user: chmod o-rwx {name}.")
    text = data.decode("ascii", "replace").strip()
    if not KEY.fullmatch(text):
        what = "does not hold 16 or more letters, digits, - and _" if text else "is empty"
        raise CommandError(f"The control key {name} {what}: put the output of `openssl rand -hex 32` there.")
    return text


def find() -> str:
    """Return the key for a call that Triton refused without; empty when there is none that can be read."""
    try:
        with Path(os.environ.get(VARIABLE) or DEFAULT).open("rb") as file:
            text = file.read(MOST_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if KEY.fullmatch(text) else ""


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
