"""What the encoder of a run on clips makes of some clips: films of its features, of its masks, and nearest clips."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from openjepa.app.clip_subjects import ClipBatches, as_clips, prepared
from openjepa.app.report import ReportInputs
from openjepa.app.requests import LookRequest
from openjepa.app.runs import Run
from openjepa.app.sections import missing, section
from openjepa.config import ClipView
from openjepa.core.types import Clips, Clock
from openjepa.data.clips import ClipSource, ClipStream
from openjepa.interop.preprocess import ClipPreprocess
from openjepa.methods import Method
from openjepa.nn import ClipViT
from openjepa.plan.film import save_film
from openjepa.probe.features import features
from openjepa.probe.films import pca_films, shown_clips, side_by_side, tube_overlay
from openjepa.probe.pictures import nearest
from openjepa.train.launch import resolve_device
from openjepa.train.state import read_config
from openjepa.train.weights import checkpoint_in, load_initial

NEIGHBOURS, QUERIES = 5, 4
RATE = 8.0  # frames per second of the films in the report
SHOWN = 96  # pixels that a small clip is enlarged to, whole pixels only


@dataclass(frozen=True)
class ClipParts:
    """Films for a report, each (T, 3, H, W) uint8.

    rows        (what it is, one film per clip)
    neighbours  a query and the clips nearest to it, with their cosines and, where classes are known, their names
    files       films that were written beside the report
    """

    rows: tuple[tuple[str, Tensor], ...]
    neighbours: tuple[tuple[Tensor, str, Tensor, tuple[str, ...]], ...] = ()
    files: tuple[str, ...] = ()


def with_clips(run: Run, inputs: ReportInputs, asked: LookRequest) -> ReportInputs:
    """`inputs` with films of features, masks and nearest clips; as they are when nothing was saved yet."""
    if not (run.path / "checkpoints" / "last").exists():
        return inputs
    device = resolve_device(asked.device)
    method, prepare = rebuilt(run, device)
    source = prepared(as_clips(asked.data, run), prepare)
    clips, labels = sample(source, prepare, asked.gallery, run.config.seed, device)
    mean, std = torch.tensor(prepare.mean), torch.tensor(prepare.std)
    frames = shown_clips(clips, mean, std).cpu()
    first = clips[: min(asked.pictures, 8)]
    rows = [("Clip", frames[: len(first)])]
    encoder = method.encoder
    if isinstance(encoder, ClipViT):
        with torch.no_grad():
            tokens = method.encode(first).float()
        maps = pca_films(tokens.cpu(), encoder.grid_of(first), size=prepare.size)
        both = side_by_side(frames[: len(first)], maps)
        rows.append(("Features: three main components as colour", both[..., -prepare.size :]))
        files = written(both, run.path / "look")
    else:
        files = ()
    rows += masked(run, method, source, len(first), mean, std, device)
    near = neighbours(method, clips, labels, frames, source.classes)
    return replace(inputs, clips=ClipParts(tuple(rows), near, files))


def rebuilt(run: Run, device: torch.device) -> tuple[Method, ClipPreprocess]:
    """The method of a run with its newest weights, and how clips must reach it."""
    from openjepa.methods import METHODS

    folder = checkpoint_in(run.path)
    found = ClipPreprocess.from_dict(read_config(folder)["preprocess"], str(folder))
    assert isinstance(found, ClipPreprocess)
    cfg: Any = run.config.method
    make: Any = METHODS[cfg.name]
    with torch.random.fork_rng(devices=[]):
        method = make(cfg, size=found.size, channels=found.channels)
    load_initial(method, run.path)
    return method.to(device).eval(), found


def sample(
    source: ClipSource, prepare: ClipPreprocess, count: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A seeded draw of up to `count` middle clips (n, T, C, H, W), normalised, and their labels; in a random order."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:count]
    view = ClipView(frames=prepare.frames, stride=prepare.stride, fps=prepare.fps)
    parts = list(ClipBatches(source, order.numpy(), view, max(1, 256 // prepare.frames), device)())
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def masked(
    run: Run, method: Method, source: ClipSource, count: int, mean: Tensor, std: Tensor, device: torch.device
) -> list[tuple[str, Tensor]]:
    """What the encoder is given in one training step of a masked method; nothing for others, and for pictures."""
    stream = ClipStream(
        source, method.cfg.views, batch_size=count, seed=run.config.seed, workers=0, device=device
    )  # fmt: skip
    batch: Clips = next(iter(stream.batches()))
    stream.close()
    with torch.no_grad():
        _, seen = method.losses(batch, Clock(0, 1, run.config.seed))
    clips = batch.view[0]
    encoder = method.encoder
    if "context_index" not in seen or clips.shape[1] < 2 or not isinstance(encoder, ClipViT):
        return []
    every = len(seen["context_index"]) // len(clips)
    context = seen["context_index"][::every].cpu()
    frames = shown_clips(clips, mean, std).cpu()
    return [("Context: all the encoder is given of other clips", tube_overlay(frames, context, encoder.grid_of(clips)))]


def neighbours(
    method: Method, clips: Tensor, labels: Tensor, frames: Tensor, classes: list[str] | None
) -> tuple[tuple[Tensor, str, Tensor, tuple[str, ...]], ...]:
    """The first clips of the gallery, each beside those whose features are most alike."""
    if len(clips) <= NEIGHBOURS:
        return ()
    z = features(method.encode, [(x, y, y) for x, y in zip(clips.split(16), labels.split(16), strict=True)],
                 device=clips.device).z  # fmt: skip
    found, similarity = (x.cpu() for x in nearest(z, torch.arange(min(QUERIES, len(z)), device=z.device), k=NEIGHBOURS))
    known = bool((labels >= 0).all())
    names = [(classes[int(y)] if classes else str(int(y))) if known else "" for y in labels]
    captions = [
        tuple(f"{names[int(i)]} {s:.2f}".strip() for i, s in zip(row, near, strict=True))
        for row, near in zip(found, similarity.tolist(), strict=True)
    ]
    return tuple((frames[q], names[q], frames[found[q]], captions[q]) for q in range(len(found)))


def written(films: Tensor, folder: Path) -> tuple[str, ...]:
    """All clips with their features, one below the other, as features.gif, and features.mp4 where PyAV is there."""
    whole = films.permute(1, 0, 3, 4, 2).flatten(1, 2)  # (T, n H, 2 W, 3)
    film = torch.cat([whole] * 2) if len(whole) < 4 else whole
    paths = [save_film(film.numpy(), folder / "features.gif", rate=RATE)]
    with suppress(ValueError):  # no PyAV: the GIF says the same
        paths.append(save_film(film.numpy(), folder / "features.mp4", rate=RATE))
    return tuple(str(path) for path in paths)


def clips_seen(parts: ClipParts | None, folder: str) -> str:
    """Films of clips with their features and masks, one column per clip."""
    if parts is None:
        return section("What it sees", missing("No clips were given.", f"openjepa look {folder}"))
    strips = [_strip(label, films) for label, films in parts.rows]
    lead = "What the features describe alike has the same colour, in every frame. What moves should keep its own."
    note = f'<p class="note">Also as {escape(", ".join(parts.files))}.</p>' if parts.files else ""
    return section("What it sees", f'<p class="lead">{lead}</p>{"".join(strips)}{note}')


def clips_near(parts: ClipParts | None, folder: str) -> str:
    """Rows of a query and the clips nearest to it."""
    if parts is None or not parts.neighbours:
        return section("Nearest clips", missing("No neighbours were given.", f"openjepa look {folder}"))
    rows = []
    for query, name, found, captions in parts.neighbours:
        cells = [_figure(query, f"query: {name}" if name else "query")]
        cells += [_figure(film, caption) for film, caption in zip(found, captions, strict=True)]
        rows.append(_row("", cells))
    return section("Nearest clips", "".join(rows))


def _strip(label: str, films: Tensor) -> str:
    return _row(label, [_figure(film, "") for film in films])


def _row(label: str, cells: list[str]) -> str:
    return f'<div class="strip" style="--n:{len(cells)}"><div class="label">{escape(label)}</div>{"".join(cells)}</div>'


def _figure(film: Tensor, caption: str) -> str:
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class=""><img alt="{escape(caption or "clip", quote=True)}" src="{gif(film)}">{text}</figure>'


def gif(film: Tensor) -> str:
    """A film (T, 3, H, W) uint8 as a data address; small ones are enlarged, whole pixels only."""
    times = max(1, SHOWN // max(film.shape[-2:]))
    pictures = [Image.fromarray(x.permute(1, 2, 0).contiguous().numpy()) for x in film]
    if times > 1:
        size = (pictures[0].width * times, pictures[0].height * times)
        pictures = [p.resize(size, Image.Resampling.NEAREST) for p in pictures]
    data, each = io.BytesIO(), round(1000 / RATE)
    pictures[0].save(data, "GIF", save_all=True, append_images=pictures[1:], duration=each, loop=0)
    return "data:image/gif;base64," + base64.b64encode(data.getvalue()).decode()
