"""Truth for every pixel: drawn shapes know their masks and who is in front; a folder of masks beside pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from openjepa.data.evaluate import centre_square
from openjepa.data.shapes import SHAPES, distance

GROUND = 0
SUFFIXES = (".png", ".npy", ".tif", ".tiff", ".bmp", ".gif")


def drawn_maps(known: Mapping[str, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """What is at every pixel of drawn shapes, and how far in front: both (n, size, size).

    known  shape (n, objects), x and y (n, objects) of the middles and radius as shares of the side, turn in turns

    The first is int64: 0 the ground, else 1 + the shape's number; a pixel is a shape's when it covers half of it or
    more, and the later object lies over the earlier. The second is float32: 0 the ground, 1 the first object, 2 ...

    >>> known = {"shape": [[1]], "x": [[0.5]], "y": [[0.5]], "radius": [[0.4]], "turn": [[0.0]]}
    >>> classes, order = drawn_maps({k: np.array(v) for k, v in known.items()}, 8)
    >>> classes[0, 4, 3:6].tolist(), classes[0, 0, 0].item(), order.max().item()
    ([2, 2, 2], 0, 1.0)
    """
    at = (np.arange(size) + 0.5) / size
    n, objects = known["shape"].shape
    classes, order = np.zeros((n, size, size), np.int64), np.zeros((n, size, size), np.float32)
    for k in range(objects):
        x = at[None, None, :] - known["x"][:, k, None, None]
        y = at[None, :, None] - known["y"][:, k, None, None]
        angle, radius = 2 * np.pi * known["turn"][:, k, None, None], known["radius"][:, k, None, None]
        u = (np.cos(angle) * x + np.sin(angle) * y) / radius
        v = (-np.sin(angle) * x + np.cos(angle) * y) / radius
        for number, name in enumerate(SHAPES):
            chosen = known["shape"][:, k] == number
            inside = distance(name, u[chosen], v[chosen]) <= 0
            classes[chosen] = np.where(inside, 1 + number, classes[chosen])
            order[chosen] = np.where(inside, 1 + k, order[chosen])
    return classes, order


def of_shapes(factors: Mapping[str, np.ndarray], rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`drawn_maps` of pictures of the source "shapes", from its `factors`."""
    names = {"shape": "shape", "x": "x", "y": "y", "radius": "size", "turn": "rotation"}
    return drawn_maps({ours: factors[theirs][rows][:, None] for ours, theirs in names.items()}, size)


def of_bouncing(factors: Mapping[str, np.ndarray], native: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`drawn_maps` of frames of "bouncing-shapes", (n, T, size, size), from its factors, drawn at `native`."""
    n, frames = factors["shape"].shape[:2]
    flat = {name: factors[name].reshape(n * frames, -1) for name in ("shape", "radius", "turn")}
    place = factors["position"].reshape(n * frames, -1, 2) / native
    classes, order = drawn_maps({**flat, "x": place[..., 0], "y": place[..., 1]}, size)
    return classes.reshape(n, frames, size, size), order.reshape(n, frames, size, size)


class MapFolder:
    """Masks or depth maps as files, each under the name of its picture: photos/a/1.jpg and masks/a/1.png.

    .png and other pictures with whole numbers (8 or 16 bits, palettes by their index), or .npy. They are cut to the
    largest central square and resized like the pictures, by the nearest pixel: classes are never mixed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise ValueError(f"masks must be a folder of files named like the pictures, got {folder}. Check the path.")

    def file(self, name: str) -> Path | None:
        """The file that belongs to a picture, by its name in the source; None when there is none."""
        bare = self.folder / Path(name).with_suffix("")
        found = (bare.with_name(bare.name + suffix) for suffix in SUFFIXES)
        return next((path for path in found if path.is_file()), None)

    def read(self, name: str, size: int) -> np.ndarray:
        """(size, size): int64, or float32 from a .npy of floats."""
        path = self.file(name)
        if path is None:
            raise ValueError(f"{self.folder} must hold a map for {name}, got none. Name it like its picture.")
        try:
            found = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.asarray(Image.open(path))
        except (OSError, ValueError, SyntaxError) as e:
            raise ValueError(f"{path} must be a map that can be read, got: {str(e).splitlines()[0]}.") from None
        found = found[..., 0] if found.ndim == 3 and found.shape[-1] == 1 else found
        if found.ndim != 2:
            raise ValueError(
                f"{path} must have one number per pixel, got shape {found.shape}. Save it without colours."
            )
        top, left, side, _ = centre_square(*found.shape)
        at = ((np.arange(size) + 0.5) * side / size).astype(np.int64)
        square = found[top : top + side, left : left + side][np.ix_(at, at)]
        return square.astype(np.float32 if np.issubdtype(found.dtype, np.floating) else np.int64)
