"""One video file: its outline without decoding it, and any of its frames, exactly.

The outline is read from the packets: when each frame is shown, and which are key frames. A frame is then reached by
seeking to the key frame before it and decoding up to it; frames that no other needs are skipped on the way.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from openjepa.data.clips.source import BadClip
from openjepa.data.picture import MAX_PIXELS, to_channels

# Of these the decoder knows which frames no other refers to, and leaving them out changes no pixel of the rest.
_SKIPPING = ("h264", "mpeg2video", "mpeg4")
_NEAR = 8  # frames: a key frame that near ahead is reached by decoding on, not by seeking
_SHORTFALL = 0.02  # share of its stated duration (and three frames) that a whole file may lack at its end


@dataclass(frozen=True)
class Outline:
    """What a video is, told by its packets.

    times    int64 (L,) when each frame is shown, in ticks, rising; a frame's number is its position here
    keys     int64 (K,) times of the key frames; none when frames can only be counted from the start, because the file
             states no times, or wrong ones
    unit     seconds per tick; height, width as shown, after rotation
    """

    times: np.ndarray
    keys: np.ndarray
    unit: float
    height: int
    width: int
    codec: str

    @property
    def rate(self) -> float:
        """Mean frames per second from the first frame to the last; NaN for a single one."""
        span = float(self.times[-1] - self.times[0]) * self.unit
        return (len(self.times) - 1) / span if span > 0 else float("nan")


def pyav() -> Any:
    """PyAV, or what to install."""
    try:
        import av
    except ImportError:
        raise ValueError('Video needs PyAV, got none. Do `pip install "openjepa[video]"`.') from None
    return av


def outline(file: str | bytes) -> Outline:
    """The outline of a video file, given as a path or as its bytes; `BadClip` when it cannot be used.

    Reads every packet (a millisecond for a few hundred frames) and decodes the first frame only; a file without
    times is decoded once to count its frames.
    """
    with _opened(file) as (container, stream):
        packets = [(p.pts, p.is_keyframe, p.duration or 0, p.is_discard) for p in container.demux(stream) if p.size]
        unit = float(stream.time_base)
        times, keys = _timetable(packets, container, stream)
        if len(keys):
            _check_whole(container, stream, packets, unit)
        else:  # frames are counted, and shown at the stated rate
            unit = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        codec = stream.codec_context.codec.canonical_name
    with _opened(file) as (container, stream):
        count, height, width = 0, 0, 0
        for packet in container.demux(stream):
            for frame in packet.decode():
                if count == 0:
                    height, width = _shown(frame)
                count += 1
            if count and len(keys):
                break
    if count == 0:
        raise BadClip("no frame of it can be decoded")
    return Outline(times if len(keys) else np.arange(count, dtype=np.int64), keys, unit, height, width, codec)


def read_frames(file: str | bytes, about: Outline, numbers: np.ndarray, channels: int = 3) -> np.ndarray:
    """Frames `numbers` (n,) of a video, in that order, uint8 (n, channels, H, W): the ones sequential decoding gives.

    Each is turned as its rotation flag says; more than 8 bits are reduced to 8; transparency lies on white; one channel
    is the video's own luma; a frame of another size than the first is resized to it. `BadClip` when one cannot be
    decoded whole. Memory: the frames asked for, and the few that the decoder keeps.
    """
    wanted, place = np.unique(numbers, return_inverse=True)
    if len(wanted) == 0 or wanted[0] < 0 or wanted[-1] >= len(about.times):
        raise BadClip(f"frames {wanted[:1].tolist()} to {wanted[-1:].tolist()} are not among its {len(about.times)}")
    out = np.empty((len(wanted), about.height, about.width, channels), dtype=np.uint8)
    with _opened(file) as (container, stream):
        if len(about.keys) == 0:
            _counted(container, stream, wanted, out)
            complete = True
        else:
            complete = _sought(container, stream, about, wanted, out)
    if not complete:  # it holds packets that are never shown: such a number is what a viewer sees at its time
        with _opened(file) as (container, stream):
            _on_show(container, stream, about.times[wanted], out)
    frames = out if np.array_equal(place, np.arange(len(wanted))) else out[place]
    return frames.transpose(0, 3, 1, 2)


def verify(file: str | bytes, about: Outline) -> None:
    """Decode a video to its end; `BadClip` when a frame is damaged or more than one in fifty does not come out."""
    count = 0
    with _opened(file) as (container, stream):
        for packet in container.demux(stream):
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise BadClip(f"damaged: frame {count} is not whole")
                count += 1
    if count < len(about.times) - max(1.0, 0.02 * len(about.times)):
        raise BadClip(f"damaged: only {count} of its {len(about.times)} frames can be decoded")


@contextmanager
def _opened(file: str | bytes) -> Iterator[tuple[Any, Any]]:
    """(container, video stream); whatever goes wrong while it is open becomes a `BadClip`."""
    av = pyav()
    try:
        if (isinstance(file, str) and os.path.getsize(file) == 0) or file == b"":
            raise BadClip("empty file")
        with av.open(io.BytesIO(file) if isinstance(file, bytes) else file, metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                others = " and ".join(sorted({s.type for s in container.streams}))
                raise BadClip(f"no video stream{f', only {others}' if others else ''}")
            # One thread: every worker decodes a video of its own, and threads within a short clip mostly wait.
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]
    except (BadClip, MemoryError):
        raise
    except FileNotFoundError:
        raise BadClip("file not found") from None
    except PermissionError:
        raise BadClip("no permission to read") from None
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError, IndexError) as e:
        text = getattr(e, "strerror", None) or (str(e).splitlines() or [""])[0]
        raise BadClip(f"damaged or not a video: {text[:120] or type(e).__name__}") from None


def _timetable(packets: list[Any], container: Any, stream: Any) -> tuple[np.ndarray, np.ndarray]:
    """Times of the frames and of the key frames; both empty when the packets do not tell."""
    shown = [(pts, key) for pts, key, _, discard in packets if not discard]
    if not shown:
        raise BadClip("no frames in it")
    times = [pts for pts, _ in shown]
    empty = np.empty(0, dtype=np.int64)
    if None in times or len(set(times)) < len(times):
        return empty, empty
    # AVI states no times: where frames are reordered, what is made up for them is the order of decoding
    if "avi" in container.format.name and stream.codec_context.name in ("h264", "hevc"):
        return empty, empty
    keys = np.sort(np.array([pts for pts, key in shown if key], dtype=np.int64))
    if len(keys) == 0:
        return empty, empty
    rising = np.sort(np.array(times, dtype=np.int64))
    return rising[np.searchsorted(rising, keys[0]) :], keys  # what stands before the first key frame is never shown


def _check_whole(container: Any, stream: Any, packets: list[Any], unit: float) -> None:
    """`BadClip` when the file ends before it says it does."""
    if stream.frames > len(packets):
        raise BadClip(f"truncated: {len(packets)} of its {stream.frames} frames are there")
    stated = _stated_seconds(container, stream, unit)
    first, last = min(p[0] for p in packets), max(p[0] + p[2] for p in packets)
    there = max(last, last - first) * unit  # some count from their first frame, some from zero
    slack = max(_SHORTFALL * stated, 3 * (last - first) * unit / len(packets))
    if there < stated - slack:
        raise BadClip(f"truncated: it should last {stated:.2f} s, its frames end after {there:.2f} s")


def _stated_seconds(container: Any, stream: Any, unit: float) -> float:
    """How long the file says that its video is; 0 when it does not."""
    if stream.duration:
        return float(stream.duration) * unit
    tag = next((v for k, v in stream.metadata.items() if k.upper() == "DURATION"), "")
    try:  # Matroska: 00:00:01.566000000
        hours, minutes, seconds = (float(x) for x in tag.split(":"))
        return 3600 * hours + 60 * minutes + seconds
    except ValueError:
        pass
    alone = len(container.streams) == 1 and "matroska" in container.format.name
    return container.duration / 1e6 if alone and container.duration else 0.0


def _sought(container: Any, stream: Any, about: Outline, wanted: np.ndarray, out: np.ndarray) -> bool:
    """Fill `out` by seeking; False when the stream went past a wanted frame without giving it."""
    times = about.times[wanted]
    place = {int(t): k for k, t in enumerate(times)}
    key_of = np.searchsorted(about.keys, times, side="right") - 1
    key_at = np.searchsorted(about.times, about.keys[key_of])
    # A new run begins where a key frame lies well ahead of the frame wanted before
    begins = np.flatnonzero(np.r_[True, key_at[1:] > wanted[:-1] + _NEAR])
    for first, end in zip(begins, [*begins[1:], len(wanted)], strict=True):
        key = int(key_of[first])
        # The demuxer may go by the times of decoding and land a key frame too late: then from the one before
        tries = [int(about.keys[k]) for k in dict.fromkeys((key, max(key - 1, 0), max(key - 2, 0), 0))]
        if not any(_run(container, stream, at, times[first:end], place, out) for at in tries):
            return False
    return True


def _run(container: Any, stream: Any, key: int, times: np.ndarray, place: dict[int, int], out: np.ndarray) -> bool:
    """Decode the frames at `times` from a key frame on; False when one of them does not come."""
    container.seek(key, stream=stream)
    context = stream.codec_context
    skipping = context.name in _SKIPPING
    left = {int(t) for t in times}
    for packet in container.demux(stream):
        if skipping:
            context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in left else "NONREF"
        for frame in packet.decode():
            if frame.pts in left:
                _put(frame, out[place[frame.pts]])
                left.discard(frame.pts)
                if not left:
                    return True
            elif frame.pts is not None and frame.pts > times[-1]:
                return False
    return False


def _counted(container: Any, stream: Any, wanted: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` by decoding from the start and counting."""
    left = {int(n): k for k, n in enumerate(wanted)}
    number = 0
    for packet in container.demux(stream):
        for frame in packet.decode():
            if number in left:
                _put(frame, out[left.pop(number)])
                if not left:
                    return
            number += 1
    raise BadClip(f"ends early: frame {min(left)} cannot be decoded")


def _on_show(container: Any, stream: Any, times: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with what is on show at `times`, rising, by decoding from the start."""
    at, before = 0, None
    for packet in container.demux(stream):
        for frame in packet.decode():
            while at < len(times) and frame.pts is not None and frame.pts > times[at]:
                _put(before or frame, out[at])
                at += 1
            before = frame
        if at == len(times):
            return
    if before is None or at < len(times) - 1 or before.pts != times[at]:
        raise BadClip(f"ends early or is damaged: {len(times) - at} of {len(times)} frames cannot be decoded")
    _put(before, out[at])


def _turns(frame: Any) -> int:
    """Quarter turns, counter-clockwise, that show the frame upright."""
    return round(frame.rotation / 90) % 4


def _shown(frame: Any) -> tuple[int, int]:
    """Height and width as shown."""
    if frame.width * frame.height > MAX_PIXELS:
        raise BadClip(f"{frame.width}x{frame.height} is more than {MAX_PIXELS // 10**6} million pixels")
    return (frame.width, frame.height) if _turns(frame) % 2 else (frame.height, frame.width)


def _put(frame: Any, out: np.ndarray) -> None:
    """Pixels of a frame into `out` (H, W, C)."""
    if frame.is_corrupt:
        raise BadClip("damaged: a frame of it is not whole")
    turns = _turns(frame)
    height, width = out.shape[:2] if turns % 2 == 0 else out.shape[1::-1]
    if (frame.height, frame.width) != (height, width):
        frame = frame.reformat(width=width, height=height)
    if any(c.is_alpha for c in frame.format.components):
        pixels = to_channels(frame.to_ndarray(format="rgba"), out.shape[2])
    else:
        pixels = frame.to_ndarray(format="rgb24" if out.shape[2] == 3 else "gray")
    out[:] = np.rot90(pixels.reshape(height, width, -1), turns)
