"""One picture file to one uint8 array: every odd kind of file has a defined behaviour here, and nowhere else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
MAX_PIXELS = 89_478_485  # Pillow's own warning level (9459 x 9459): beyond it a file is taken for a bomb
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")


class BadPicture(ValueError):
    """A file that cannot be used as a picture; the message is the reason, in one line, without the file's name."""


class Header(NamedTuple):
    """What a file says about itself before its pixels are decoded; width and height as shown (after EXIF rotation)."""

    width: int
    height: int
    mode: str
    format: str


def read_picture(file: str | Path | bytes, channels: int = 3, *, short: int | None = None) -> np.ndarray:
    """A picture file as a uint8 array (H, W, channels).

    file      a path, or the encoded bytes
    channels  3 (RGB) or 1 (luma, ITU-R 601 as in Pillow)
    short     when given, a large JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (in the cosine domain: several
              times faster, mean error about one level against decoding and resizing) as long as its short side
              keeps at least this many pixels

    | file                     | what comes out                                                                    |
    |--------------------------|-----------------------------------------------------------------------------------|
    | grey, 1-bit              | repeated over the channels; 1-bit becomes 0 and 255                               |
    | grey + alpha, RGBA       | composited on white; so is a palette with transparency                            |
    | palette                  | looked up in its palette                                                          |
    | CMYK, YCbCr, LAB, HSV    | converted to RGB by Pillow, colour profile not applied                            |
    | 16-bit grey              | divided by 257: 65535 becomes 255, nothing wraps                                  |
    | 16-bit RGB               | the high byte of every channel                                                    |
    | 32-bit integer           | as 16-bit when it fits in 0..65535, else stretched from its minimum to its maximum |
    | float                    | times 255 when it fits in 0..1, as it is in 0..255, else stretched; NaN is refused |
    | EXIF orientation         | turned the way a viewer shows it                                                  |
    | animated, several pages  | the first frame                                                                   |
    | truncated, damaged       | `BadPicture`: a half-grey picture would teach the wrong thing                     |
    | not a picture, empty     | `BadPicture`                                                                      |
    | over 89 million pixels   | `BadPicture`: a decompression bomb for most purposes; reduce such pictures first  |

    >>> import io; from PIL import Image
    >>> file = io.BytesIO(); Image.new("L", (5, 4), 7).save(file, "PNG")
    >>> read_picture(file.getvalue()).shape
    (4, 5, 3)
    """
    try:
        with _open(file) as image:
            _check_size(image)
            if short is not None and image.format == "JPEG":
                side = min(image.size)
                width, height = (max(1, n * min(short, side) // side) for n in image.size)
                image.draft("RGB", (width, height))
            return _pixels(image, channels)
    except (BadPicture, MemoryError):
        raise
    except Exception as e:  # a parser of arbitrary bytes may raise anything at all: each is one more bad file
        raise BadPicture(_reason(e)) from None


def read_header(file: str | Path | bytes) -> Header:
    """Size, mode and format from the head of the file, without decoding it; `BadPicture` when there is none."""
    try:
        with _open(file) as image:
            _check_size(image)
            width, height = image.size
            # Pillow decodes a whole PNG to find EXIF data behind its pixels: here only what stands before them counts
            known = image.format != "PNG" or "exif" in image.info
            if known and image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS:
                width, height = height, width
            return Header(width, height, image.mode, image.format or "?")
    except (BadPicture, MemoryError):
        raise
    except Exception as e:  # as above
        raise BadPicture(_reason(e)) from None


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (..., H, W, 1 to 4) to (..., H, W, channels): alpha on white, luma for one, grey repeated for three.

    >>> to_channels(np.zeros((2, 2, 4), np.uint8), 3)[0, 0]  # fully transparent: white
    array([255, 255, 255], dtype=uint8)
    """
    if pixels.shape[-1] in (2, 4):
        alpha = pixels[..., -1:].astype(np.uint32)
        pixels = ((pixels[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    have = pixels.shape[-1]
    if have == channels:
        return pixels
    if have == 1:
        return np.broadcast_to(pixels, (*pixels.shape[:-1], channels))
    if have == 3 and channels == 1:
        luma = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
        return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]
    raise ValueError(f"pictures must have 1 to 4 channels, got {have}. Check the layout of the array.")


def _open(file: str | Path | bytes) -> Image.Image:
    if isinstance(file, bytes) and not file:
        raise BadPicture("empty file")
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPicture(f"{width}x{height} is more than {MAX_PIXELS // 10**6} million pixels")
    if width < 1 or height < 1:
        raise BadPicture(f"{width}x{height} has no pixels")


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN or image.mode in ("I", "F"):
        grey = _scaled(np.asarray(image), image.mode)
        return np.ascontiguousarray(to_channels(grey[..., None], channels))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    if channels == 1 and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _scaled(values: np.ndarray, mode: str) -> np.ndarray:
    """16-bit, 32-bit or float grey as uint8, by the table of `read_picture`."""
    if mode in _SIXTEEN:
        return _rounded(values.astype(np.float64) / 257)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise BadPicture("holds NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    whole = 1.0 if mode == "F" else 65535.0
    if low >= 0 and high <= whole:
        return _rounded(values * (255 / whole))
    if mode == "F" and low >= 0 and high <= 255:
        return _rounded(values)
    return _rounded((values - low) / (high - low) * 255)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, PermissionError):
        return "no permission to read"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture file"
    text = (str(error).splitlines() or [""])[0][:160]
    return text or type(error).__name__
