"""A picture's cost is known before decoding: valid files pass, bombs do not, and looking takes no time."""

import io
import struct
import time
import zlib

import bombs
import numpy as np
import pytest
from PIL import Image

from stages import budget
from stages.budget import jpeg
from stages.serving import RefusalError


def noise(width=600, height=400):
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def refusal(data):
    with pytest.raises(RefusalError) as caught:
        budget.cost(data)
    assert caught.value.code == "image_too_large"
    return caught.value.sentence


@pytest.mark.parametrize("kind", budget.FORMATS)
def test_the_pixels_of_every_format_are_found(kind):
    """The walk finds the size given to the encoder."""
    found = budget.cost(bombs.save(noise(60, 40), kind))
    assert (found.format, found.pixels) == (kind, 2400)


@pytest.mark.parametrize("kind", budget.FORMATS)
@pytest.mark.parametrize("frames", [1, 30])
def test_sound_files_pass(kind, frames):
    """Photographs and animations with EXIF cost no more than their pixels."""
    exif = Image.Exif()
    exif[0x010E] = "x" * 20_000
    options = {"save_all": True, "append_images": [noise(64, 64)] * (frames - 1)} if frames > 1 else {}
    options = options if kind not in ("JPEG", "BMP") else {}
    found = budget.cost(bombs.save(noise(64, 64), kind, exif=exif, **options))
    assert found.work < 10_000_000
    assert found.segments < 100


def test_large_metadata_of_sound_files_passes():
    """A PNG with a 2 MB colour profile, a JPEG with 1 MB of EXIF and profile, and an MPO are accepted."""
    profile = np.random.default_rng(2).bytes(2_000_000)
    assert budget.cost(bombs.save(noise(), "PNG", icc_profile=profile)).metadata > 1_900_000
    assert budget.cost(bombs.save(noise(), "JPEG", icc_profile=profile[:1_000_000])).metadata > 1_000_000
    mpo = bombs.save(noise(), "MPO", save_all=True, append_images=[noise()] * 4)
    assert budget.cost(mpo).scans == 1


def test_the_scans_of_a_progressive_jpeg_are_counted():
    """Pillow writes ten; bytes after the end of the picture do not count."""
    file = bombs.save(noise(), "JPEG", progressive=True)
    expected = len([part for part in bombs.segments(file) if part[1] == 0xDA])
    assert budget.cost(file).scans == expected
    assert 6 <= expected <= 12
    assert budget.cost(file + b"\xff\xda" * 5_000_000).scans == expected
    assert budget.cost(bombs.save(Image.new("L", (7000, 7000)), "JPEG", progressive=True)).scans > 1


def test_scans_times_pixels_are_bounded():
    """93 scans of 16 megapixels are 1.49 thousand million pixels and pass; one more does not."""
    unit = bombs.segments(bombs.scans(4000, 4000, 200_000))[-1]
    assert budget.cost(bombs.scans(4000, 4000, 7_800 + 62 * len(unit))).scans <= 93
    assert "94 scans or more of 16 megapixels" in refusal(bombs.scans(4000, 4000, 200_000))


def test_markers_inside_a_segment_are_not_scans():
    """A comment between scans that is full of markers is one segment."""
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + b"\xff\xda" * 30_000
    assert budget.cost(bombs.between_scans(comment)).scans == budget.cost(bombs.between_scans(b"")).scans


def test_markers_are_found_across_blocks():
    """A scan is counted anywhere in a long file."""
    parts = bombs.segments(bombs.save(Image.new("L", (8, 8)), "JPEG", progressive=True))
    first = next(index for index, part in enumerate(parts) if part[1] == 0xDA)
    before = len(b"".join(parts[: first + 1]))
    for end in range(jpeg.Markers.BLOCK - 4, jpeg.Markers.BLOCK + 3):
        file = b"".join([*parts[: first + 1], bytes(end - before), *parts[first + 1 :], b"\xff\xd9"])
        assert budget.cost(file).scans == sum(part[1] == 0xDA for part in parts)


def test_a_thousand_segments_are_taken_and_no_more():
    """The limits are the published ones: 1,000 segments, 4 MB to read and 16 MB to skip."""
    comment = bombs.segment(0xFE, b"abc")
    assert budget.cost(bombs.in_header(comment * 998)).segments == 1000  # with two of its own
    assert "1000 segments" in refusal(bombs.in_header(comment * 999))
    read, skipped = bombs.segment(0xE1, b"Exif\0\0" + bytes(65_000)), bombs.segment(0xFE, bytes(65_000))
    budget.cost(bombs.in_header(read * 61))
    assert "4 MB" in refusal(bombs.in_header(read * 62))
    budget.cost(bombs.in_header(skipped * 246))
    assert "16 MB" in refusal(bombs.in_header(skipped * 247))


def test_metadata_that_phones_and_photoshop_write_passes():
    """Extended XMP of 4.9 MB in a JPEG, all layers in one TIFF tag, an animation of 3,000 tiny frames."""
    xmp = bombs.segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))
    assert budget.cost(bombs.in_header(xmp * 75)).skipped > 4_800_000
    assert budget.cost(bombs.tiff([(37_724, 7, 5_000_000, 200)], bytes(5_000_400))).pixels == 100
    frames = bombs.chunk(b"fcTL", bytes(26)) + bombs.chunk(b"fdAT", bytes(30))
    head = bombs.png(extra=bombs.chunk(b"acTL", struct.pack(">II", 3_000, 0)) + bombs.chunk(b"fcTL", bytes(26)))[:-12]
    assert budget.cost(head + frames * 3_000 + bombs.chunk(b"IEND", b"")).pixels == 100


def test_frames_of_unannounced_animations_are_counted():
    """Pillow reads them even if the file announces frames too late, twice or never."""
    control, frames = bombs.chunk(b"acTL", struct.pack(">II", 9, 0)), bombs.chunk(b"fcTL", bytes(26)) * 3_000
    for file in (bombs.png()[:-12], bombs.png(extra=control * 2)[:-12], bombs.png()[:-12] + control):
        assert "too many pieces" in refusal(file + frames + bombs.chunk(b"IEND", b""))


def test_the_largest_size_counts():
    """Of all sizes in a file, before or after its pixels or behind its end, the largest counts."""
    small, large = (bombs.png(side, side)[8:33] for side in (1, 500))
    picture = bombs.png(300, 300)
    assert budget.cost(picture[:-12] + small + picture[-12:]).pixels == 90_000
    assert budget.cost(picture[:8] + large + picture[8:]).pixels == 250_000
    webp = bombs.save(noise(300, 300), "WEBP")
    assert budget.cost(webp + b"VP8X" + struct.pack("<I", 10) + bytes(10)).pixels == 90_000
    assert budget.cost(webp + b"a line\n").pixels == 90_000


@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\x01\xff\x01", b"\xff\xd0", b"\xff\xff", b"\xff\xdc\0\2", b"ab"])
def test_skipped_segments_hide_no_scan(marker):
    """libjpeg skips them; the scans behind them are counted."""
    plain = budget.cost(bombs.between_scans(b""))
    found = budget.cost(bombs.between_scans(marker))
    assert (found.scans, found.doubtful) == (plain.scans, False)


def test_unclear_files_are_in_doubt():
    """Unknown or truncated structures, and any that may cost more than they show."""
    rare = bombs.jpeg().replace(b"\xff\xc0", b"\xff\xc9", 1)
    packed = np.random.default_rng(4).bytes(5_000)
    for file in (
        bombs.between_scans(b"\xff\x02"),
        bombs.between_scans(b"\xff\xf7"),
        rare,
        bombs.jpeg(1, 200),
        bombs.jpeg()[:-2],
        bombs.in_header(bombs.segment(0xFE, b"") + bytes(5_000)),
        bombs.png()[:-12],
        bombs.png(extra=bombs.chunk(b"zTXt", b"k\0\0" + packed)),
        bombs.png(extra=bombs.chunk(b"iTXt", b"k\0\1\0\0\0" + packed)),
        bombs.save(noise(), "PNG", icc_profile=packed),
        bombs.save(noise(), "WEBP", lossless=True),
        bombs.save(noise().convert("RGBA").rotate(9), "WEBP"),
        bombs.webp_frames(2),
    ):
        assert budget.cost(file).doubtful
    for file in (
        *(bombs.save(noise(), kind) for kind in ("JPEG", "PNG", "WEBP")),
        bombs.save(noise(), "JPEG", progressive=True, icc_profile=packed),
        bombs.save(noise(), "PNG", icc_profile=packed[:3_000]),
        bombs.png(extra=bombs.chunk(b"iTXt", b"k\0\0\0\0\0" + b"x" * 5_000)),
        bombs.save(noise(30, 30), "WEBP", lossless=True),
        bombs.save(noise(30, 30), "WEBP") + b"\n",
    ):
        assert not budget.cost(file).doubtful


def test_a_png_of_many_sound_pieces_passes():
    """libpng writes pieces of 8 KB: a file of 20 MB has 2,500 of them."""
    packed = zlib.compress(np.random.default_rng(3).bytes(2_600_000), 0)
    pieces = b"".join(bombs.chunk(b"IDAT", packed[at : at + 8192]) for at in range(0, len(packed), 8192))
    budget.cost(bombs.png(extra=pieces * 8))


@pytest.mark.parametrize("name", bombs.BOMBS)
def test_looking_takes_no_time(name):
    """The cost of any file of 19 MB is known, or the file refused, in a fraction of a second of CPU time."""
    file, expected = bombs.BOMBS[name][0](), bombs.BOMBS[name][1]
    begun = time.thread_time()
    try:
        budget.cost(file)
        code = "served"
    except RefusalError as error:
        code = error.code
    assert time.thread_time() - begun < 0.5
    assert code in expected or code == "served"


def test_unknown_formats_are_refused():
    """At once, as data that is not an image."""
    for data in (b"hello", b"<svg/>", b"P6 1 1 255 abc", b"\0" * 100):
        with pytest.raises(RefusalError) as caught:
            budget.cost(data)
        assert caught.value.code == "image_undecodable"


def test_big_tiff_is_read():
    """The directory of a TIFF with offsets of 64 bits is found too."""
    file = io.BytesIO()
    noise(30, 20).save(file, "TIFF", big_tiff=True)
    assert budget.cost(file.getvalue()).pixels == 600
