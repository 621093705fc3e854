"""What there is to choose from, by kind. Read from the packaged tables, so that it answers at once."""

from __future__ import annotations

from typing import Any

from openjepa.app.fields import read
from openjepa.config import nearest

SOURCES = {  # what data.path may be
    "FOLDER/": "pictures, recursive; class folders become labels",
    "LIST.txt, LIST.csv": "one picture per line, with a label where a second column has one",
    "FILE.npy, FILE.npz": "arrays of pictures (and labels)",
    "*-idx3-ubyte": "IDX, as MNIST is published",
    "FILE.parquet": "encoded pictures in a column, as Hugging Face stores them",
    "shards/{000..015}.tar": "WebDataset shards",
    "hf://NAME": "a Hugging Face data set",
    "digits": "scikit-learn's 1,797 handwritten digits, 8 x 8",
    "shapes": "drawn on the fly: shape, colour, place and size vary",
    "VIDEOS/, FILE.mp4": "video files, recursive, for methods that learn from clips; lists, Parquet, shards too",
    "FRAMES/": "folders of numbered pictures, each a video",
    "pictures:PATH": "pictures as clips of one frame",
    "moving-mnist:PATH[:N]": "two digits that bounce, drawn from the MNIST files at PATH",
    "bouncing-shapes[:N]": "two shapes that bounce, drawn",
    "EPISODES/": "what `openjepa collect` wrote, for methods that learn from episodes",
    "FILE.npz, FOLDER/*.npz": "episodes as arrays: observations, actions, states",
    "FILE.hdf5": "episodes, flat or one group each (robomimic); Minari's folder too",
    "LEROBOT/": "LeRobot's layout: Parquet rows and video",
    "TRACKS/*.txt": "pedestrian tracks, one person an episode",
    "WORLD": "episodes of a world, drawn: openjepa list worlds",
}


def list_names(kind: str | None = None) -> dict[str, Any]:
    """Names and one line about each; `kind` is methods, presets, worlds, policies, planners, protocols, encoders,
    sources, probes or formats (default: all).

    >>> {"ijepa", "lejepa"} <= list_names("methods")["methods"].keys()
    True
    """
    known = read()
    kinds: dict[str, Any] = {
        "methods": {name: about["what"] for name, about in known["methods"].items()},
        "presets": known["presets"],
        "worlds": known["worlds"],
        "policies": known["policies"],
        "planners": known["planners"],
        "protocols": known["protocols"],
        "encoders": dict.fromkeys([*known["encoders"], "timm/NAME", "hf/NAME", "py:package.module:factory"], ""),
        "sources": SOURCES,
        "probes": known["probes"],
        "formats": known["formats"],
    }
    if kind is None:
        return kinds
    if kind not in kinds:
        raise ValueError(f"list must be given a kind, got {kind!r}. {nearest(kind, kinds)}")
    return {kind: kinds[kind]}
