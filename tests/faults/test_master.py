"""A gateway of several workers: errors in its master, files that children inherit, and Ctrl-C in a terminal."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from broken import until
from living import words

from app.http.workers import Master
from app.settings import Settings
from app.telemetry.worker_files import WorkerFiles


class Gateway:
    """Two workers without a Triton."""

    def __init__(self, stack: Any, folder: Path) -> None:
        self.folder = folder
        self.port = stack.port
        self.out = stack.folder / "gateway.out"
        stack.start_gateway()
        self.process = stack.gateway

    def workers(self) -> list[psutil.Process]:
        """Return the living workers."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(words(child))]

    def wait_until_served(self) -> None:
        """Wait until both workers serve."""
        until(lambda: len(self.workers()) == 2 and all(len(worker.net_connections()) for worker in self.workers()), 60)
        until(self.is_alive, 60)

    def is_alive(self) -> bool:
        """Return whether livez answers."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/livez", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def gateway(make_stack: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return a gateway that serves."""
    folder = tmp_path_factory.mktemp("master")
    settings = {"GATEWAY_WORKERS": "2", "TMPDIR": str(folder)}
    made = Gateway(make_stack((), settings, test_models=False), folder)
    workers = []
    try:
        made.wait_until_served()
        workers = made.workers()
        yield made
    finally:
        for process in (psutil.Process(made.process.pid), *workers) if made.process.poll() is None else workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        made.process.wait()


def test_a_workers_children_inherit_nothing_of_it(gateway: Gateway) -> None:
    """Otherwise a drawing process would hold the port, and hide the worker's end from the master."""
    for worker in gateway.workers():
        flags = {
            int(info.name): int(info.read_text().split("flags:")[1].split()[0], 8)
            for info in Path(f"/proc/{worker.pid}/fdinfo").iterdir()
        }
        assert not [number for number, flag in flags.items() if number > 2 and not flag & os.O_CLOEXEC]


def test_a_worker_that_cannot_be_started_is_started_later(gateway: Gateway) -> None:
    """Meanwhile the others serve."""
    master = psutil.Process(gateway.process.pid)
    limits = master.rlimit(resource.RLIMIT_NOFILE)
    highest = max(int(info.name) for info in Path(f"/proc/{master.pid}/fd").iterdir())
    master.rlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    gateway.workers()[0].kill()
    until(lambda: "a worker could not be started" in gateway.out.read_text(), 10)
    assert gateway.is_alive()
    master.rlimit(resource.RLIMIT_NOFILE, limits)
    until(lambda: len(gateway.workers()) == 2, 10)


def test_the_loss_of_the_metrics_folder_ends_no_service(gateway: Gateway) -> None:
    """Workers are still replaced."""
    (folder,) = gateway.folder.glob("gateway-*")
    contents = [(path, path.read_bytes()) for path in folder.iterdir() if path.suffix == ".db"]
    shutil.rmtree(folder)
    gateway.workers()[0].kill()
    until(lambda: "counts of workers that ended could not be merged yet" in gateway.out.read_text(), 10)
    folder.mkdir()
    for path, data in contents:
        path.write_bytes(data)
    until(lambda: len(gateway.workers()) == 2, 10)


def test_ctrl_c_in_a_terminal_lets_requests_finish(gateway: Gateway) -> None:
    """It reaches the whole process group, and the workers a second time from the master."""
    until(gateway.is_alive, 30)
    head = b"POST /roboflow/model/add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: 16\r\n\r\n" + b'{"model_')
        time.sleep(0.5)
        os.killpg(gateway.process.pid, signal.SIGINT)
        time.sleep(1.5)
        connection.sendall(b'id":"x"}')
        answer = b""
        while not answer.endswith(b"}"):  # head and body may come one after the other
            part = connection.recv(2000)
            assert part, answer
            answer += part
        assert b'"code":"backend_unavailable"' in answer
    assert gateway.process.wait(10) == 0


class Faulty(WorkerFiles):
    """Metrics files whose use raises an unexpected exception."""

    def merge(self, living: Collection[int]) -> None:
        """Fail."""
        raise ZeroDivisionError


@pytest.mark.slow
def test_a_fault_of_the_master_ends_its_workers(tmp_path: Path) -> None:
    """They would serve on, and nobody could tell them to stop."""
    told, telling = socket.socketpair()
    with told, telling, socket.create_server(("127.0.0.1", 0)) as listener:
        told.setblocking(False)
        with pytest.raises(ZeroDivisionError):
            Master(Settings(workers=2), listener, Faulty(tmp_path), told).run()
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert not left
