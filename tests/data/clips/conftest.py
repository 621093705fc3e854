"""Small video files, written here, of every odd kind."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")


def moving(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Frames with noise in one strip and a bar that moves: no two are alike, uint8 (count, H, W, 3)."""
    draw = np.random.default_rng(seed)
    out = np.zeros((count, height, width, 3), dtype=np.uint8)
    for k in range(count):
        out[k, :, (3 * k) % width : (3 * k) % width + 12] = 200
        out[k, ..., 1] = (5 * k) % 250
        out[k, : height // 6] = draw.integers(0, 255, (height // 6, width, 3))
    return out


def write(
    path: Path, frames: np.ndarray, *, codec: str = "libx264", gop: int = 12, fps: int = 25,
    pixels: str = "yuv420p", times: Sequence[int] | None = None, rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """A video file; `times` in milliseconds make its frame rate vary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as box:
        stream = box.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *frames.shape[1:3], pixels, gop
        stream.options = options or {}
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for k, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[k], Fraction(1, 1000)
            box.mux(stream.encode(frame))
        box.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as box:
        stream = box.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        box.mux(stream.encode(frame))
        box.mux(stream.encode())
    return path


def sequential(path: str | Path | bytes) -> list[np.ndarray]:
    """All frames by decoding from the start: what exactness is measured against."""
    import io

    with av.open(io.BytesIO(path) if isinstance(path, bytes) else str(path)) as box:
        return [frame.to_ndarray(format="rgb24") for frame in box.decode(video=0)]
