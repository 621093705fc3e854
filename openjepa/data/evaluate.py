"""Every picture once, in order, without randomness: what probes, embeddings and the online look read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from openjepa.data.augment import normalise
from openjepa.data.crop import crop, crop_batch
from openjepa.data.picture import BadPicture
from openjepa.data.plan import cores
from openjepa.data.source import Source
from openjepa.data.stream import BATCHED_SIDE


def evaluation(
    source: Source, *, size: int | None = None, batch_size: int = 256,
    indices: Sequence[int] | np.ndarray | None = None, device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """Batches of (images (B, C, size, size) normalised, labels (B,), index (B,)) in order.

    size     the source's by default
    indices  only these, in this order; all by default

    Each picture is brought to `size` by the largest central square, resized with the antialiased bicubic filter: the
    same as resizing the short side and cutting out the centre. Pictures that already have the size are not touched.
    Unreadable ones are left out (`index` tells) and noted in `source.bad`. Labels are -1 where there are none.

    >>> from openjepa.data import open_source; from openjepa.data.config import DataConfig
    >>> source = open_source(DataConfig(path="shapes:10"))
    >>> [tuple(x.shape) for x, _, _ in evaluation(source, batch_size=8)]
    [(8, 3, 32, 32), (2, 3, 32, 32)]
    """
    size = size or source.size
    device = torch.device(device)
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(source)):
        raise ValueError(f"indices must be in 0..{len(source) - 1}, got {chosen.min()}..{chosen.max()}.")
    arrays = source.arrays
    together = arrays is not None and (
        arrays.shape[2:] == (size, size) or device.type == "cuda" or max(arrays.shape[2:]) <= BATCHED_SIDE
    )
    for at in range(0, len(chosen), batch_size):
        rows = chosen[at : at + batch_size]
        if together and arrays is not None:
            pictures = _square_batch(torch.from_numpy(arrays[rows]).to(device), size)
        else:
            read, rows = _square_each(source, rows, size)
            if not len(rows):
                continue
            pictures = read.to(device)
        labels = torch.from_numpy(source.label(rows)).to(device)
        yield normalise(pictures, source.mean, source.std), labels, torch.from_numpy(rows).to(device)


def centre_square(height: int, width: int) -> tuple[int, int, int, int]:
    """The largest central square as (top, left, height, width).

    >>> centre_square(4, 7)
    (0, 1, 4, 4)
    """
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _square_batch(pictures: Tensor, size: int) -> Tensor:
    if pictures.shape[2:] == (size, size):
        return pictures
    box = torch.tensor([centre_square(*pictures.shape[2:])], device=pictures.device)
    return crop_batch(pictures, box.expand(len(pictures), 4), size)


def _square_each(source: Source, rows: np.ndarray, size: int) -> tuple[Tensor, np.ndarray]:
    """Readable pictures of `rows` as uint8 (n, C, size, size) and their positions; decoded in threads."""

    def one(i: int) -> Tensor | str:
        try:
            picture = source.read(i, short=2 * size)
        except BadPicture as e:
            return str(e)
        return crop(picture, centre_square(*picture.shape[1:]), size)

    with ThreadPoolExecutor(max_workers=cores()) as pool:
        done = list(pool.map(one, rows.tolist()))
    source.note(rows, [(int(i), d) for i, d in zip(rows, done, strict=True) if isinstance(d, str)])
    good = [d for d in done if isinstance(d, Tensor)]
    kept = np.array([i for i, d in zip(rows, done, strict=True) if isinstance(d, Tensor)], dtype=np.int64)
    return (torch.stack(good) if good else torch.empty(0)), kept
