"""The image of a request -> pixels of the network's size, within limits on work, CPU time, memory and time.

    data --budget.cost--> small: decoded in this thread
                     └--> anything else: decoded in a process that can be killed (`stages.processes`)

A picture is small when its content cannot make it expensive: few pixels in few passes, little metadata, and a decoder
whose time depends on these alone. A file of doubtful cost (`Cost.doubtful`) is not small. Most pictures are small, and
the 1 ms that a process costs would gain them nothing.
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
from stages.recipe import Recipe
from stages.serving import RefusalError

SMALL_METADATA, SMALL_SEGMENTS, SMALL_BYTES = 65_536, 100, 4_000_000
LARGE_PIXELS: Final = 4_000_000  # after a larger picture a process returns memory to the system
# The parsers of other formats may do more work than the structure of a file shows.
SMALL_FORMATS: Final = ("JPEG", "PNG", "WEBP")


class Prepared(NamedTuple):
    """A picture at the network's size.

    Attributes:
        pixels: UINT8 [height, width, channels], RGB or grey, from `imaging.fit`.
        geometry: the picture's place in `pixels`.
        size: width and height of the upright picture.

    """

    pixels: npt.NDArray[np.uint8]
    geometry: imaging.Geometry
    size: tuple[int, int]


class Pictures:
    """Decodes pictures for one step, within the limits of `workers.Gates`.

    Args:
        parameters: of the step's config, which contain its `Recipe`.

    """

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.recipe = Recipe.from_parameters(parameters)
        decoding.prepare_pillow(self.recipe.max_pixels)
        self._gates = workers.Gates()
        self._processes = Processes(partial(Process, __name__, pack(dict(parameters))))

    def prepare(self, data: bytes, options: Mapping[str, Any], deadline: float) -> Prepared:
        """Decode one picture and resize it for the network.

        Args:
            data: an encoded image, or raw pixels when the options describe them.
            options: the request's parameters.
            deadline: in seconds of time.monotonic; a decoding process that still runs then is killed.

        Raises:
            RefusalError: `deadline_exceeded`, or a code of `decoding` or `processes`.

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
                return decode_and_fit(decoding.open_raw(data, options, self.recipe.max_pixels), self.recipe)
        found = cost(data)
        if _is_small(found, data):
            with self._gates.enter(found.work, deadline):  # covers opening, because Pillow reads the metadata then
                opened = decoding.open_encoded(data, self.recipe.max_pixels, (found.format,))
                return decode_and_fit(opened, self.recipe)
        decoding.check_pixels(found.pixels, self.recipe.max_pixels)
        with self._gates.enter(max(found.work, workers.SMALL_WORK + 1), deadline):
            return _read_answer(self._processes.ask(data, deadline))

    def close(self) -> None:
        """Kill the idle processes."""
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


def decode_and_fit(image: Image.Image, recipe: Recipe) -> Prepared:
    """Decode an opened image and resize it for the network."""
    upright = decoding.upright_rgb(image, recipe.alpha)
    return Prepared(*imaging.fit(upright, recipe), upright.size)


def _read_answer(answer: bytes) -> Prepared:
    head, body = unpack(answer)
    match head:
        case {"code": str(code), "sentence": str(sentence)}:
            raise RefusalError(code, sentence)
        case {"shape": list(shape), "geometry": list(geometry), "size": [int(width), int(height)]}:
            pixels = np.frombuffer(body, np.uint8).reshape(shape)
            return Prepared(pixels, imaging.Geometry(*geometry), (width, height))
    raise RefusalError("backend_error", "the decoding process sent an invalid answer")


def _answer(recipe: Recipe, data: bytes) -> bytes:
    """Return the message with which a process answers one encoded picture."""
    try:
        made = decode_and_fit(decoding.open_encoded(data, recipe.max_pixels), recipe)
    except RefusalError as refusal:
        return pack({"code": refusal.code, "sentence": refusal.sentence})
    except MemoryError:
        return pack(
            {"code": "image_too_large", "sentence": "Decoding the image takes more memory than one image may use."}
        )
    if made.size[0] * made.size[1] > LARGE_PIXELS:
        workers.return_memory()
    return pack({"shape": made.pixels.shape, "geometry": made.geometry, "size": made.size}, made.pixels.tobytes())


def main() -> None:
    """Decode the pictures that arrive on standard input; the first message holds the parameters of the recipe."""
    connection = Connection(0)
    parameters, _ = unpack(connection.recv_bytes())
    recipe = Recipe.from_parameters({name: str(value) for name, value in parameters.items()})
    decoding.prepare_pillow(recipe.max_pixels)
    serve(partial(_answer, recipe), connection, recipe.max_pixels)


if __name__ == "__main__":
    main()
