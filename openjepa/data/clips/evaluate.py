"""Every video once, in order, without randomness: what probes, embeddings and the online look read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from openjepa.config import ClipView
from openjepa.data.augment import normalise
from openjepa.data.clips.pace import even_frames
from openjepa.data.clips.source import BadClip, ClipSource
from openjepa.data.clips.stream import BATCHED_SIDE, read_clips
from openjepa.data.crop import crop, crop_batch
from openjepa.data.evaluate import centre_square
from openjepa.data.plan import cores


def clip_evaluation(
    source: ClipSource, *, frames: int, size: int | None = None, stride: int | None = None, fps: float | None = None,
    clips: int = 1, batch_size: int = 16, indices: Sequence[int] | np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """Batches of (clips (B, T, C, size, size) normalised, labels (B,), index (B,)) in order.

    frames, stride, fps  of a clip, as in `ClipView`
    size     the source's by default
    clips    of each video, spread evenly over it; one is in the middle. They follow each other: a video has `clips`
             rows with the same index, and a batch never parts them
    indices  only these videos, in this order; by default all
    batch_size  rows at most (but at least one video)

    Frames are cut to the largest central square, which is resized with the antialiased bicubic filter. Videos that are
    too short or unreadable are left out (`index` tells) and noted in `source.bad`. Labels are -1 where there are none.
    `clip_frames` gives the frame numbers, to be compared with the truth in `source.factors`.

    >>> from openjepa.data.clips import open_clips; from openjepa.data.clips.config import ClipConfig
    >>> source = open_clips(ClipConfig(path="bouncing-shapes:5"))
    >>> [tuple(x.shape) for x, _, _ in clip_evaluation(source, frames=8, clips=2, batch_size=8)]
    [(8, 8, 3, 32, 32), (2, 8, 3, 32, 32)]
    """
    view = ClipView(frames=frames, stride=stride, fps=fps)
    size, device = size or source.size, torch.device(device)
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(source)):
        raise ValueError(f"indices must be in 0..{len(source) - 1}, got {chosen.min()}..{chosen.max()}.")
    if clips < 1:
        raise ValueError(f"clips must be at least 1, got {clips}.")
    fits = np.zeros(len(source), dtype=bool)
    fits[source.fitting(view)] = True
    if frames == 1:
        fits[:] = True
    if len(chosen) and not fits[chosen].any():
        source.too_short([view], "Give longer videos: these are the clips that the model learned from.")
    chosen = chosen[fits[chosen]]
    step = max(1, batch_size // clips)
    together = source.together is not None and (device.type == "cuda" or int(source.sizes.max()) <= BATCHED_SIDE)
    for at in range(0, len(chosen), step):
        rows = chosen[at : at + step]
        numbers = clip_frames(source, rows, view, clips)  # (n, clips, T)
        if together:
            read = _centre_together(source, rows.repeat(clips), numbers.reshape(-1, frames), size, device)
        else:
            read, rows = _centre_each(source, rows, numbers, size)
            if not len(rows):
                continue
        rows = rows.repeat(clips)
        labels, index = torch.from_numpy(source.label(rows)), torch.from_numpy(rows)
        yield normalise(read.to(device), source.mean, source.std), labels.to(device), index.to(device)


def clip_frames(source: ClipSource, rows: np.ndarray, view: ClipView, clips: int = 1) -> np.ndarray:
    """Frame numbers int64 (n, clips, T) that `clip_evaluation` shows of videos `rows`, which must be long enough."""
    return np.stack([
        even_frames(clips, view, int(source.lengths[i]), source.seconds(int(i), view)) for i in rows
    ])  # fmt: skip


def _centre_together(
    source: ClipSource, rows: np.ndarray, numbers: np.ndarray, size: int, device: torch.device
) -> Tensor:
    assert source.together is not None
    read = torch.from_numpy(np.ascontiguousarray(source.together.take(rows, numbers))).to(device)  # (n, T, C, H, W)
    if read.shape[3:] == (size, size):
        return read
    box = torch.tensor([centre_square(*read.shape[3:])], device=device)
    return crop_batch(read.flatten(1, 2), box.expand(len(read), 4), size).unflatten(1, read.shape[1:3])


def _centre_each(source: ClipSource, rows: np.ndarray, numbers: np.ndarray, size: int) -> tuple[Tensor, np.ndarray]:
    """Readable clips as uint8 (n * clips, T, C, size, size) and their videos; decoded in threads, one per core."""

    def one(k: int) -> Tensor | str:
        try:
            read = read_clips(source, int(rows[k]), numbers[k])  # (clips, T, C, H, W)
        except BadClip as e:
            return str(e)
        box = centre_square(*read.shape[3:])
        return torch.stack([crop(clip, box, size) for clip in read])

    with ThreadPoolExecutor(max_workers=cores()) as pool:
        done = list(pool.map(one, range(len(rows))))
    source.note(rows, [(int(i), d) for i, d in zip(rows, done, strict=True) if isinstance(d, str)])
    good = [d for d in done if isinstance(d, Tensor)]
    kept = np.array([i for i, d in zip(rows, done, strict=True) if isinstance(d, Tensor)], dtype=np.int64)
    return (torch.cat(good) if good else torch.empty(0)), kept
