"""Triton's log: a file that is rotated when it is full, and that never blocks its writer."""

from __future__ import annotations

import os

from modelctl.console import say
from modelctl.embedded.state import StateFolder

FILE = "triton.log"
MAX_BYTES = 20_000_000


class Log:
    """Writes lines to a file of the state folder, and keeps one earlier file of the same size.

    A line that cannot be written is dropped: to wait for room would block Triton, which writes to a pipe.
    """

    def __init__(self, state: StateFolder, max_bytes: int = MAX_BYTES) -> None:
        self._state = state
        self._max_bytes = max_bytes
        self._file = -1
        self._failing = False

    def write(self, line: str) -> None:
        """Add a line; of several failures in a row, report the first."""
        try:
            self._write(f"{line}\n".encode(errors="replace"))
            self._failing = False
        except OSError as error:
            self.close()
            if not self._failing:
                say(f"{FILE} cannot be written ({error.strerror}): lines are dropped until it can.")
            self._failing = True

    def _write(self, data: bytes) -> None:
        if self._file < 0:
            self._file = self._state.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if os.fstat(self._file).st_size + len(data) > self._max_bytes:
            self.close()
            self._state.rename(FILE, f"{FILE}.1")
            self._file = self._state.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(self._file, data)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
