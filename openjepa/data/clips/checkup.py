"""What a set of videos holds and whether it is fit to train on, said before an hour is spent on it."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openjepa.config import USUAL_CLIP, ClipView
from openjepa.data.checkup import class_counts, recommended
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.files import Videos
from openjepa.data.clips.fit import Cut, fitting_cut, long_enough, shorter_advice
from openjepa.data.clips.opening import census, find
from openjepa.data.clips.pace import Pace, even_frames, span, words
from openjepa.data.clips.source import BadClip, ClipsFound
from openjepa.data.crop import crop
from openjepa.data.plan import cores
from openjepa.data.source import Bad

FEW = 200  # fewer videos than this learn little by themselves
MOST_FRAMES = 200_000  # decoded at most to find damage; of more, evenly chosen videos
_TIMED = 12  # videos that the decode rate is measured on
_LISTED = 20


@dataclass
class ClipReport:
    """What `check_clips` found; `as_dict` for JSON.

    lengths        frames per video: "min", "median", "max"; `seconds` likewise, of those whose rate is known
    rates          frames per second -> videos, the most common first; `variable`: how many have no constant rate
    key_gap        the middle number of frames between key frames: how far a reader must decode to reach a frame
    too_short      names of the videos that are too short for the clip that was asked for (`clip`)
    pictures       picture files beside the videos, which a method that eats clips does not read
    decoded        videos of which every frame was decoded
    fits           the clip nearest to it for which enough videos are long enough, as in `method.views`; None where no
                   clip is short enough. What a run takes that was not told its clips
    clips_per_cpu_second  of the clip that was asked for, else of `fits`, decoded and cut to the recommended size;
                   `clips_per_second` with all cores of this machine
    ok             False when training would stop: bad and too short videos above `max_bad`, or nothing readable
    advice         in plain words, most urgent first
    """

    path: str
    kind: str
    clip: str
    videos: int
    readable: int
    bad: Bad
    too_short: list[str]
    too_short_count: int
    fits: str | None
    frames: int
    lengths: dict[str, float]
    seconds: dict[str, float]
    rates: dict[str, int]
    variable: int
    codecs: dict[str, int]
    sizes: dict[str, int]
    key_gap: float | None
    classes: dict[str, int]
    pictures: int
    bytes: int | None
    recommended_size: int
    decoded: int
    clips_per_cpu_second: float
    clips_per_second: float
    ok: bool
    advice: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_clips(
    cfg: ClipConfig, *, frames: int | None = None, stride: int | None = None, fps: float | None = None,
    decode: bool = True, seed: int = 0,
) -> ClipReport:  # fmt: skip
    """Look at every video that `cfg` names and say what is there, what is wrong, and what to do about it.

    frames, stride, fps  of the clip that training would cut: what is too short for it is named. Without any of them
            the usual clip, 16 frames at stride 4, which a run shortens for videos that are too short for it
    decode  also decode every frame (of up to 200,000), which is the only way to find damage in the middle of a file

    >>> report = check_clips(ClipConfig(path="bouncing-shapes:300"), decode=False)
    >>> report.ok, report.videos, report.lengths["median"], report.codecs
    (True, 300, 20, {'drawn': 300})
    """
    told = not (frames is stride is fps is None)
    view = ClipView(frames=frames or USUAL_CLIP.frames, stride=stride, fps=fps) if told else USUAL_CLIP
    found = find(cfg, seed)
    total = len(found.names) + len(found.bad)
    damaged: dict[int, str] = {}
    decoded = 0
    if decode and isinstance(found.reel, Videos):
        damaged, decoded = _damaged(found, found.reel)
    whole = np.array([i for i in range(len(found.names)) if i not in damaged], dtype=np.int64)
    bad = [*found.bad, *((found.names[i], reason) for i, reason in sorted(damaged.items()))]
    fits = long_enough(view, found.lengths, found.rates)
    short = [found.names[int(i)] for i in whole if not fits[i]]
    cut = fitting_cut(
        view, found.lengths[whole], found.rates[whole], bad=len(bad), max_bad=cfg.max_bad, whole=2
    )  # fmt: skip
    taken: Pace = cut if cut is not None and not told else view
    fits = long_enough(taken, found.lengths, found.rates)
    size = recommended(found.sizes[whole].min(1).tolist() if len(whole) else [])
    per_second = _rate(found, whole[fits[whole]], taken, size)
    unusable = len(bad) + int((~fits[whole]).sum())
    report = ClipReport(
        path=cfg.path, kind=found.kind, clip=words(view), videos=total, readable=len(whole), bad=bad,
        too_short=short[:_LISTED], too_short_count=len(short),
        fits=None if cut is None else cut.setting(), frames=int(found.lengths[whole].sum()),
        lengths=_spread(found.lengths[whole]), seconds=_spread((found.lengths / found.rates)[whole]),
        rates=_rates(found.rates[whole]), variable=_variable(found, whole), codecs=_count(found.codecs[whole]),
        sizes=_count([f"{w}x{h}" for h, w in found.sizes[whole]]), key_gap=_key_gap(found, whole),
        classes=class_counts(found.labels, found.classes), pictures=_pictures(cfg.path), recommended_size=size,
        decoded=decoded,
        bytes=None if found.bytes is None else int(found.bytes.sum()), clips_per_cpu_second=round(per_second, 1),
        clips_per_second=round(per_second * cores(), 1),
        ok=bool(fits[whole].any()) and unusable <= cfg.max_bad * max(total, 1),
    )  # fmt: skip
    report.advice = _too_short(report, cfg, view, told, shorter_advice(cut, found.lengths[whole], found.rates[whole]))
    report.advice += _advice(report, cfg, decode)
    return report


def _damaged(found: ClipsFound, reel: Videos) -> tuple[dict[int, str], int]:
    """(position -> reason) of the videos that do not decode to their end, and how many were tried."""
    lengths = found.lengths
    chosen = np.arange(len(lengths))
    if lengths.sum() > MOST_FRAMES:
        count = max(1, int(len(lengths) * MOST_FRAMES / lengths.sum()))
        chosen = np.unique(np.linspace(0, len(lengths) - 1, count).astype(np.int64))

    def one(i: int) -> str:
        try:
            reel.verify(i)
        except BadClip as e:
            return str(e)
        return ""

    with ThreadPoolExecutor(max_workers=cores()) as pool:
        reasons = list(pool.map(one, chosen.tolist()))
    return {int(i): reason for i, reason in zip(chosen, reasons, strict=True) if reason}, len(chosen)


def _rate(found: ClipsFound, some: np.ndarray, view: Pace, size: int) -> float:
    """Clips per second of processor time, read and cut to size on one core."""
    if len(some) == 0:
        return 0.0
    some = some[np.unique(np.linspace(0, len(some) - 1, min(len(some), _TIMED)).astype(np.int64))]
    start, done = time.thread_time(), 0
    for i in some.tolist():
        seconds = found.reel.seconds(i) if view.fps is not None else None
        try:
            clip = found.reel.read(i, even_frames(1, view, int(found.lengths[i]), seconds)[0])
        except BadClip:
            continue
        side = min(clip.shape[2:])
        crop(torch.from_numpy(clip), (0, 0, side, side), size)
        done += 1
    return done / max(time.thread_time() - start, 1e-9)


def _spread(values: np.ndarray) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return {}
    numbers = {"min": known.min(), "median": np.median(known), "max": known.max()}
    return {name: round(float(x), 2) if known.dtype.kind == "f" else int(x) for name, x in numbers.items()}


def _rates(rates: np.ndarray) -> dict[str, int]:
    return _count(["unknown" if np.isnan(r) else f"{r:.3g}" for r in rates])


def _count(values: Any) -> dict[str, int]:
    return dict(Counter(str(v) for v in values).most_common(_LISTED))


def _variable(found: ClipsFound, some: np.ndarray) -> int:
    """Videos in which some frame is shown more than half a frame's time longer or shorter than the middle one."""
    if not isinstance(found.reel, Videos):
        return 0
    gaps = (np.diff(found.reel.outlines[int(i)].times) for i in some)
    return sum(len(g) > 0 and bool((abs(g - np.median(g)) > 0.5 * np.median(g)).any()) for g in gaps)


def _key_gap(found: ClipsFound, some: np.ndarray) -> float | None:
    if not isinstance(found.reel, Videos) or len(some) == 0:
        return None
    keys = [max(1, len(found.reel.outlines[int(i)].keys)) for i in some]
    return round(statistics.median(n / k for n, k in zip(found.lengths[some].tolist(), keys, strict=True)), 1)


def _pictures(path: str) -> int:
    folder = Path(path).expanduser()
    return census(folder)[1] if folder.is_dir() else 0


def _too_short(report: ClipReport, cfg: ClipConfig, view: ClipView, told: bool, shorter: str) -> list[str]:
    """What becomes of the unusable and the too short videos."""
    bad, short = len(report.bad), report.too_short_count
    if not report.ok:
        rest = f"{shorter} " if short else ""
        return [
            f"{bad + short} of {report.videos} videos are unusable ({bad} unreadable, {short} too short for "
            f"{report.clip}, {span(view)}), more than max_bad={cfg.max_bad:g} allows: training would stop. "
            f"{rest}{'Remove or repair the unreadable ones' if bad else 'Remove the others'}, or raise max_bad."
        ]
    if not told and short and report.fits != Cut(view.frames, view.stride).setting():
        return [
            f"{short} of {report.readable} videos are shorter than the usual clip, {report.clip} ({span(view)}): a run "
            f"takes method.views=[{report.fits}] here, unless it is told its clips."
        ]
    if bad or short:
        return [f"{bad} unreadable videos and {short} that are too short for {report.clip} will be skipped."]
    return []


def _advice(report: ClipReport, cfg: ClipConfig, decode: bool) -> list[str]:
    said = []
    if report.pictures and report.kind == "folder":
        said.append(
            f"{report.pictures} picture files lie beside the videos. Methods that learn from clips do not read them: "
            f'add data.mix={{"pictures:{cfg.path}": 0.25}} to use them as clips of one frame.'
        )
    if report.readable < FEW:
        said.append(f"{report.readable} videos are few to learn from without labels: expect little below {FEW}.")
    if "unknown" in report.rates and report.kind in ("frames", "arrays"):
        said.append("The frame rate is not known here: use a stride, or set data.rate to be able to use fps.")
    if len(report.rates) > 1 or report.variable:
        said.append("Frame rates differ: with fps in place of stride a clip lasts equally long in every video.")
    if report.key_gap is not None and report.key_gap > 64:
        said.append(
            f"Key frames are {report.key_gap:.0f} frames apart, so most of the decoding only leads up to the frames "
            "that are wanted: videos written with a key frame every 16 (ffmpeg -g 16) are read several times faster."
        )
    if report.kind in ("folder", "list", "parquet", "shards") and report.sizes and report.clips_per_second:
        said.append(
            f"Reading gives about {report.clips_per_second:.0f} clips per second on this machine's {cores()} cores. "
            "Videos reduced to a short side of 256 pixels are read faster."
        )
    if not decode:
        said.append("Only packets were read: damage within a file shows when everything is decoded.")
    elif report.decoded and report.decoded < report.readable:
        said.append(
            f"{report.decoded} videos, evenly chosen, were decoded to their end; of the others only packets were read."
        )
    return said
