"""Settings of the verbs other than `train`: one schema each, for the command line and for Python."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from openjepa.config import Config, explain
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig


def pictures_or_clips(value: Any) -> Any:
    """Settings of pictures, or of clips where only these have such settings. A run on clips reads both as its own."""
    if value is None or isinstance(value, Config):
        return value
    try:
        return DataConfig.model_validate(value)
    except ValidationError as pictures:
        try:
            return ClipConfig.model_validate(value)
        except ValidationError:
            raise ValueError(explain(pictures)) from None


Data = Annotated[DataConfig | ClipConfig | None, BeforeValidator(pictures_or_clips)]


class ProbeRequest(Config):
    """What a run's features are worth on labelled pictures.

    `data` is what the probes learn from and `test` what they are measured on. Without `test`, the source's own test
    split is used where it has one, else a fifth of `data`, drawn per class. Without `data`, the run's own.

    A run on clips is asked for labels where there are some, for positions and velocities where the source knows them,
    and whether frames are in order; more kinds=[order,reversed,speed,motion] are its own.

    kinds=[segment,depth] ask for every pixel: `masks` is a folder of files named like the pictures, or "drawn" for the
    shapes that are built in.

    A world model is measured on its held-out episodes instead, and takes seed, batch_size and device alone: what z
    holds of every variable, how far imagined futures drift, and whether actions matter.
    """

    shorthand: ClassVar[str] = "data"
    data: Data = None
    test: Data = None
    kinds: tuple[str, ...] = Field(("linear", "knn", "fewshot"), description="openjepa list probes")
    masks: str | None = Field(None, description="kinds segment, depth: a folder of maps named like pictures, or drawn")
    layers: tuple[int, ...] | None = Field(None, description="blocks whose features are joined; by default the last")
    pooling: str = Field("mean", description="mean, max, cls, or several joined by +")
    weights: Literal["auto", "encoder", "teacher"] = "auto"
    seed: int = 0
    batch_size: int = Field(256, ge=1)
    device: str = "auto"
    name: str | None = Field(None, description="of the file in eval/; by default from the data")


class EmbedRequest(Config):
    """Features of every picture, with its name and its label: .parquet, .npy or .npz."""

    shorthand: ClassVar[str] = "data"
    data: Data = Field(None, description="by default the run's own")
    out: str | None = Field(None, description="file to write; its ending is the format")
    layers: tuple[int, ...] | None = None
    pooling: str = "mean"
    weights: Literal["auto", "encoder", "teacher"] = "auto"
    dtype: Literal["float32", "float16"] = "float32"
    batch_size: int = Field(256, ge=1)
    device: str = "auto"


class LookRequest(Config):
    """The health report of a run as one HTML file; of a world model, with what it imagines and reaches."""

    shorthand: ClassVar[str] = "out"
    out: str | None = Field(None, description="by default report.html in the run folder")
    data: Data = Field(None, description="pictures or clips to show; by default the run's own")
    pictures: int = Field(12, ge=1, le=64, description="shown with feature maps, masks and nearest neighbours")
    gallery: int = Field(512, ge=16, description="pictures among which the neighbours are looked for")
    device: str = "auto"


class CompareRequest(ProbeRequest):
    """Runs, raw pixels ("pixels") and the untrained encoder ("init") in one table, on the same pictures.

    When the first run is one on clips, all are measured on its clips; a run on pictures then looks at every frame.
    """

    out: str | None = Field(None, description="JSON file to write")


class ExportRequest(Config):
    """Weights for other programs: `openjepa` (safetensors and a card), `hf` (transformers' layout) or `onnx`."""

    shorthand: ClassVar[str] = "to"
    to: str
    format: Literal["openjepa", "hf", "onnx"] | None = Field(None, description="by default from the name of `to`")
    weights: Literal["auto", "encoder", "teacher"] = "auto"


class CollectRequest(Config):
    """Episodes of a world: who acts in it, how many, how long, and where they are written.

    The settings of the world itself go under `world`: world.pixels=64. An interrupted collection with the same settings
    is gone on with.
    """

    shorthand: ClassVar[str] = "out"
    out: str
    episodes: int = Field(100, ge=1)
    steps: int = Field(100, ge=1, description="actions per episode")
    policy: str = Field("random", description="who acts: random, ornstein-uhlenbeck, zero, or one of the world's own")
    seed: int = 0
    world: dict[str, Any] = Field({}, description="settings of the world, by their names")


class PlanRequest(Config):
    """Goals reached by planning with a world model, under a protocol, with intervals and controls beside them.

    Without `protocol` it is the one that comes with the world; a world that has none (gym:ID) gets one of its own, with
    goals from held-out episodes, which `pairs`, `ahead`, `budget` and `tolerance` change. `start` and `goal` are for
    one episode of one's own: a state [x,y], an observation, or a file of either (.npy) or of a picture (.png).
    `planner` and `cost` replace parts of the protocol's: planner.name=mppi planner.samples=500 cost.over=last. Choose
    them with split=tune, whose pairs are other ones than those of a report.
    """

    shorthand: ClassVar[str] = "protocol"
    protocol: str | None = Field(None, description="a name (openjepa list protocols) or a JSON file")
    world: str | None = Field(None, description="by default the one it was trained in; its settings as world.pixels=64")
    settings: dict[str, Any] = Field({}, description="of the world, by their names: the same as world.NAME")
    pairs: Literal["held_out", "world"] | None = Field(
        None, description="of a protocol of its own: where goals come from"
    )
    ahead: int | None = Field(None, ge=1, description="of a protocol of its own: world steps from start to goal")
    budget: int | None = Field(None, ge=1, description="of a protocol of its own: world steps, by default 2 ahead")
    tolerance: float | None = Field(
        None, gt=0, description="of a protocol of its own: share of each variable's spread, by default 0.2"
    )
    planner: dict[str, Any] = Field({}, description="name and settings: openjepa list planners")
    cost: dict[str, Any] = Field({}, description="of imagined futures: goal, distance, over, effort, doubt")
    start: tuple[float, ...] | str | None = Field(None, description="state to start from; .npy or .png")
    goal: tuple[float, ...] | str | None = Field(None, description="state to reach; .npy or .png")
    episodes: int | None = Field(None, ge=1, description="by default the protocol's number")
    split: Literal["report", "tune"] = "report"
    controls: tuple[str, ...] = Field(
        ("random", "zero", "goal_is_start", "simulator"), description="what is measured beside the model"
    )
    ceiling: int | None = Field(
        None,
        ge=1,
        description="pairs of the planner on the simulator; by default all, fewer where slow",
    )
    films: int = Field(1, ge=0, description="episodes that are filmed")
    film: Literal["gif", "mp4", "both"] = Field("gif", description="mp4 needs PyAV")
    seed: int = Field(0, description="of the search")
    out: str | None = Field(None, description="by default RUN/plan/PROTOCOL")
    device: str = "auto"

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_world(cls, given: Any) -> Any:
        """world.pixels=64 as in `collect`: fields of `world` go to `settings`."""
        if isinstance(given, dict) and isinstance(given.get("world"), dict):
            fields = dict(given["world"])
            names = [fields.pop(key) for key in ("", "name") if key in fields]
            return {**given, "world": names[0] if names else None, "settings": {**given.get("settings", {}), **fields}}
        return given


class InfoRequest(Config):
    """What a file of others does not tell, or what is not believed of it; all is left out for runs of our own.

    `heads` and `depth` are one number, of the encoder, or by part: heads.encoder=16 heads.predictor=12.
    """

    shorthand: ClassVar[str] = "family"
    family: str | None = Field(None, description="name of the layout, where several fit")
    weights: Literal["auto", "encoder", "teacher"] = "auto"
    heads: int | dict[str, int] | None = Field(None, description="attention heads, which no shape tells")
    depth: int | dict[str, int] | None = Field(None, description="blocks, where fewer than published are meant")
    size: int | None = Field(None, ge=1, description="side of the pictures; by default as published")
    frames: int | None = Field(None, ge=1, description="of a clip; by default as published")


class DemoRequest(Config):
    """LeJEPA on handwritten digits beside a run that is made to collapse, measured and reported."""

    shorthand: ClassVar[str] = "out"
    out: str | None = Field(
        None, description="a new folder; by default runs/demo, or runs/demo-2 and so on if that exists"
    )
    tiny: bool = Field(False, description="twenty steps: shows the course, not the numbers")
    seed: int = 0
    resamples: int = Field(20, ge=2, description="draws of the labelled digits, for the intervals")
    device: str = "auto"


REQUESTS: dict[str, type[Config]] = {
    "probe": ProbeRequest,
    "embed": EmbedRequest,
    "look": LookRequest,
    "compare": CompareRequest,
    "export": ExportRequest,
    "demo": DemoRequest,
    "collect": CollectRequest,
    "plan": PlanRequest,
    "info": InfoRequest,
}


def refuse(asked: Config, fits: tuple[str, ...], run: str) -> None:
    """A `ValueError` for settings that were given to a world model and only mean something on pictures."""
    given = sorted(asked.model_fields_set - set(fits))
    if given:
        raise ValueError(
            f"settings must be among {', '.join(fits)} for {run}, a world model, got {', '.join(given)}. "
            "Leave them out: it is measured on its own held-out episodes."
        )
