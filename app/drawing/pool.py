"""The child processes that draw answers. They can be killed, and the gateway itself decodes no picture.

    image, predictions --> process: app.drawing.process --> encoded picture
                           └ ended by the request's deadline, by its CPU time or by its memory

A process is started when it is needed, draws one picture at a time, and stays for the next.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.context import Deadline
from app.drawing.contract import LENGTHS, READY
from app.errors import BY_CODE, DeadlineExceededError, ImageTooLargeError, InternalError

MAX_PROCESSES = 2
END_S = 1
"""Time for a process that has closed its pipe to end by itself."""
LIMIT_SIGNALS = {
    *(-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGSEGV),
    *(-signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL),
}
"""Exit codes of processes that reached a limit, and of libraries that were refused memory."""


class Drawing:
    """Lets child processes draw answers, a few at a time.

    Args:
        command: starts a drawing process.

    """

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "app.drawing.process")) -> None:
        self._command = command
        self._room = asyncio.Semaphore(MAX_PROCESSES)
        self._idle: list[asyncio.subprocess.Process] = []
        self._starting: set[asyncio.subprocess.Process] = set()

    async def picture(
        self, image: bytes, predictions: Sequence[dict[str, Any]], kind: str, deadline: Deadline
    ) -> bytes:
        """Return the encoded image with the predictions of `/v1/detect` drawn, as one of `MEDIA_TYPES`.

        Raises:
            DeadlineExceededError: when it is not drawn by the deadline. Its process is ended.
            ImageTooLargeError, ImageUndecodableError: when the image cannot be drawn on.

        """
        try:
            async with asyncio.timeout(deadline.left_s()), self._room:
                head, body = await self._ask({"predictions": predictions, "kind": kind}, image)
        except TimeoutError as error:
            raise DeadlineExceededError("The picture was not drawn within the request's deadline.") from error
        if "code" in head:
            raise BY_CODE[head["code"]](head["detail"])
        return body

    async def close(self) -> None:
        """End the idle processes; a running request ends its own."""
        while self._idle:
            process = self._idle.pop()
            _kill(process)
            await process.wait()

    async def _ask(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        process = await self._process()
        try:
            answer = await _exchange(process, head, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            if await _end(process) not in LIMIT_SIGNALS:
                raise InternalError("The drawing process failed.") from None
            raise ImageTooLargeError("Drawing the picture takes too much CPU time or memory.") from None
        except BaseException:  # the deadline has passed or the client has gone
            _kill(process)
            raise
        self._idle.append(process)
        return answer

    async def _process(self) -> asyncio.subprocess.Process:
        """Return a process that is ready to draw.

        When the deadline passes while a process starts, the next picture gets that process. If it were killed, callers
        with short deadlines could keep all others from their pictures.
        """
        process = self._take_idle() or await self._start()
        if process in self._starting:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            try:
                await process.stdout.readexactly(len(READY))
            except asyncio.CancelledError:
                self._idle.append(process)
                raise
            except asyncio.IncompleteReadError as error:
                self._starting.remove(process)
                await _end(process)
                raise InternalError("The drawing process could not be started.") from error
            self._starting.remove(process)
        return process

    def _take_idle(self) -> asyncio.subprocess.Process | None:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            self._starting.discard(process)
        return None

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # image libraries print warnings about what strangers send
                cwd=Path(__file__).parents[2],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the gateway, which ends this process after its last answer
            )
        except OSError as error:
            raise InternalError("The drawing process could not be started.") from error
        self._starting.add(process)
        return process


async def _exchange(
    process: asyncio.subprocess.Process, head: dict[str, Any], body: bytes
) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    text = json.dumps(head).encode()
    process.stdin.writelines((LENGTHS.pack(len(text), len(body)), text, body))
    await process.stdin.drain()
    sizes = LENGTHS.unpack(await process.stdout.readexactly(LENGTHS.size))
    found, drawn = [await process.stdout.readexactly(size) for size in sizes]
    return json.loads(found), drawn


async def _end(process: asyncio.subprocess.Process) -> int:
    """Wait a moment for a process to end, else kill it; return its exit code, which shows why it ended."""
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        pass
    finally:
        _kill(process)
    return await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
