"""Clips from anywhere to typed batches. To add a format: a file with an opener, and one line in `FORMATS`.

The names below are looked up when they are first used, because `openjepa.data.clips.config` must be importable without
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openjepa.lazy import lookup

if TYPE_CHECKING:
    from openjepa.data.clips.checkup import ClipReport, check_clips
    from openjepa.data.clips.evaluate import clip_evaluation, clip_frames
    from openjepa.data.clips.opening import open_clips
    from openjepa.data.clips.source import ClipSource
    from openjepa.data.clips.stream import ClipStream
    from openjepa.data.clips.video import BadClip

# kind -> "module:opener"; an opener takes a ClipConfig and returns a ClipsFound
FORMATS: dict[str, str] = {
    "folder": "openjepa.data.clips.files:open_folder",
    "list": "openjepa.data.clips.files:open_list",
    "parquet": "openjepa.data.clips.files:open_parquet",
    "shards": "openjepa.data.clips.files:open_shards",
    "frames": "openjepa.data.clips.frames:open_frames",
    "pictures": "openjepa.data.clips.frames:open_pictures",
    "arrays": "openjepa.data.clips.arrays:open_arrays",
    "moving-mnist": "openjepa.data.clips.moving_mnist:open_moving_mnist",
    "bouncing-shapes": "openjepa.data.clips.bouncing:open_bouncing",
}

_HOMES = {
    "BadClip": "video",
    "ClipReport": "checkup",
    "ClipSource": "source",
    "ClipStream": "stream",
    "check_clips": "checkup",
    "clip_evaluation": "evaluate",
    "clip_frames": "evaluate",
    "open_clips": "opening",
}

__all__ = ["FORMATS", *_HOMES]

__getattr__ = lookup(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
