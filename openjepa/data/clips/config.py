"""Settings of a source of clips. No torch here, so that help and validation are instant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from openjepa.config import Config


class ClipConfig(Config):
    """Where videos come from, and how they become arrays.

    `path` is a folder of video files or of folders of numbered pictures, one video file, a list file (.txt/.csv),
    .parquet, a tar shard pattern, .npy/.npz clips, "pictures:PATH" (pictures from anywhere, each a clip of one frame),
    "moving-mnist:PATH[:N]" (drawn from the MNIST files at PATH) or "bouncing-shapes[:N]". A bare string stands for
    `path`. `mix` adds other paths: `mix={"pictures:photos/": 0.25}` takes one of five items of an epoch from there.
    """

    shorthand: ClassVar[str] = "path"
    path: str
    mix: dict[str, float] = Field({}, description="other paths and how often they are used, where `path` counts 1")
    split: str | None = Field(None, description="train or test where the source has splits")
    size: int | None = Field(None, ge=4, description="side of the square frames; by default the source's, at most 224")
    channels: Literal[1, 3] = 3
    frames: int = Field(20, ge=2, le=10_000, description="frames of a drawn clip")
    rate: float | None = Field(None, gt=0, description="frames per second of what does not say it: pictures, arrays")
    limit: int | None = Field(None, ge=1, description="use only this many of each path, drawn evenly with the seed")
    normalise: Literal["imagenet", "half", "data"] = "imagenet"
    workers: int | None = Field(None, ge=0, description="decoding processes; by default the cores but one, 0 in memory")
    cache: bool = Field(True, description="keep what was learned of the files (lengths, times) for the next run")
    cache_dir: str | None = None
    max_bad: float = Field(0.05, ge=0, le=1, description="share of unreadable or too short files that stops the run")
    video_column: str = "video"
    label_column: str = "label"

    @field_validator("mix")
    @classmethod
    def _weights(cls, mix: dict[str, float]) -> dict[str, float]:
        for path, weight in mix.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"must give {path!r} a weight above 0, got {weight:g}. Leave it out instead.")
        return mix
