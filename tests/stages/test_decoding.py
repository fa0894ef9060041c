"""Images from callers: every format, mode and orientation is understood, and broken ones are refused."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PpmImagePlugin

from stages import decoding
from stages.serving import RefusalError

CAP = 50_000_000
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}, "GIF": {}}
LOSSY = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95}}
# How an upright [h, w, 3] array is stored under each EXIF orientation: the inverse of what a viewer does with it.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


pytestmark = pytest.mark.usefixtures("pillow")


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(data, cap=CAP):
    return np.asarray(decoding.upright_rgb(decoding.open_encoded(data, cap)))


def refusal(data, cap=CAP):
    with pytest.raises(RefusalError) as caught:
        decode(data, cap)
    return caught.value.code


def picture(width=24, height=16):
    """A smooth picture in which no two corners look alike."""
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, extra=b""):
    """A PNG built by hand, of kinds that Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_formats_give_back_their_pixels(kind):
    assert (decode(encoded(Image.fromarray(picture()), kind, **LOSSLESS[kind])) == picture()).all()


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_formats_come_close_to_their_pixels(kind):
    got = decode(encoded(Image.fromarray(picture(96, 64)), kind, **LOSSY[kind])).astype(int)
    assert np.abs(got - picture(96, 64)).mean() < 3


def test_gif_gives_back_a_palette_of_few_colours():
    blocks = np.kron(np.array([[0, 1], [2, 3]]), np.ones((8, 8), int))
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)[blocks]
    assert (decode(encoded(Image.fromarray(colours), "GIF")) == colours).all()


def test_other_formats_are_refused():
    assert PpmImagePlugin.PpmImageFile.format == "PPM"  # loaded here, and refused all the same
    assert refusal(encoded(Image.fromarray(picture()), "PPM")) == "image_undecodable"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(kind, orientation):
    upright = picture(96, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {**LOSSLESS, **LOSSY}[kind]
    got = decode(encoded(stored, kind, exif=exif, **options))
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).mean() < 3


def test_broken_exif_leaves_the_picture_as_stored():
    data = encoded(Image.fromarray(picture()), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (decode(data) == picture()).all()


def test_an_orientation_without_meaning_leaves_the_picture_as_stored():
    exif = Image.Exif()
    exif[0x0112] = 42
    assert (decode(encoded(Image.fromarray(picture()), "PNG", exif=exif)) == picture()).all()


def test_grey_is_the_same_in_all_channels():
    grey = picture()[:, :, 0]
    assert (decode(encoded(Image.fromarray(grey))) == grey[:, :, None]).all()


def test_one_bit_is_black_and_white():
    bits = picture()[:, :, 0] > 99
    assert (decode(encoded(Image.fromarray(bits))) == (bits * 255)[:, :, None]).all()


def test_alpha_lies_on_white():
    colour, alpha = picture().astype(float), np.linspace(0, 255, 24).round()[None, :, None] * np.ones((16, 1, 1))
    rgba = np.concatenate([colour, alpha], axis=2).astype(np.uint8)
    expected = colour * alpha / 255 + 255 * (1 - alpha / 255)
    assert np.abs(decode(encoded(Image.fromarray(rgba))) - expected).max() <= 1


def test_grey_with_alpha_lies_on_white():
    la = np.stack([np.full((4, 4), 40), np.arange(16).reshape(4, 4) * 17], axis=2).astype(np.uint8)
    expected = 40 * (la[..., 1] / 255) + 255 - la[..., 1]
    assert np.abs(decode(encoded(Image.fromarray(la, "LA"))) - expected[..., None]).max() <= 1


def test_a_palette_is_looked_up_and_its_transparent_entries_are_white():
    indexed = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    plain = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    assert decode(encoded(indexed)).tolist() == plain
    clear = [[[10, 20, 30], [255, 255, 255]], [[70, 80, 90], [255, 255, 255]]]
    assert decode(encoded(indexed, "PNG", transparency=1)).tolist() == clear
    assert decode(encoded(indexed, "GIF", transparency=1)).tolist() == clear


def test_a_transparent_colour_is_white():
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert decode(encoded(rgb, "PNG", transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 6), ("TIFF", 1)])
def test_cmyk_shows_its_colours_and_not_their_negative(kind, tolerance):
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, :16] = (0, 255, 255, 0)  # magenta and yellow: red
    inks[:, 16:] = (0, 0, 0, 200)  # dark grey
    got = decode(encoded(Image.fromarray(inks, "CMYK"), kind)).astype(int)
    assert np.abs(got[8, 4] - (255, 0, 0)).max() <= tolerance
    assert np.abs(got[8, 28] - (55, 55, 55)).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled_to_8(kind):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(values / 257)
    assert (decode(encoded(Image.fromarray(values), kind)) == expected[:, :, None]).all()


def test_grey_of_16_bits_in_big_endian_tiff_is_scaled_to_8():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    data = encoded(Image.frombytes("I;16B", (256, 256), values.astype(">u2").tobytes()), "TIFF")
    assert (decode(data) == np.round(values / 257)[:, :, None]).all()


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint32])
def test_whole_numbers_without_a_defined_range_are_refused(kind):
    """Signed or 32-bit grey has no defined white, even if all values fit into 16 bits."""
    assert refusal(grey_tiff(np.array([[0, 1000], [257, 32767]], kind))) == "image_undecodable"


def test_the_tiff_built_by_hand_is_read():
    """The same file with unsigned 16 bits is decoded, so a refusal is due to the pixel type."""
    assert decode(grey_tiff(np.array([[0, 65535], [257, 32896]], np.uint16)))[..., 0].tolist() == [[0, 255], [1, 128]]


def grey_tiff(values):
    """A grey TIFF built by hand, of kinds that Pillow does not write."""
    height, width = values.shape
    pixels, tags = values.astype(values.dtype.newbyteorder("<")).tobytes(), []
    sample_format = 2 if values.dtype.kind == "i" else 1
    for tag, value in (
        *((256, width), (257, height), (258, values.itemsize * 8), (259, 1), (262, 1), (273, 8)),
        *((277, 1), (278, height), (279, len(pixels)), (339, sample_format)),
    ):
        tags.append(struct.pack("<HHII", tag, 4, 1, value))
    directory = struct.pack("<H", len(tags)) + b"".join(tags) + struct.pack("<I", 0)
    return b"II*\x00" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def test_floating_point_pixels_are_refused():
    assert refusal(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")) == "image_undecodable"


def test_rgb_of_16_bits_is_scaled_to_8():
    values = np.random.default_rng(0).integers(0, 65536, (5, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in values)
    assert np.abs(decode(png(4, 5, 16, 2, rows)) - values / 257).max() <= 1


def test_a_transparent_grey_of_16_bits_is_white():
    rows = b"\x00" + np.array([1000, 40000], ">u2").tobytes()
    data = png(2, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 1000)))
    assert decode(data)[0, :, 0].tolist() == [255, 156]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(decode(data).astype(int) - (255, 0, 0)).max() <= 8


def test_the_upright_size_is_what_decoding_gives():
    exif = Image.Exif()
    exif[0x0112] = 6
    header = decoding.open_encoded(encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif), CAP)
    assert decoding.upright_rgb(header).size == (20, 30)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 1000, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<svg/>"])
def test_what_is_no_image_is_refused(data):
    assert refusal(data) == "image_undecodable"


def test_an_image_beyond_the_cap_is_refused_at_once_and_without_a_warning():
    started = time.process_time()
    assert refusal(png(65536, 65536, 8, 2, b"")) == "image_too_large"
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("pixels", [51_000_000, 99_000_000, 101_000_000, 2**31])
def test_the_cap_rules_before_pillows_own_limits(pixels):
    with warnings.catch_warnings(record=True) as seen:
        assert refusal(png(pixels // 1000, 1000, 8, 2, b"")) == "image_too_large"
    assert seen == []


def test_an_image_of_exactly_the_cap_is_taken():
    data = encoded(Image.new("L", (10, 7)))
    assert decode(data, cap=70).shape == (7, 10, 3)
    assert refusal(data, cap=69) == "image_too_large"


@pytest.mark.parametrize("kind", decoding.FORMATS)
def test_a_file_cut_short_is_refused_or_decoded_but_never_raises_otherwise(kind):
    data = encoded(Image.fromarray(picture(40, 30)), kind)
    codes = [outcome(data[:end]) for end in range(0, len(data), max(1, len(data) // 60))]
    assert set(codes) <= {"decoded", "image_undecodable", "image_too_large"}
    assert codes.count("image_undecodable") > len(codes) // 2


@pytest.mark.parametrize("kind", decoding.FORMATS)
def test_a_file_with_flipped_bytes_is_refused_or_decoded_but_never_raises_otherwise(kind):
    rng = np.random.default_rng(7)
    data = np.frombuffer(encoded(Image.fromarray(picture(40, 30)), kind), np.uint8)
    codes = set()
    for _ in range(300):
        broken = data.copy()
        # Half of the flips go to the headers, where the most can break.
        reach = len(data) if rng.random() < 0.5 else min(len(data), 80)
        broken[rng.integers(0, reach, rng.integers(1, 6))] = rng.integers(0, 256)
        codes.add(outcome(broken.tobytes()))
    assert codes <= {"decoded", "image_undecodable", "image_too_large"}
    assert "image_undecodable" in codes


def outcome(data):
    # Pillow warns of broken metadata and goes on; as in a step's process, that is no error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decode(data, cap=1_000_000)
        except RefusalError as error:
            return error.code
    return "decoded"


@pytest.mark.parametrize(
    "error", [OSError, ValueError, TypeError, EOFError, struct.error, SyntaxError, MemoryError, RuntimeError, KeyError]
)
def test_whatever_a_decoder_raises_is_a_refusal(monkeypatch, error):
    def fail(*_):
        raise error("decoder")

    header = decoding.open_encoded(encoded(Image.fromarray(picture())), CAP)
    monkeypatch.setattr(header, "load", fail)
    with pytest.raises(RefusalError) as caught:
        decoding.upright_rgb(header)
    assert caught.value.code == ("image_too_large" if error is MemoryError else "image_undecodable")


def raw(data, **options):
    return np.asarray(decoding.upright_rgb(decoding.open_raw(data, options, CAP)))


def test_raw_pixels_are_taken_in_the_callers_layout():
    pixels = picture(5, 4)
    assert (raw(pixels.tobytes(), pixel_format="RGB", width=5, height=4) == pixels).all()
    assert (raw(pixels[..., ::-1].tobytes(), pixel_format="BGR", width=5, height=4) == pixels).all()
    assert (raw(pixels[..., 0].tobytes(), pixel_format="L", width=5, height=4) == pixels[..., :1]).all()
    clear = np.dstack([pixels, np.zeros((4, 5), np.uint8)])
    assert (raw(clear.tobytes(), pixel_format="RGBA", width=5, height=4) == 255).all()


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (59, {"pixel_format": "RGB", "width": 5, "height": 4}),
        (61, {"pixel_format": "RGB", "width": 5, "height": 4}),
        (60, {"pixel_format": "HSV", "width": 5, "height": 4}),
        (60, {"pixel_format": 3, "width": 5, "height": 4}),
        (60, {"pixel_format": "RGB", "width": 5}),
        (60, {"width": 5, "height": 4}),
        (0, {"pixel_format": "RGB", "width": 0, "height": 4}),
        (60, {"pixel_format": "RGB", "width": -5, "height": -4}),
        (60, {"pixel_format": "RGB", "width": "5", "height": 4}),
        (60, {"pixel_format": "RGB", "width": 5.0, "height": 4}),
        (12, {"pixel_format": "RGB", "width": True, "height": 4}),
    ],
)
def test_raw_pixels_that_do_not_fit_their_parameters_are_refused(length, options):
    with pytest.raises(RefusalError) as caught:
        raw(b"\x00" * length, **options)
    assert caught.value.code == "invalid_parameter"


def test_raw_pixels_beyond_the_cap_are_too_large():
    with pytest.raises(RefusalError) as caught:
        raw(b"", pixel_format="L", width=10**9, height=10**9)
    assert caught.value.code == "image_too_large"
