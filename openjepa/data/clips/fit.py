"""Which clips a set of videos is long enough for, and the clips to take instead where too few are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from openjepa.config import USUAL_CLIP
from openjepa.data.clips.pace import Pace

UNKNOWN_RATE = USUAL_CLIP.stride or 1  # the longest stride tried in place of fps where nobody knows the rate
_FASTER = (1, 2, 3, 4, 6, 8, 12, 16)  # multiples of the fps that are tried


@dataclass(frozen=True)
class Cut:
    """A way through a video: a `Pace` by itself."""

    frames: int
    stride: int | None = None
    fps: float | None = None

    def setting(self) -> str:
        """As it is written on the command line.

        >>> Cut(16, stride=2).setting(), Cut(8, fps=12.0).setting()
        ('{frames: 16, stride: 2}', '{frames: 8, fps: 12}')
        """
        pace = f"stride: {self.stride or 1}" if self.fps is None else f"fps: {self.fps:g}"
        return f"{{frames: {self.frames}, {pace}}}"


def long_enough(pace: Pace, lengths: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Which videos of so many frames at so many per second hold a clip of this pace, bool (N,); see `latest_start`.

    >>> long_enough(Cut(16, stride=4), np.array([60, 61]), np.array([30.0, 30.0]))
    array([False,  True])
    """
    if pace.frames == 1:
        return lengths > 0
    if pace.fps is None:
        return lengths >= (pace.frames - 1) * (pace.stride or 1) + 1
    unit = 1 / rates  # mean time of a frame: lengths - 1 of them are exactly the time from first to last
    room = (lengths - 1) * unit - (pace.frames - 1) / pace.fps
    return (lengths > 1) & (room >= -0.5 * unit)  # NaN, an unknown rate, is never enough


def fitting_cut(
    pace: Pace, lengths: np.ndarray, rates: np.ndarray, *, bad: int, max_bad: float, whole: int = 1
) -> Cut | None:
    """The pace itself, or the clip nearest to it for which enough videos are long enough; None where there is none.

    bad, max_bad  videos that are unusable for other reasons, and the share of unusable ones that a run bears
    whole         what the number of frames must be a multiple of: the tubelet

    First the frames come closer together, then they become fewer, and never fewer than two tubelets. Pictures (videos
    of one frame) are not asked.

    >>> fitting_cut(Cut(16, stride=4), np.full(9, 20), np.full(9, np.nan), bad=0, max_bad=0.05)
    Cut(frames=16, stride=1, fps=None)
    """
    films = lengths > 1
    lengths, rates = lengths[films], rates[films]
    bearable = max(0.0, max_bad * (len(lengths) + bad) - bad)
    for cut in _nearby(Cut(pace.frames, pace.stride, pace.fps), rates, max(1, whole)):
        short = len(lengths) - int(long_enough(cut, lengths, rates).sum())
        if short < len(lengths) and short <= bearable:
            return cut
    return None


def shorter_advice(cut: Cut | None, lengths: np.ndarray, rates: np.ndarray) -> str:
    """In words: the clip to ask for where most videos are too short for another.

    >>> shorter_advice(Cut(8, stride=2), np.array([20, 9]), np.array([30.0, 30.0]))
    'Ask for shorter clips: method.views=[{frames: 8, stride: 2}] fits 50 % of them.'
    """
    if cut is None:
        return "Ask for shorter clips, as in method.views=[{frames: 4, stride: 1}]."
    share = 100 * long_enough(cut, lengths, rates).mean()
    return f"Ask for shorter clips: method.views=[{cut.setting()}] fits {share:.4g} % of them."


def _nearby(cut: Cut, rates: np.ndarray, whole: int) -> Iterator[Cut]:
    yield cut
    if cut.frames == 1:
        return
    strides: Iterable[int] = range((cut.stride or 1) - 1, 0, -1)
    if cut.fps is not None:
        known = rates[~np.isnan(rates)]
        strides = range(UNKNOWN_RATE, 0, -1)
        if len(known) == len(rates) > 0:
            fastest = float(np.median(known))
            yield from (Cut(cut.frames, fps=k * cut.fps) for k in _FASTER if 1 < k <= fastest / cut.fps)
            strides = (1,)
    yield from (Cut(cut.frames, stride=s) for s in strides)
    frames = cut.frames // 2
    while frames - frames % whole >= max(2, 2 * whole):
        frames -= frames % whole
        yield Cut(frames, stride=1)
        frames //= 2
