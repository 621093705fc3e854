"""Does a clip's representation tell the order of its frames, and their pace? Labels come from the clips themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from openjepa.probe.features import Batch

ORDERS = ("shuffled", "reversed")


def in_order(
    batches: Callable[[], Iterable[Batch]], *, against: str = "shuffled", seed: int = 0
) -> Callable[[], Iterator[Batch]]:
    """The same clips (B, T, C, H, W), half of them as they are (label 1), half with their frames disturbed (label 0).

    against  "shuffled": a random order that is not the true one; "reversed": played backwards
    seed     which clips, and how, is a function of (seed, index): every pass is the same

    Each clip comes once, so that no clip is on both sides of the question. The answer must lie in the order alone: all
    frames are kept. Where the physics runs backwards as well as forwards (Moving-MNIST, bouncing shapes), "reversed"
    cannot be told and stays at one half for every encoder.

    >>> clips = [(torch.arange(4.0).view(1, 4, 1, 1, 1).repeat(6, 1, 1, 1, 1), torch.zeros(6), torch.arange(6))]
    >>> found, label, _ = next(in_order(lambda: clips, against="reversed")())
    >>> bool(((found[:, 0].flatten() == 0) == (label == 1)).all())
    True
    """
    if against not in ORDERS:
        raise ValueError(f"against must be one of {', '.join(ORDERS)}, got {against!r}.")

    def asked() -> Iterator[Batch]:
        for clips, _, index in batches():
            frames = clips.shape[1]
            if frames < 2:
                raise ValueError("clips must have at least two frames to have an order, got one. Set frames=8 or so.")
            label = torch.tensor([_coin(seed, int(i)) for i in index])
            orders = [_order(frames, bool(y), against, seed, int(i)) for y, i in zip(label, index, strict=True)]
            order = torch.stack(orders).to(clips.device)  # (B, T)
            which = torch.arange(len(clips), device=clips.device)[:, None]
            yield clips[which, order], label.to(clips.device), index

    return asked


def at_speeds(
    batches: Callable[[], Iterable[Batch]], *, frames: int, strides: Sequence[int] = (1, 2, 4), seed: int = 0
) -> Callable[[], Iterator[Batch]]:
    """`frames` frames of each clip at one of several strides; the label says which (its place in `strides`).

    batches  clips of at least (frames - 1) * max(strides) + 1 frames
    seed     stride and first frame are a function of (seed, index)

    >>> clips = [(torch.arange(13.0).view(1, 13, 1, 1, 1).repeat(8, 1, 1, 1, 1), torch.zeros(8), torch.arange(8))]
    >>> found, label, _ = next(at_speeds(lambda: clips, frames=4)())
    >>> found.shape, bool((found[:, 1] - found[:, 0]).flatten().eq(torch.tensor([1, 2, 4])[label]).all())
    (torch.Size([8, 4, 1, 1, 1]), True)
    """
    if len(strides) < 2 or min(strides) < 1 or len(set(strides)) < len(strides):
        raise ValueError(f"strides must be two or more different ones from 1 up, got {tuple(strides)}.")
    span = (frames - 1) * max(strides) + 1

    def asked() -> Iterator[Batch]:
        for clips, _, index in batches():
            if clips.shape[1] < span:
                raise ValueError(f"clips must have {span} frames for strides {tuple(strides)}, got {clips.shape[1]}.")
            label = torch.tensor([_pick(seed, int(i), len(strides)) for i in index])
            rows = []
            for y, i in zip(label.tolist(), index.tolist(), strict=True):
                room = clips.shape[1] - (frames - 1) * strides[y] - 1
                first = int(torch.randint(room + 1, (), generator=_generator(seed, i, 2)))
                rows.append(first + strides[y] * torch.arange(frames))
            order = torch.stack(rows).to(clips.device)  # (B, frames)
            which = torch.arange(len(clips), device=clips.device)[:, None]
            yield clips[which, order], label.to(clips.device), index

    return asked


def _generator(seed: int, index: int, use: int) -> torch.Generator:
    return torch.Generator().manual_seed(((seed * 1_000_003 + index) * 7919 + use) & 0x7FFFFFFFFFFFFFFF)


def _coin(seed: int, index: int) -> int:
    return _pick(seed, index, 2)


def _pick(seed: int, index: int, many: int) -> int:
    return int(torch.randint(many, (), generator=_generator(seed, index, 0)))


def _order(frames: int, kept: bool, against: str, seed: int, index: int) -> Tensor:
    true = torch.arange(frames)
    if kept:
        return true
    if against == "reversed":
        return true.flip(0)
    generator = _generator(seed, index, 1)
    while True:
        drawn = torch.randperm(frames, generator=generator)
        if not torch.equal(drawn, true):
            return drawn
