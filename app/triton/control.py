"""The key of Triton's control protocols. The gateway calls one of them, the list of models.

`modelctl serve` starts Triton with the key (`--grpc-restricted-protocol`). The gateway reads the key's file when a
server demands the key. So the file may be made or changed while the gateway runs, and other servers never get the key.
"""

from __future__ import annotations

import re
from pathlib import Path

HEADER = "triton-grpc-protocol-control"
KEY = re.compile(r"[A-Za-z0-9_-]{16,512}")
MAX_BYTES = 4096


class ControlKey:
    """The key, for one server.

    Attributes:
        metadata: what to send with a call; None until the server has demanded a key.

    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self.metadata: tuple[tuple[str, str], ...] | None = None

    def renew(self) -> bool:
        """Read the file; return whether it holds a key other than the one that was sent."""
        try:
            with self._file.open("rb") as file:
                text = file.read(MAX_BYTES).decode("ascii").strip()
        except (OSError, ValueError):
            return False
        before, found = self.metadata, ((HEADER, text),)
        if not KEY.fullmatch(text) or found == before:
            return False
        self.metadata = found
        return True
