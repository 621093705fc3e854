"""A finished or running run, as its folder tells it. Every verb that takes a run is a method here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openjepa.config import parse, read_yaml

if TYPE_CHECKING:
    from openjepa.data.config import DataConfig
    from openjepa.interop.checkpoint import Weights
    from openjepa.interop.model import Model
    from openjepa.probe.verdict import Verdict
    from openjepa.train.run import RunConfig


class Run:
    """The folder of a run: settings, numbers, verdict; and what can be done with it.

        run = openjepa.train("lejepa", data="photos/", out="runs/a")     # or openjepa.Run("runs/a")
        run.probe(data="labelled/")
        z = run.embed("photos/")["z"]

    Raises `ValueError` when `path` holds no config.yaml.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "config.yaml").is_file():
            raise ValueError(f"run must be a folder with a config.yaml, got {self.path}. Check the path.")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """The saved settings as plain values."""
        return read_yaml(self.path / "config.yaml")

    @property
    def config(self) -> RunConfig:
        """The saved settings, checked."""
        from openjepa.train.run import RunConfig

        return parse(RunConfig, self.settings)

    @property
    def pictures(self) -> DataConfig:
        """The settings of the pictures it was trained on; a `ValueError` for a run on episodes."""
        from openjepa.data.config import DataConfig

        data = self.config.data
        if not isinstance(data, DataConfig):
            raise ValueError(f"run must be one on pictures for this, got {self.path}, a world model of {data.path}.")
        return data

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl, in order of step."""
        from openjepa.app.report import read_metrics

        return read_metrics(self.path / "metrics.jsonl")

    def verdict(self) -> Verdict:
        """Is it healthy? In plain words, with the evidence and what to change."""
        from openjepa.probe.verdict import verdict

        return verdict(self.metrics())

    def summary(self) -> dict[str, Any]:
        """Where it is, how far it came, what its last numbers are, and the verdict."""
        rows = self.metrics()
        last = rows[-1] if rows else {}
        kept = ("step", "loss", "time")
        loss: dict[str, Any] = {k: v for k, v in last.items() if k in kept or k.endswith("_per_s")}
        found = {k: v for row in rows for k, v in row.items() if k.startswith(("probe/", "health/knn"))}
        return {"run": str(self.path), **loss, **found, "verdict": self.verdict().as_dict()}

    def load(self, weights: Weights = "auto") -> Model:
        """The trained encoder with its preprocessing."""
        from openjepa.interop.checkpoint import load

        return load(self.path, weights=weights)

    def probe(
        self,
        data: Any = None,
        *,
        test: Any = None,
        kinds: Sequence[str] | None = None,
        masks: str | Path | None = None,
        layers: Sequence[int] | None = None,
        pooling: str | None = None,
        weights: str | None = None,
        seed: int | None = None,
        device: str | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """`openjepa.probe` of this run."""
        from openjepa.app import verbs

        return verbs.probe(
            self.path, data, test=test, kinds=kinds, masks=masks, layers=layers, pooling=pooling, weights=weights,
            seed=seed, device=device, name=name,
        )  # fmt: skip

    def embed(
        self,
        data: Any = None,
        out: str | Path | None = None,
        *,
        layers: Sequence[int] | None = None,
        pooling: str | None = None,
        weights: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
    ) -> Any:
        """The features of pictures: without `out` an array (N, D), else what `openjepa.embed` returns."""
        from openjepa.app import verbs

        return verbs.embed(
            self.path, data, out, layers=layers, pooling=pooling, weights=weights, dtype=dtype, device=device
        )

    def plan(
        self,
        *,
        protocol: str | Path | None = None,
        world: str | None = None,
        settings: Mapping[str, Any] | None = None,
        planner: str | Mapping[str, Any] | None = None,
        cost: Mapping[str, Any] | None = None,
        start: Sequence[float] | str | None = None,
        goal: Sequence[float] | str | None = None,
        pairs: str | None = None,
        ahead: int | None = None,
        budget: int | None = None,
        tolerance: float | None = None,
        ceiling: int | None = None,
        episodes: int | None = None,
        split: str | None = None,
        controls: Sequence[str] | None = None,
        films: int | None = None,
        film: str | None = None,
        seed: int | None = None,
        out: str | Path | None = None,
        device: str | None = None,
    ) -> dict[str, Any]:
        """`openjepa.plan` with this world model."""
        from openjepa.app import verbs

        return verbs.plan(
            self.path, protocol=protocol, world=world, settings=settings, planner=planner, start=start, goal=goal,
            episodes=episodes, split=split, controls=controls, films=films, film=film, seed=seed, out=out,
            device=device, cost=cost, pairs=pairs, ahead=ahead, budget=budget, tolerance=tolerance, ceiling=ceiling,
        )  # fmt: skip

    def look(self, out: str | Path | None = None, *, data: Any = None) -> dict[str, Any]:
        """`openjepa.look` at this run."""
        from openjepa.app import verbs

        return verbs.look(self.path, out, data=data)

    def export(self, to: str | Path, *, format: str | None = None, weights: str | None = None) -> dict[str, Any]:
        """`openjepa.export` of this run."""
        from openjepa.app import verbs

        return verbs.export(self.path, to, format=format, weights=weights)
