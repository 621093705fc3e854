"""Every odd kind of picture file has the behaviour that the table of `read_picture` states."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from openjepa.data.picture import MAX_PIXELS, BadPicture, read_header, read_picture, to_channels

from .conftest import encoded, photo


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file made by hand, for the kinds that Pillow does not write."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def test_rgb_png_is_read_exactly():
    pixels = photo(7, 9)
    assert (read_picture(encoded(pixels)) == pixels).all()


def test_path_and_bytes_give_the_same(tmp_path):
    data = encoded(photo(7, 9), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    assert (read_picture(tmp_path / "a.jpg") == read_picture(data)).all()
    assert (read_picture(str(tmp_path / "a.jpg")) == read_picture(data)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_common_formats(kind):
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    pixels = photo(16, 12)
    got = read_picture(encoded(pixels, kind, **options))
    assert got.shape == (16, 12, 3) and got.dtype == np.uint8
    assert abs(got.astype(int) - pixels).mean() < 12


def test_grey_is_repeated_and_luma_is_pillows():
    grey = photo(6, 5)[..., 0]
    assert (read_picture(encoded(grey)) == grey[..., None]).all()
    assert (read_picture(encoded(grey), 1) == grey[..., None]).all()
    colour = photo(6, 5)
    luma = np.asarray(Image.fromarray(colour).convert("L"))[..., None]
    assert (read_picture(encoded(colour), 1) == luma).all()
    assert (to_channels(colour, 1) == luma).all()


def test_one_bit():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert read_picture(saved(image, "PNG"))[0, :, 0].tolist() == [0, 255]


def test_alpha_is_laid_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [0, 128, 255]
    got = read_picture(encoded(rgba))
    assert got[0, 0].tolist() == [255, 255, 255] and got[0, 2].tolist() == [200, 0, 0]
    assert abs(got[0, 1].astype(int) - [227, 127, 127]).max() <= 1
    assert abs(to_channels(rgba, 3).astype(int) - got).max() <= 1


def test_grey_with_alpha_and_palette_with_transparency():
    la = np.array([[[10, 0], [10, 255]]], np.uint8)
    assert read_picture(encoded(la))[0, :, 0].tolist() == [255, 10]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    opaque = read_picture(saved(palette, "PNG"))
    assert opaque[0].tolist() == [[9, 9, 9], [200, 0, 0]]
    clear = read_picture(saved(palette, "PNG", transparency=0))
    assert clear[0].tolist() == [[255, 255, 255], [200, 0, 0]]
    bytewise = read_picture(saved(palette, "PNG", transparency=b"\x00\xff"))
    assert bytewise[0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_sixteen_bit_grey_is_scaled_not_wrapped():
    values = np.array([[0, 255, 256, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        got = read_picture(encoded(values, kind))
        assert got[0, :, 0].tolist() == [0, 1, 1, 1, 128, 255], kind


def test_sixteen_bit_colour_keeps_the_high_byte():
    row = b"\0" + struct.pack(">6H", 0, 256, 65535, 32768, 511, 65280)
    assert read_picture(png(2, 1, 16, 2, row))[0].tolist() == [[0, 1, 255], [128, 1, 255]]


def test_thirty_two_bit_and_float():
    def tiff(array):
        return saved(Image.fromarray(array), "TIFF")

    assert read_picture(tiff(np.array([[0, 65535, 257]], np.int32)))[0, :, 0].tolist() == [0, 255, 1]
    assert read_picture(tiff(np.array([[-100, 0, 100]], np.int32)))[0, :, 0].tolist() == [0, 128, 255]
    assert read_picture(tiff(np.array([[0, 0.5, 1]], np.float32)))[0, :, 0].tolist() == [0, 128, 255]
    assert read_picture(tiff(np.array([[0, 99.6, 255]], np.float32)))[0, :, 0].tolist() == [0, 100, 255]
    assert read_picture(tiff(np.array([[-1, 0, 3]], np.float32)))[0, :, 0].tolist() == [0, 64, 255]
    with pytest.raises(BadPicture, match="NaN"):
        read_picture(tiff(np.array([[0, np.nan]], np.float32)))


def test_cmyk_is_converted():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    got = read_picture(saved(image, "JPEG"))
    assert got[4, 4, 0] > 200 and got[4, 4, 1:].max() < 60
    assert read_picture(saved(image, "TIFF"), 1).shape == (8, 8, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, :20] = 255  # bright in the stored top left corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(pixels, "JPEG", exif=exif, quality=95)
    got = read_picture(data)
    upright = [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (1, 0)][orientation - 1]
    shape = (20, 40, 3) if orientation < 5 else (40, 20, 3)
    assert got.shape == shape
    halves = got.mean(2).reshape(2, shape[0] // 2, 2, shape[1] // 2).mean((1, 3))
    assert tuple(np.argwhere(halves > 200)[0]) == upright
    assert read_header(data)[:2] == (shape[1], shape[0])


def test_first_frame_of_animations_and_pages():
    first, second = Image.new("RGB", (6, 6), (255, 0, 0)), Image.new("RGB", (6, 6), (0, 0, 255))
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        data = saved(first, kind, save_all=True, append_images=[second])
        assert read_picture(data)[3, 3, 0] > 240 and read_picture(data)[3, 3, 2] < 15, kind


def test_one_pixel():
    assert read_picture(encoded(np.full((1, 1, 3), 9, np.uint8))).tolist() == [[[9, 9, 9]]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_bad(kind, share):
    data = encoded(photo(40, 40), kind)
    with pytest.raises(BadPicture):
        read_picture(data[: int(len(data) * share)])


def test_damaged_bytes_are_bad_or_a_picture_but_never_anything_else():
    draw = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF"):
        good = encoded(photo(20, 20), kind)
        for _ in range(40):
            data = bytearray(good)
            for at in draw.integers(0, len(data), 8):
                data[at] = draw.integers(256)
            try:
                assert read_picture(bytes(data)).dtype == np.uint8
            except BadPicture as e:
                assert str(e) and "\n" not in str(e)


def test_not_pictures():
    for data, reason in ((b"", "empty"), (b"hello", "not a picture"), (b"\0" * 5000, "not a picture")):
        with pytest.raises(BadPicture, match=reason):
            read_picture(data)
        with pytest.raises(BadPicture, match=reason):
            read_header(data)
    with pytest.raises(BadPicture, match="not found"):
        read_picture("/nowhere/a.png")


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 5, 30_000])
def test_decompression_bombs_are_refused_before_decoding(side):
    bomb = png(side, side, 8, 0, b"\0" * 100)
    for reader in (read_picture, read_header):
        with pytest.raises(BadPicture, match="million pixels"):
            reader(bomb)


def test_reduced_decoding_of_large_jpegs_is_close_and_not_too_small():
    data = encoded(photo(800, 1200), "JPEG", quality=92)
    whole, reduced = read_picture(data), read_picture(data, short=150)
    assert reduced.shape == (200, 300, 3)  # a quarter: an eighth would be below 150
    exact = np.asarray(Image.fromarray(whole).resize((300, 200), Image.Resampling.BOX)).astype(int)
    assert abs(exact - reduced).mean() < 1.0
    assert read_picture(data, short=401).shape == whole.shape
    assert read_picture(encoded(photo(80, 120)), short=10).shape == (80, 120, 3)  # PNG: no such thing
    wide = encoded(photo(200, 3000), "JPEG")
    assert min(read_picture(wide, short=60).shape[:2]) >= 60
