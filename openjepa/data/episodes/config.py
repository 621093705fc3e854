"""Settings of episodes. No torch here, so that help and validation are instant."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from openjepa.config import Config


class EpisodeConfig(Config):
    """Where episodes come from, which of them are held out, and what counts as an observation.

    `path` is a folder that `openjepa collect` wrote, .npz (a file or a folder of them), HDF5, a Minari or LeRobot data
    set, a folder of pedestrian tracks, or the name of a world, whose episodes are then drawn: the same for the same
    settings. A bare string stands for `path`.
    """

    shorthand: ClassVar[str] = "path"
    path: str
    obs: Literal["auto", "state", "pictures"] = Field("auto", description="what the method sees, where there are both")
    held_out: float = Field(0.1, ge=0, lt=1, description="share of the episodes that training never sees")
    split_seed: int = Field(0, description="of the choice of held-out episodes")
    held_group: str | None = Field(None, description="hold out this group (a scene) instead of a share")
    limit: int | None = Field(None, ge=1, description="use only this many episodes, chosen by the split's seed")
    on_bad: Literal["refuse", "skip"] = Field("refuse", description="what to do with episodes that are not sound")
    keys: dict[str, str] = Field({}, description="names in a file of others: keys.obs=front_camera, action, state ...")
    policy: str = Field("random", description="of a drawn world: who acts")
    episodes: int = Field(1000, ge=1, description="of a drawn world: how many")
    steps: int = Field(100, ge=1, description="of a drawn world: actions per episode")
    seed: int = Field(0, description="of a drawn world")
    world: dict[str, Any] = Field({}, description="settings of a drawn world: world.size=33")
    cache_dir: str | None = None
