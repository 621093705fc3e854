"""Pictures from anywhere to typed batches. To add a source: a file with an opener, and one line in `SOURCES`.

The names below are looked up when they are first used, because `openjepa.data.config` must be importable without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openjepa.lazy import lookup

if TYPE_CHECKING:
    from openjepa.data.checkup import Report, check
    from openjepa.data.evaluate import evaluation
    from openjepa.data.opening import open_source
    from openjepa.data.picture import BadPicture, read_picture
    from openjepa.data.source import Found, Source
    from openjepa.data.stream import PictureStream

# kind -> "module:opener"; an opener takes a DataConfig and returns a Found
SOURCES: dict[str, str] = {
    "folder": "openjepa.data.folder:open_folder",
    "list": "openjepa.data.folder:open_list",
    "npy": "openjepa.data.arrays:open_npy",
    "idx": "openjepa.data.arrays:open_idx",
    "parquet": "openjepa.data.parquet:open_parquet",
    "hub": "openjepa.data.hub:open_hub",
    "shards": "openjepa.data.shards:open_shards",
    "digits": "openjepa.data.digits:open_digits",
    "shapes": "openjepa.data.shapes:open_shapes",
}

_HOMES = {
    "BadPicture": "picture",
    "Found": "source",
    "PictureStream": "stream",
    "Report": "checkup",
    "Source": "source",
    "check": "checkup",
    "evaluation": "evaluate",
    "open_source": "opening",
    "read_picture": "picture",
}

__all__ = ["SOURCES", *_HOMES]

__getattr__ = lookup(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
