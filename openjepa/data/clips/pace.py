"""Which frames of a video make a clip: arithmetic on frame numbers and times."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Pace(Protocol):
    """How a clip walks through a video; a `ClipView` is one, with at most one of stride and fps."""

    @property
    def frames(self) -> int: ...
    @property
    def stride(self) -> int | None: ...
    @property
    def fps(self) -> float | None: ...


def latest_start(pace: Pace, length: int, seconds: np.ndarray | None) -> float:
    """The latest place where a clip can begin: a frame number, or with fps a time; negative when none fits.

    length   frames of the video
    seconds  (length,) when each is shown, counted from the first; needed with fps only

    A clip by fps fits when its last frame is wanted at most half a frame's time after the video's last frame.
    """
    if pace.fps is None:
        return float(length - 1 - (pace.frames - 1) * (pace.stride or 1))
    if length == 1:  # a picture has no time, and is a clip of one frame
        return 0.0 if pace.frames == 1 else -1.0
    assert seconds is not None
    room = float(seconds[-1]) - (pace.frames - 1) / pace.fps
    slack = 0.5 * float(seconds[-1]) / (length - 1)
    return max(0.0, room) if room >= -slack else -1.0


def random_frames(u: np.ndarray, pace: Pace, length: int, seconds: np.ndarray | None) -> np.ndarray:
    """Frame numbers int64 (n, frames) of clips that begin at uniforms `u` (n,) of all places where one fits.

    >>> from openjepa.config import ClipView
    >>> random_frames(np.array([0.0, 0.99]), ClipView(frames=3, stride=2), 8, None)
    array([[0, 2, 4], [3, 5, 7]])
    """
    latest = latest_start(pace, length, seconds)
    if pace.fps is None:
        start = np.minimum(np.floor(u * (latest + 1)), latest)
    else:
        start = u * latest
    return _from(start, pace, length, seconds)


def even_frames(clips: int, pace: Pace, length: int, seconds: np.ndarray | None) -> np.ndarray:
    """Frame numbers int64 (clips, frames) of clips spread evenly over the video: one is in the middle.

    >>> from openjepa.config import ClipView
    >>> even_frames(1, ClipView(frames=4), 10, None), even_frames(3, ClipView(frames=4), 10, None)[:, 0]
    (array([[3, 4, 5, 6]]), array([0, 3, 6]))
    """
    latest = latest_start(pace, length, seconds)
    start = np.linspace(0, latest, clips) if clips > 1 else np.array([latest / 2])
    return _from(np.floor(start) if pace.fps is None else start, pace, length, seconds)


def _from(start: np.ndarray, pace: Pace, length: int, seconds: np.ndarray | None) -> np.ndarray:
    at = np.arange(pace.frames)
    if pace.fps is None:
        return start.astype(np.int64)[:, None] + at * (pace.stride or 1)
    if length == 1:
        return np.zeros((len(start), pace.frames), dtype=np.int64)
    assert seconds is not None
    wanted = start[:, None] + at / pace.fps
    # The frame on show at that time. Times in a file are rounded (to 1 ms in Matroska): a frame that begins within a
    # tenth of a frame's time counts as begun.
    early = 0.1 * float(seconds[-1]) / (length - 1)
    shown = np.searchsorted(seconds, wanted + early, side="right") - 1
    return np.clip(shown, 0, length - 1).astype(np.int64)


def words(pace: Pace) -> str:
    """
    >>> from openjepa.config import ClipView
    >>> words(ClipView(frames=16, stride=4)), words(ClipView(frames=8, fps=4))
    ('16 frames at stride 4', '8 frames at 4 fps')
    """
    count = f"{pace.frames} frame{'s' if pace.frames > 1 else ''}"
    if pace.fps is not None:
        return f"{count} at {pace.fps:g} fps"
    return count if (pace.stride or 1) == 1 else f"{count} at stride {pace.stride}"


def span(pace: Pace) -> str:
    """
    >>> from openjepa.config import ClipView
    >>> span(ClipView(frames=16, stride=4)), span(ClipView(frames=8, fps=4))
    ('61 frames', '1.75 s')
    """
    if pace.fps is not None:
        return f"{(pace.frames - 1) / pace.fps:.3g} s"
    return f"{(pace.frames - 1) * (pace.stride or 1) + 1} frames"
