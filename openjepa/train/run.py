"""What a run is: one frozen config that is saved in full and is enough to run again.

No torch here, so that help and validation are instant.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from openjepa.config import BARE, ClipView, Config, Window, nearest
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig
from openjepa.data.episodes.config import EpisodeConfig


class Budget(Config):
    """How long to train: exactly one of steps, epochs or minutes.

    `minutes` is turned into a number of steps once, after the first steps have been timed; from then on the run is as
    deterministic as one that named its steps.
    """

    shorthand: ClassVar[str] = "epochs"
    exclusive: ClassVar[tuple[str, ...]] = ("steps", "epochs", "minutes")
    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    minutes: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(x is not None for x in (self.steps, self.epochs, self.minutes)) > 1:
            raise ValueError("must name one of steps, epochs or minutes. Set the others to null.")
        return self


class OptimConfig(Config):
    """AdamW, its groups and its schedules.

    lr rises linearly from lr * start_factor over `warmup` (share of the run when below 1, else steps), then follows
    `schedule`: "cosine" or "linear" to lr * final_factor; "wsd" holds and then falls linearly to it over the last
    `cooldown` share; "constant". Weight decay goes by cosine from `weight_decay` to `weight_decay_end` (equal by
    default). Biases and one-dimensional weights do not decay.

    `stretch` draws both schedules for a run so many times as long, of which this is the beginning: they stop early, as
    in V-JEPA (1.25). The warm-up stays as it is.
    """

    lr: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0)
    start_factor: float = Field(0.01, ge=0, le=1)
    final_factor: float = Field(0.001, ge=0, le=1)
    cooldown: float = Field(0.2, ge=0, le=1)
    stretch: float = Field(1.0, ge=1)
    weight_decay: float = Field(0.05, ge=0)
    weight_decay_end: float | None = Field(None, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(None, gt=0)


class CheckpointConfig(Config):
    """When to save, and how many training states to keep. A state is also saved at the end and on SIGTERM."""

    every: int | None = Field(None, ge=1, description="steps; by default twenty times per run")
    keep: int = Field(2, ge=1)


class LogConfig(Config):
    """How often a line is written, and how often the run is looked at (health, online probe and kNN)."""

    every: int = Field(20, ge=1)
    look: int | None = Field(None, ge=1, description="steps between looks; by default forty times per run")
    tensorboard: bool = True
    wandb: bool = False


class ProbeConfig(Config):
    """The online probe: labels that training never sees, used only to report. Off when the source has no labels."""

    online: bool = True
    data: DataConfig | ClipConfig | None = None
    limit: int = Field(5000, ge=10, description="pictures or observations used per look, for kNN and health")


class RunConfig(Config):
    """Everything about one run. `data` are pictures, clips or episodes, as the method eats."""

    method: SerializeAsAny[Config]
    data: DataConfig | EpisodeConfig | ClipConfig
    out: str | None = None
    seed: int = 0
    batch_size: int = Field(256, ge=1, description="pictures, videos or windows per optimiser step, over all processes")
    accumulate: int = Field(1, ge=1, description="micro-batches per optimiser step")
    budget: Budget = Budget(epochs=100)
    optim: OptimConfig = OptimConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    compile: bool = False
    checkpoint_activations: bool = False
    distributed: Literal["ddp", "fsdp"] = "ddp"
    threads: int | None = Field(None, ge=1, description="CPU threads of the main process; by default what torch takes")
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    probe: ProbeConfig = ProbeConfig()
    init_from: str | None = None

    @field_validator("method", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Any:
        """A name, or a group with a name, becomes that method's own config class."""
        if isinstance(value, Config):
            return value
        from openjepa.methods import METHODS  # the table knows torch: only looked at when a run is really made

        value = dict(value) if isinstance(value, dict) else {"name": value}
        value.setdefault("name", value.pop(BARE, None))
        if value["name"] not in METHODS:
            raise ValueError(f"must name a method, got {value['name']!r}. {nearest(str(value['name']), METHODS)}")
        return METHODS[value["name"]].Config.model_validate(value)

    @field_validator("data", mode="before")
    @classmethod
    def _data(cls, value: Any, info: ValidationInfo) -> Any:
        """A path, or a group, becomes the settings of what the method eats."""
        method = info.data.get("method")
        if method is None:  # wrong itself: one error is enough
            return value if isinstance(value, Config) else DataConfig.model_construct(path=str(value))
        wanted: type[Config] = (
            EpisodeConfig if eats_windows(method) else ClipConfig if eats_clips(method) else DataConfig
        )
        if isinstance(value, Config) and not isinstance(value, wanted):
            what = {EpisodeConfig: "episodes", ClipConfig: "clips", DataConfig: "pictures"}[wanted]
            name = getattr(method, "name", type(method).__name__)
            raise ValueError(
                f"must be {what} ({wanted.__name__}) for method {name}, got {type(value).__name__}. "
                "Choose another method."
            )
        return wanted.model_validate(value)

    @field_validator("probe", mode="before")
    @classmethod
    def _probe(cls, value: Any, info: ValidationInfo) -> Any:
        """The labelled data of the online probe are read as the run's own are."""
        method = info.data.get("method")
        if not isinstance(value, dict) or method is None or not eats_clips(method):
            return value
        data = value.get("data")
        return value if data is None else {**value, "data": ClipConfig.model_validate(data)}


def eats_windows(method: Config) -> bool:
    """Whether a method with these settings is trained on windows of episodes: such settings say how to cut them."""
    return isinstance(getattr(method, "window", None), Window)


def eats_clips(method: Config) -> bool:
    """Whether a method with these settings is trained on clips: its views are kinds of clips."""
    views = getattr(method, "views", ())
    return isinstance(views, tuple | list) and any(isinstance(v, ClipView) for v in views)
