"""A picture's CPU time and memory are limited, and other pictures do not wait for it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import bombs
import numpy as np
import psutil
import pytest
from PIL import Image

from stages import decoding, imaging, pictures, processes
from stages.recipe import Recipe
from stages.serving import RefusalError

PARAMETERS = {"resize": "shortest_edge_center_crop", "resize_to": "256", "width": "224", "height": "224"}


pytestmark = pytest.mark.usefixtures("pillow")


@pytest.fixture
def decoder():
    made = pictures.Pictures(PARAMETERS)
    yield made
    made.close()


def ask(decoder, data, seconds=30.0):
    return decoder.prepare(data, {}, time.monotonic() + seconds)


def children():
    """Return the decoding processes of this process; a stack that other tests share has some too."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "stages.pictures" in child.cmdline():
                found.append(child)
    return found


@pytest.mark.parametrize("kind", decoding.FORMATS)
@pytest.mark.parametrize("size", [(300, 200), (2100, 2000)])
def test_a_process_gives_what_a_thread_gives(decoder, kind, size):
    """Small or large, a picture has the pixels that Pillow alone gives."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.effect_noise(size, 90).convert("RGB")
    options = {} if kind in ("GIF", "BMP") else {"exif": exif, "speed": 10, "method": 0}
    data = bombs.save(image, kind, **options)
    made = ask(decoder, data)
    recipe = Recipe.from_parameters(PARAMETERS)
    upright = decoding.upright_rgb(decoding.open_encoded(data, recipe.max_pixels))
    pixels, geometry = imaging.fit(upright, recipe)
    assert made.size == upright.size == (size if kind in ("GIF", "BMP") else size[::-1])
    assert made.geometry == geometry
    assert np.array_equal(made.pixels, pixels)


def test_small_pictures_need_no_process(decoder):
    """Most pictures are decoded at once in the calling thread; potentially expensive ones never are."""
    ask(decoder, bombs.jpeg(1200, 900))
    ask(decoder, bombs.png(600, 400, colour=6))
    assert children() == []
    ask(decoder, bombs.tiff())
    assert len(children()) == 1
    (child,) = children()
    for name in ("webp codes", "png texts, wide"):
        data = bombs.BOMBS[name][0]()
        before = child.io_counters().read_chars
        with contextlib.suppress(RefusalError):
            ask(decoder, data)
        assert child.io_counters().read_chars - before >= len(data)


def test_metadata_is_read_within_the_limits(decoder):
    """Opening reads all metadata, so Pillow opens a picture only when its turn has come."""
    with contextlib.ExitStack() as places:
        for _ in os.sched_getaffinity(0):
            places.enter_context(decoder._gates.enter(0))
        with pytest.raises(RefusalError) as caught:
            ask(decoder, bombs.jpeg()[:-40].replace(b"\x08\x00\x30", b"\x09\x00\x30"), 0.1)
    assert caught.value.code == "deadline_exceeded"


def test_the_deadline_ends_the_work(decoder):
    """At a request's deadline its process ends, and the next picture gets another."""
    data = bombs.scans(4000, 4000, 7_800)
    ask(decoder, bombs.tiff())
    (before,) = children()
    begun = time.monotonic()
    with pytest.raises(RefusalError) as caught:
        ask(decoder, data, 0.05)
    assert caught.value.code == "deadline_exceeded"
    assert time.monotonic() - begun < 1
    assert not before.is_running()
    assert children() == []
    assert ask(decoder, bombs.tiff()).size == (10, 10)


def test_a_deadline_that_is_over_costs_nothing(decoder):
    """A picture after its deadline is not even opened."""
    with pytest.raises(RefusalError) as caught:
        ask(decoder, b"no image", 0)
    assert caught.value.code == "deadline_exceeded"


def test_waiting_for_a_turn_ends_too(decoder):
    """A picture without a turn by its deadline is refused."""
    data = bombs.tiff()
    with decoder._gates.enter(30_000_000), decoder._gates.enter(30_000_000):
        places = [decoder._gates.enter(30_000_000) for _ in range(len(os.sched_getaffinity(0)) - 2)]
        for place in places:
            place.__enter__()
        with pytest.raises(RefusalError) as caught:
            ask(decoder, data, 0.2)
        for place in places:
            place.__exit__(None, None, None)
    assert caught.value.code == "deadline_exceeded"
    assert ask(decoder, data).size == (10, 10)


def test_a_crash_is_the_pictures_fault(decoder):
    """A process that crashes on a picture is replaced, and the picture is refused."""
    ask(decoder, bombs.tiff())
    (child,) = children()
    child.suspend()
    killer = threading.Timer(0.2, child.kill)
    killer.start()
    with pytest.raises(RefusalError) as caught:
        ask(decoder, bombs.tiff())
    killer.join()
    assert caught.value.code == "image_too_large"
    assert ask(decoder, bombs.tiff()).size == (10, 10)


def test_a_dead_idle_process_is_replaced(decoder):
    """A process that was killed while idle is replaced before the next picture."""
    ask(decoder, bombs.tiff())
    (child,) = children()
    child.kill()
    psutil.wait_procs([child], 5)
    assert ask(decoder, bombs.tiff()).size == (10, 10)


def test_a_process_that_cannot_take_a_picture_ends_with_it(decoder):
    """The deadline holds while the bytes are handed over too."""
    ask(decoder, bombs.tiff())
    (child,) = children()
    child.suspend()
    begun = time.monotonic()
    with pytest.raises(RefusalError) as caught:
        ask(decoder, bombs.tiff(data=bytes(4_000_000)), 0.3)
    assert caught.value.code == "deadline_exceeded"
    assert time.monotonic() - begun < 2
    assert children() == []


def test_slow_starts_serve_later_pictures(decoder):
    """Deadlines shorter than a start are met as soon as the process is there."""
    codes = []
    for _ in range(100):
        try:
            ask(decoder, bombs.tiff(), 0.1)
        except RefusalError as error:
            codes.append(error.code)
        else:
            break
    assert 0 < len(codes) < 100
    assert set(codes) == {"deadline_exceeded"}
    assert len(children()) == 1


@pytest.mark.parametrize("seconds", [3e6, 1e13])
def test_far_deadlines_work(decoder, seconds):
    """A month, or none at all."""
    assert ask(decoder, bombs.tiff(), seconds).size == (10, 10)
    assert ask(decoder, bombs.tiff(), seconds).size == (10, 10)
    assert len(children()) == 1


def test_lower_limits_of_the_operator_are_kept():
    """A step with lower limits on memory and CPU time still decodes a picture."""
    script = (
        "import resource, sys, time; sys.path.insert(0, 'tests/hostile'); import bombs\n"
        "from stages.pictures import Pictures\n"
        f"made = Pictures({PARAMETERS!r})\n"
        "for kind, most in ((resource.RLIMIT_AS, 1_200_000_000), (resource.RLIMIT_CPU, 60)):\n"
        "    resource.setrlimit(kind, (most, most))\n"
        "print(made.prepare(bombs.tiff(), {}, time.monotonic() + 30).size); made.close()"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "(10, 10)\n"


def fail(_):
    sys.exit(3)


def spin(_):
    while True:
        pass


def swell(_):
    try:
        return bytes(900_000_000)
    except MemoryError:
        return b"no memory"


def serve(what):
    connection = processes.Connection(0)
    connection.recv_bytes()
    processes.serve({"spin": spin, "swell": swell, "fail": fail}[what], connection, 1_000_000)


@pytest.fixture
def other(monkeypatch):
    """Return a function that makes a process which does other work."""

    def make(what):
        root = Path(__file__).resolve().parents[2]
        script = (
            f"import importlib.util as u; s = u.spec_from_file_location('t', {str(Path(__file__))!r});"
            f"m = u.module_from_spec(s); s.loader.exec_module(m); m.serve({what!r})"
        )
        popen, path = subprocess.Popen, str(root / "tests" / "hostile")
        monkeypatch.setattr(
            processes.subprocess,
            "Popen",
            lambda _, **options: popen(
                [sys.executable, "-c", script], cwd=root, **{**options, "env": {**os.environ, "PYTHONPATH": path}}
            ),
        )
        return processes.Processes(partial(processes.Process, "unused", b""))

    return make


@pytest.mark.slow
def test_cpu_time_ends_a_process(other, monkeypatch):
    """The kernel kills a process beyond a picture's CPU time, whatever its deadline."""
    pool = other("spin")
    begun = time.monotonic()
    with pytest.raises(RefusalError) as caught:
        pool.ask(b"", time.monotonic() + 120)
    assert caught.value.code == "image_too_large"
    assert time.monotonic() - begun > processes.CPU_S * 0.8
    assert f"{processes.CPU_S} s" in caught.value.sentence


def test_memory_is_bounded(other):
    """A process cannot allocate more than a picture may take."""
    pool = other("swell")
    assert pool.ask(b"", time.monotonic() + 30) == b"no memory"
    pool.close()


@pytest.mark.slow
def test_a_process_that_fails_by_itself_is_an_error_of_the_step(other):
    """Its exit code tells this; it gets time to end."""
    pool = other("fail")
    for _ in range(5):
        with pytest.raises(RefusalError) as caught:
            pool.ask(b"", time.monotonic() + 30)
        assert caught.value.code == "backend_error"


def test_processes_end_with_their_step():
    """A killed step leaves no process behind, not even a busy one."""
    script = (
        "import sys, time; sys.path.insert(0, 'tests/hostile'); import bombs\n"
        "from stages.pictures import Pictures\n"
        f"made = Pictures({PARAMETERS!r}); made.prepare(bombs.tiff(), {{}}, time.monotonic() + 30)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root) as step:
        assert step.stdout.readline() == b"ready\n"
        (child,) = psutil.Process(step.pid).children()
        step.kill()
        child.wait(5)


@pytest.mark.slow
def test_no_other_plugin_is_loaded():
    """After pictures of every kind, and garbage, Pillow has loaded the plugins of our formats only."""
    script = (
        "import sys, time; sys.path.insert(0, 'tests/hostile'); import mutants, bombs\n"
        "from PIL import Image\n"
        "files = [file for kind in mutants.FORMATS for file in mutants.seeds(kind)]\n"
        "files += [bombs.save(Image.new('RGB', (9, 9)), kind) for kind in ('PPM', 'ICO', 'TGA', 'MPO', 'PCX')]\n"
        "open(sys.argv[1], 'wb').write(b''.join(len(f).to_bytes(4, 'big') + f for f in files))"
    )
    step = (
        "import sys, time\n"
        "from stages import decoding, pictures\n"
        "from stages.recipe import Recipe\n"
        f"recipe = Recipe.from_parameters({PARAMETERS!r})\n"
        "decoding.prepare_pillow(recipe.max_pixels)\n"
        "data = open(sys.argv[1], 'rb').read(); served = 0\n"
        "while data:\n"
        "    size = int.from_bytes(data[:4], 'big'); one, data = data[4:4 + size], data[4 + size:]\n"
        "    for file in (one, one[:len(one) // 2], b'garbage' + one):\n"
        "        try: pictures.decode_and_fit(decoding.open_encoded(file, 10**6), recipe); served += 1\n"
        "        except decoding.RefusalError: pass\n"
        "assert served > 25, served\n"
        "print(sorted(name[4:] for name in sys.modules if name.startswith('PIL.') and name.endswith('ImagePlugin')))"
    )
    root = Path(__file__).resolve().parents[2]
    file = f"/proc/self/fd/{os.memfd_create('pictures')}".replace("self", str(os.getpid()))
    subprocess.run([sys.executable, "-c", script, file], check=True, cwd=root)
    done = subprocess.run([sys.executable, "-c", step, file], check=True, cwd=root, capture_output=True, text=True)
    ours = [f"{name}ImagePlugin" for name in ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")]
    assert done.stdout.strip() == str(ours)
    assert done.stderr == ""
