"""Settings of a source of pictures. No torch here, so that help and validation are instant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from openjepa.config import Config


class DataConfig(Config):
    """Where pictures come from, and how they become arrays.

    `path` is a folder, a list file (.txt/.csv), .npy/.npz, an IDX file, .parquet, a tar shard pattern
    ("shards/{000..015}.tar"), `hf://NAME`, or a built-in: "digits", "shapes". A bare string stands for `path`.
    """

    shorthand: ClassVar[str] = "path"
    path: str
    split: str | None = Field(None, description="train or test where the source has splits")
    size: int | None = Field(
        None, ge=4, description="side of the square pictures; by default the source's, at most 224"
    )
    channels: Literal[1, 3] = 3
    frames: int = Field(
        1, ge=1, description="above 1, an array file holds clips of that many frames, (N, T, H, W[, C])"
    )
    limit: int | None = Field(None, ge=1, description="use only this many, drawn evenly with the seed")
    normalise: Literal["imagenet", "half", "data"] = "imagenet"
    workers: int | None = Field(None, ge=0, description="decoding processes; by default the cores but one, 0 in memory")
    cache: bool = Field(True, description="hold small pictures as a uint8 memory map")
    cache_dir: str | None = None
    max_bad: float = Field(0.05, ge=0, le=1, description="share of unreadable files that stops the run")
    image_column: str = "image"
    label_column: str = "label"
