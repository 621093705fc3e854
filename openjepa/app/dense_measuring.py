"""Probes that answer for every pixel, on runs: segmentation against masks, depth against maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.app import clip_subjects
from openjepa.app.measuring import as_pictures, choices, named, write
from openjepa.app.requests import ProbeRequest
from openjepa.app.runs import Run
from openjepa.app.subjects import Batches, describe, of_run, prepared, with_split
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig
from openjepa.data.dense import MapFolder, of_bouncing, of_shapes
from openjepa.data.shapes import SHAPES
from openjepa.data.source import Source
from openjepa.nn import ClipViT
from openjepa.probe.dense import HEADS, depth, segment
from openjepa.probe.features import features
from openjepa.train.launch import resolve_device

ABOUT = {
    "segment": "Of every pixel: mIoU of a linear and a small head on patch tokens, with masks=FOLDER or drawn.",
    "depth": "Of every pixel: RMSE of a linear and a small head on patch tokens, with masks=FOLDER or drawn.",
}
KINDS = tuple(ABOUT)
DRAWN = "drawn"  # in place of a folder: the source knows its own masks
MOST = {"train": 1000, "test": 400}  # pictures, unless `limit` says how many
CLIPS = {"train": 150, "test": 60}
Side = tuple[Tensor, Tensor, Tensor]  # tokens (n, N, D), classes (n, S, S), depth (n, S, S)


def probe_dense(run: Run, asked: ProbeRequest) -> dict[str, Any]:
    """Linear and small heads on frozen patch tokens; the numbers go to eval/NAME-dense.json in the run folder."""
    device = resolve_device(asked.device)
    found = on_clips(run, asked, device) if isinstance(run.config.data, ClipConfig) else on_pictures(run, asked, device)
    train, test, grid, about, classes = found
    rows: list[dict[str, Any]] = []
    for kind in asked.kinds:
        for head in HEADS:
            if kind == "segment":
                rows += segment(train[0], train[1], test[0], test[1], grid=grid, head=head, classes=classes,
                                seed=asked.seed).rows()  # fmt: skip
            else:
                rows += depth(train[0], train[2], test[0], test[2], grid=grid, head=head, seed=asked.seed).rows()
    result = {"run": str(run.path), "kind": "dense", **about, **choices(asked), "masks": asked.masks, "scores": rows}
    file = run.path / "eval" / f"{asked.name or named(about['data'].split(' ')[0])}-dense.json"
    write(file, result)
    return {**result, "file": str(file)}


Found = tuple[Side, Side, tuple[int, int], dict[str, Any], Sequence[str] | None]


def on_pictures(run: Run, asked: ProbeRequest, device: torch.device) -> Found:
    """Tokens and maps of pictures, four fifths to learn from where there is no test split."""
    measured = of_run(run, asked.weights, device)
    data, test = as_pictures(asked.data) or run.pictures, as_pictures(asked.test)
    if test is None:
        data, test = with_split(data)
    p = measured.preprocess

    def side(cfg: DataConfig, rows: np.ndarray, source: Source) -> Side:
        maps = maps_of(source, asked.masks, p.size)
        batches = Batches(source, torch.from_numpy(rows), asked.batch_size, device)()
        z = features(measured.encoder, batches, layers=asked.layers, pooling="tokens", device=device)
        classes, far = maps(z.index.cpu().numpy())
        return z.z, classes, far

    source = prepared(data, p)
    rows = with_maps(source, asked.masks)
    if test is None:
        held = np.zeros(len(rows), bool)
        held[np.random.default_rng(asked.seed).permutation(len(rows))[: max(1, len(rows) // 5)]] = True
        learn, measure = (side(data, few(r, k), source) for r, k in ((rows[~held], "train"), (rows[held], "test")))
        words = "a fifth of the same pictures, held out"
    else:
        other = prepared(test, p)
        learn = side(data, few(rows, "train"), source)
        measure = side(test, few(with_maps(other, asked.masks), "test"), other)
        words = describe(test)
    about = {"data": describe(data), "test": words, "pictures": [len(learn[0]), len(measure[0])]}
    return learn, measure, square(learn[0].shape[1]), about, names_of(asked.masks)


def on_clips(run: Run, asked: ProbeRequest, device: torch.device) -> Found:
    """Tokens and maps of the frames of drawn clips: each time step of the tokens is a picture, its first frame's."""
    if asked.masks != DRAWN:
        raise ValueError(f"masks must be drawn for a run on clips, got {asked.masks!r}. Do data=bouncing-shapes.")
    measured = clip_subjects.of_run(run, asked.weights, device)
    p, encoder = measured.preprocess, measured.encoder
    test = None if asked.test is None else clip_subjects.as_clips(asked.test, run)
    on = clip_subjects.sides(clip_subjects.as_clips(asked.data, run), test, p, asked.seed)
    grid = encoder.grid if isinstance(encoder, ClipViT) else (p.frames, 1, 1)
    learn, measure = (
        _clip_side(x, measured, grid, few(x.rows, name, CLIPS), device)
        for name, x in zip(("train", "test"), on.batches(p, 8, device), strict=True)
    )
    return learn, measure, grid[1:], on.about() | {"pictures": [len(learn[0]), len(measure[0])]}, names_of(asked.masks)


def _clip_side(
    batches: clip_subjects.ClipBatches, s: clip_subjects.ClipSubject, grid: tuple[int, int, int], rows: np.ndarray,
    device: torch.device,
) -> Side:  # fmt: skip
    source = batches.source
    if source.kind != "bouncing-shapes":
        raise ValueError(f"masks=drawn must go with bouncing-shapes, got {source.where}. Leave masks out.")
    some = clip_subjects.ClipBatches(source, rows, batches.view, batches.batch_size, device)
    z = features(s.encoder, some(), pooling="tokens", device=device)
    known = some.factors(z.index.cpu().numpy())
    assert known is not None
    classes, order = of_bouncing(known, int(source.sizes[0, 0]), s.preprocess.size)
    first = np.arange(grid[0]) * (classes.shape[1] // grid[0])
    tokens = z.z.unflatten(1, (grid[0], -1)).flatten(0, 1)  # (n t, h w, D)
    return tokens, *(torch.from_numpy(x[:, first]).flatten(0, 1) for x in (classes, order))


Maps = Callable[[np.ndarray], tuple[Tensor, Tensor]]


def maps_of(source: Source, masks: str | None, size: int) -> Maps:
    """Rows of a source -> their classes and their depth; from files both are the same numbers."""
    if masks == DRAWN:
        if source.factors is None:
            raise ValueError(f"masks=drawn must go with drawn shapes, got {source.where}. Give masks=FOLDER.")
        factors = source.factors
        return lambda rows: tuple(map(torch.from_numpy, of_shapes(factors, rows, size)))  # type: ignore[return-value]
    folder = MapFolder(str(masks))

    def read(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        found = torch.from_numpy(np.stack([folder.read(source.names[int(i)], size) for i in rows]))
        return found.long(), found.float()

    return read


def with_maps(source: Source, masks: str | None) -> np.ndarray:
    """Rows that have a map: all of a drawn source, those with a file of the same name otherwise."""
    if masks == DRAWN:
        return np.arange(len(source))
    folder = MapFolder(str(masks))
    rows = np.array([i for i, name in enumerate(source.names) if folder.file(name) is not None], dtype=np.int64)
    if len(rows) < 2:
        raise ValueError(
            f"masks must hold files named like the pictures of {source.where}, got {len(rows)} in {masks}."
        )
    return rows


def few(rows: np.ndarray, side: str, most: dict[str, int] = MOST) -> np.ndarray:
    """At most so many of the rows, evenly drawn."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most[side])).round().astype(np.int64))]


def names_of(masks: str | None) -> Sequence[str] | None:
    return ("ground", *SHAPES) if masks == DRAWN else None


def square(tokens: int) -> tuple[int, int]:
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"tokens must lie on a square grid for masks, got {tokens} per picture.")
    return side, side
