"""One clip out of a video file, as a checkpoint of clips wants it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from openjepa.interop.preprocess import ClipPreprocess

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def is_video(path: Path) -> bool:
    """Whether a path is to be read as a video: a file or folder that is not a picture by its name."""
    return path.suffix.lower() not in PICTURES


def read_clip(path: Path, wanted: ClipPreprocess) -> Tensor:
    """Frames of one clip from the middle of a video, uint8 (T, C, H, W).

    At the stride or the frames per second of `wanted` where the video is long enough; otherwise its whole length is
    spread evenly over the clip, and frames are repeated where it has fewer than the clip.
    """
    if not path.exists():
        raise ValueError(f"video must exist, got {path}. Check the path.")
    try:
        from openjepa.config import ClipView
        from openjepa.data.clips import open_clips
        from openjepa.data.clips.config import ClipConfig
        from openjepa.data.clips.pace import even_frames
    except ImportError as e:
        raise ValueError(f"videos need PyAV to be read, got {e}. Do pip install 'openjepa[video]'.") from None
    channels = 1 if wanted.channels == 1 else 3
    source = open_clips(ClipConfig(path=str(path), channels=channels, normalise="half", workers=0, cache=False))
    if len(source) != 1:
        raise ValueError(f"{path} must be one video to be encoded, got {len(source)}. Give them one by one.")
    view, length = ClipView(frames=wanted.frames, stride=wanted.stride, fps=wanted.fps), int(source.lengths[0])
    if (view.stride or view.fps) and len(source.fitting(view)):
        numbers = even_frames(1, view, length, source.seconds(0, view))[0]
    else:
        numbers = np.linspace(0, length - 1, wanted.frames).round().astype(np.int64)
    return torch.from_numpy(source.read(0, numbers))
