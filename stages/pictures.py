"""What a caller sent as an image -> what a network needs of it, within a budget of CPU time, memory and time.

    data --budget.cost--> small: decoded here
                     └--> anything else: decoded in a process that can be ended (`stages.processes`)

Small is what no content can make expensive: few pixels in few passes, little metadata, and a decoder whose time grows
with these alone. Where a file leaves doubt (`Cost.doubtful`), it is not small. A process costs 1 ms, so small pictures,
which are most, would pay for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages import decoding, imaging, workers
from stages.budget import Cost, cost
from stages.processes import Process, Processes, pack, serve, unpack
from stages.serving import RefusalError

SMALL_METADATA, SMALL_SEGMENTS, SMALL_BYTES = 65_536, 100, 4_000_000
LARGE_PIXELS: Final = 4_000_000  # whose memory a process gives back
# The parsers of the others do more than their files' structure tells.
SMALL_FORMATS: Final = ("JPEG", "PNG", "WEBP")


class Prepared(NamedTuple):
    """A picture as a network takes it.

    Attributes:
        pixels: UINT8 [height, width, 3], RGB, as `imaging.fit` made it.
        geometry: where the picture lies in it.
        size: width and height of the upright picture.

    """

    pixels: npt.NDArray[np.uint8]
    geometry: imaging.Geometry
    size: tuple[int, int]


class Pictures:
    """Decodes pictures for one step, each when it is its turn.

    Args:
        parameters: of the step's config, which hold its `imaging.Recipe`.

    """

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.recipe = imaging.Recipe.from_parameters(parameters)
        decoding.prepare_pillow(self.recipe.max_pixels)
        self._gates = workers.Gates()
        self._processes = Processes(partial(Process, __name__, pack(dict(parameters))))

    def prepare(self, data: bytes, options: Mapping[str, Any], deadline: float) -> Prepared:
        """Return one picture, decoded and brought to size.

        Args:
            data: encoded, or raw pixels where the options describe such.
            options: the request's parameters.
            deadline: in seconds of time.monotonic; what still runs then is ended.

        Raises:
            RefusalError: `deadline_exceeded`; and as `decoding.open_raw` and `open_encoded`.

        """
        if time.monotonic() >= deadline:
            raise RefusalError("deadline_exceeded", "The request's deadline passed before the image was decoded.")
        try:
            return self._prepare(data, options, deadline)
        finally:
            if len(data) > SMALL_BYTES:
                workers.return_memory()

    def _prepare(self, data: bytes, options: Mapping[str, Any], deadline: float) -> Prepared:
        if decoding.is_raw(options):
            with self._gates.enter(0, deadline):
                return fitted(decoding.open_raw(data, options, self.recipe.max_pixels), self.recipe)
        found = cost(data)
        if _is_small(found, data):
            with self._gates.enter(found.work, deadline):  # opening too: Pillow reads the metadata then
                opened = decoding.open_encoded(data, self.recipe.max_pixels, (found.format,))
                return fitted(opened, self.recipe)
        decoding.check_pixels(found.pixels, self.recipe.max_pixels)
        with self._gates.enter(max(found.work, workers.SMALL_WORK + 1), deadline):
            return _read(self._processes.ask(data, deadline))

    def close(self) -> None:
        """End the processes."""
        self._processes.close()


def _is_small(found: Cost, data: bytes) -> bool:
    return (
        found.format in SMALL_FORMATS
        and found.pixels > 0
        and found.work <= workers.SMALL_WORK
        and not found.doubtful
        and found.metadata + found.skipped <= SMALL_METADATA
        and found.segments <= SMALL_SEGMENTS
        and len(data) <= SMALL_BYTES
    )


def fitted(image: Image.Image, recipe: imaging.Recipe) -> Prepared:
    """Decode an opened image and bring it to size."""
    upright = decoding.upright_rgb(image)
    return Prepared(*imaging.fit(upright, recipe), upright.size)


def _read(answer: bytes) -> Prepared:
    head, body = unpack(answer)
    match head:
        case {"code": str(code), "sentence": str(sentence)}:
            raise RefusalError(code, sentence)
        case {"shape": list(shape), "geometry": list(geometry), "size": [int(width), int(height)]}:
            pixels = np.frombuffer(body, np.uint8).reshape(shape)
            return Prepared(pixels, imaging.Geometry(*geometry), (width, height))
    raise RefusalError("backend_error", "the process that decodes gave no answer")


def _answer(recipe: imaging.Recipe, data: bytes) -> bytes:
    """Return what the process tells of one encoded picture."""
    try:
        made = fitted(decoding.open_encoded(data, recipe.max_pixels), recipe)
    except RefusalError as refusal:
        return pack({"code": refusal.code, "sentence": refusal.sentence})
    except MemoryError:
        return pack({"code": "image_too_large", "sentence": "The image takes more memory than there is for one."})
    if made.size[0] * made.size[1] > LARGE_PIXELS:
        workers.return_memory()
    return pack({"shape": made.pixels.shape, "geometry": made.geometry, "size": made.size}, made.pixels.tobytes())


def main() -> None:
    """Decode what comes over standard input, by the recipe that comes first."""
    connection = Connection(0)
    parameters, _ = unpack(connection.recv_bytes())
    recipe = imaging.Recipe.from_parameters({name: str(value) for name, value in parameters.items()})
    decoding.prepare_pillow(recipe.max_pixels)
    serve(partial(_answer, recipe), connection, recipe.max_pixels)


if __name__ == "__main__":
    main()
