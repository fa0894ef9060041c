"""Small files that cost much work are answered at once, and ordinary pictures are served meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import bombs
import httpx
import psutil
import pytest
from broken import FULL
from living import is_alive

SAMPLE = (
    *("jpeg scans", "jpeg APP1", "jpeg fill", "jpeg EXIF, same bytes", "jpeg trailing", "mpo", "png text", "png IDAT"),
    *("png profile", "gif comment", "webp 16383", "bmp run lengths", "bmp moves", "tiff tile", "tiff EXIF, many"),
    *("avif sizes", "jpeg scans, as many as may be", "jpeg scans behind TEM", "webp codes", "png texts, wide"),
)
MOST_S = 5.0  # of CPU time for one file, on all sides
STATUS = {"image_too_large": 413, "image_undecodable": 422}


def processes(stack: Any) -> dict[int, psutil.Process]:
    """Return the gateway's and Triton's, by pid."""
    roots = [psutil.Process(stack.gateway.pid), psutil.Process(stack.triton.pid)]
    return {one.pid: one for root in roots for one in (root, *root.children(recursive=True))}


def cpu_s(stack: Any) -> dict[int, float]:
    """Return the CPU time of each."""
    used = {}
    for pid, process in processes(stack).items():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used[pid] = times.user + times.system
    return used


@pytest.fixture
def ordinary(stack: Any, coffee: bytes) -> Iterator[list[int]]:
    """Ask for an ordinary picture again and again; return the statuses."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        with stack.client() as client:
            while not over.is_set():
                answer = client.post("/v1/classify", content=coffee, headers={"Content-Type": "image/jpeg"})
                statuses.append(answer.status_code)
                time.sleep(0.1)

    caller = threading.Thread(target=ask)
    caller.start()
    yield statuses
    over.set()
    caller.join()


@pytest.mark.parametrize("name", bombs.BOMBS if FULL else SAMPLE)
def test_a_bomb_is_answered_and_nobody_notices(stack: Any, http: httpx.Client, ordinary: list[int], name: str) -> None:
    """It gets its refusal or an answer, at the price of a picture; other requests are served meanwhile."""
    make, expected = bombs.BOMBS[name]
    file = make()
    before, begun = cpu_s(stack), time.monotonic()
    answer = http.post(
        "/v1/classify", content=file, headers={"Content-Type": "image/jpeg", "X-Request-Timeout-Ms": "60000"}
    )
    took = time.monotonic() - begun
    code = "served" if answer.status_code == 200 else answer.json()["code"]
    assert code in expected
    assert answer.status_code == STATUS.get(code, 200)
    used = sum(seconds - before.get(pid, 0) for pid, seconds in cpu_s(stack).items())
    print(f"{name}: {len(file) / 1e6:.1f} MB, {code} after {took:.2f} s, CPU {used:.2f} s with the pictures beside it")
    assert used < MOST_S + took
    while not ordinary:
        time.sleep(0.05)
    assert set(ordinary) == {200}


def test_scans_by_the_thousand_stop_nobody(stack: Any, http: httpx.Client, ordinary: list[int]) -> None:
    """As many of the worst files as slots: each is refused at once, and other pictures are served."""
    file = bombs.scans(4000, 4000, 200_000)
    for _ in range(8):
        begun = time.monotonic()
        answer = http.post("/v1/classify", content=file, headers={"Content-Type": "image/jpeg"})
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert "scans" in answer.json()["detail"]
        assert time.monotonic() - begun < 5
    while len(ordinary) < 3:
        time.sleep(0.05)
    assert set(ordinary) == {200}


def test_work_ends_at_its_requests_deadline(stack: Any, http: httpx.Client) -> None:
    """A slow picture gets 504 in time, and a moment later no process works on it any more."""
    file = bombs.BOMBS["png 16 bit"][0]()
    for _ in range(2):
        answer = http.post(
            "/v1/classify",
            content=file,
            headers={"Content-Type": "image/png", "X-Request-Timeout-Ms": "300"},
        )
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    time.sleep(0.5)
    before = cpu_s(stack)
    time.sleep(1)
    assert sum(seconds - before.get(pid, 0) for pid, seconds in cpu_s(stack).items()) < 0.7


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_drawn_answers_are_bounded(http: httpx.Client, kind: str) -> None:
    """A JPEG of 24 megapixels is drawn as one of 16 at most."""
    file = bombs.save(bombs.Image.linear_gradient("L").resize((6000, 4000)), "JPEG")
    answer = http.post(
        "/v1/detect",
        content=file,
        headers={"Content-Type": "image/jpeg", "Accept": kind, "X-Request-Timeout-Ms": "60000"},
    )
    assert answer.status_code == 200
    width, height = bombs.Image.open(bombs.io.BytesIO(answer.content)).size
    assert 15_900_000 < width * height <= 16_000_000
    assert width / height == pytest.approx(1.5, abs=0.001)


def test_libraries_report_to_nobody(stack: Any) -> None:
    """Server, steps and decoding processes switch off ONNX Runtime's telemetry before they start."""
    triton = psutil.Process(stack.triton.pid)
    children = triton.children(recursive=True)
    assert any("stub" in child.name() for child in children)
    for child in children:
        if is_alive(child):
            assert child.environ().get("ORT_DISABLE_TELEMETRY") == "1", child.cmdline()


def test_only_the_drawing_process_knows_pillow(stack: Any, http: httpx.Client, astronaut: bytes) -> None:
    """The gateway loads no decoder: Pillow's libraries are in its child's memory map only."""
    answer = http.post("/v1/detect", content=astronaut, headers={"Content-Type": "image/jpeg", "Accept": "image/png"})
    assert answer.status_code == 200
    gateway = psutil.Process(stack.gateway.pid)
    assert not [each.path for each in gateway.memory_maps() if "PIL" in each.path]
    assert any("PIL" in each.path for child in gateway.children() for each in child.memory_maps())


def test_logs_hold_no_library_warnings(stack: Any, http: httpx.Client) -> None:
    """Warnings of libtiff and Pillow about clients' files reach no log."""
    for extra in ([(65_000, 3, 1, 1)], [(270, 2, 900, 9)], [(279, 4, 1, 9_999_999)]):
        for compression in (1, 5, 8):
            file = bombs.tiff(extra, t259=compression)
            http.post("/v1/classify", content=file, headers={"Content-Type": "image/tiff"})
    logs = [*stack.folder.rglob("*.log"), *stack.folder.glob("*.out")]
    text = "".join(path.read_text(errors="replace") for path in logs)
    assert len(logs) >= 3
    for word in ("TIFF", "tempfile.tif", "UserWarning", "Corrupt"):
        assert word not in text
