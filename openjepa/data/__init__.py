"""Pictures from anywhere to typed batches. To add a source: a file with an opener, and one line in `SOURCES`.

The names below are looked up when they are first used, because `openjepa.data.config` must be importable without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
