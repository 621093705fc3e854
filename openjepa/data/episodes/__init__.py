"""Episodes from anywhere to windows. To add a format: a file with an opener, one line here, and one in `kind_of`.

The names below are looked up when they are first used, because `config` must be importable without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openjepa.lazy import lookup

if TYPE_CHECKING:
    from openjepa.data.episodes.config import EpisodeConfig
    from openjepa.data.episodes.episodes import About, Episodes
    from openjepa.data.episodes.opening import open_episodes
    from openjepa.data.episodes.scale import Scale
    from openjepa.data.episodes.splitting import Split, split
    from openjepa.data.episodes.windows import WindowStream
    from openjepa.data.episodes.writer import Writer

# kind -> "module:opener"; an opener takes an EpisodeConfig and returns a `gather.Found`
FORMATS: dict[str, str] = {
    "npz": "openjepa.data.episodes.npz:open_npz",
    "hdf5": "openjepa.data.episodes.hdf5:open_hdf5",
    "minari": "openjepa.data.episodes.hdf5:open_minari",
    "lerobot": "openjepa.data.episodes.lerobot:open_lerobot",
    "tracks": "openjepa.data.episodes.tracks:open_tracks",
}

_HOMES = {
    "About": "episodes",
    "EpisodeConfig": "config",
    "Episodes": "episodes",
    "Scale": "scale",
    "Split": "splitting",
    "WindowStream": "windows",
    "Writer": "writer",
    "open_episodes": "opening",
    "split": "splitting",
}

__all__ = ["FORMATS", *_HOMES]

__getattr__ = lookup(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
