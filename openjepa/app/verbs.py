"""The verbs, as Python functions: the same names and forms as on the command line.

    run = openjepa.train("lejepa", data="photos/", out="runs/a", optim={"lr": 1e-3})
    openjepa.probe("runs/a", data="labelled/")
    openjepa.embed("runs/a", data="photos/", out="z.parquet")
    openjepa.compare("runs/a", "pixels", "init", data="labelled/")

Settings that are not given keep their defaults. Everything heavy is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openjepa.app.answers import answer, as_run, request
from openjepa.app.names import list_names as list_names
from openjepa.app.runs import Run
from openjepa.app.settings import resolve

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


Group = Mapping[str, Any]


def train(
    method: str | Group | None = None,
    *,
    data: str | Group | None = None,
    out: str | Path | None = None,
    encoder: nn.Module | str | Group | None = None,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    tiny: bool = False,
    overrides: Iterable[str] = (),
    seed: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    budget: Group | float | None = None,
    optim: Group | float | None = None,
    precision: str | None = None,
    device: str | None = None,
    compile: bool | None = None,
    checkpoint_activations: bool | None = None,
    distributed: str | None = None,
    threads: int | None = None,
    checkpoint: Group | None = None,
    log: Group | None = None,
    probe: Group | None = None,
    init_from: str | Path | None = None,
) -> Run:
    """Train `method` on `data` and return the run.

    method     name of a method or a preset, or a group of settings with a `name`
    data       a folder, a file, a built-in source ("digits", "shapes"), or a group of settings
    out        the run folder, new or empty; by default runs/NAME, numbered
    encoder    a name such as "vit_tiny/8", settings, or a module of your own that maps (B, C, H, W) to features
    config     a YAML file of settings, such as the config.yaml of another run
    resume     the folder of a run to go on with; then nothing else is needed
    tiny       the small variant of a preset: seconds instead of minutes
    overrides  dotted settings, `["optim.lr=3e-4"]`, the last word over everything else

    The other keywords are the fields of `openjepa.RunConfig`: a value, or a group with some of its fields.

    Raises `ValueError` for settings that do not fit and `openjepa.train.failure.RunFailed` when a run cannot go on.

    >>> import tempfile
    >>> run = train("digits-lejepa", tiny=True, out=tempfile.mkdtemp(), budget={"steps": 2}, log={"tensorboard": False})
    >>> run.config.budget.steps, run.metrics()[-1]["step"]
    (2, 2)
    """
    from torch import nn

    keywords: dict[str, Any] = {
        "data": data, "out": None if out is None else str(out), "seed": seed, "batch_size": batch_size,
        "accumulate": accumulate, "budget": budget, "optim": optim, "precision": precision, "device": device,
        "compile": compile, "checkpoint_activations": checkpoint_activations, "distributed": distributed,
        "threads": threads, "checkpoint": checkpoint, "log": log, "probe": probe,
        "init_from": None if init_from is None else str(init_from),
    }  # fmt: skip
    module = encoder if isinstance(encoder, nn.Module) else None
    if encoder is not None and module is None:
        keywords["method"] = {"encoder": encoder}
    if isinstance(method, Mapping):
        keywords["method"] = {**method, **keywords.get("method", {})}
    name = method if isinstance(method, str) else None
    run = resolve(name, config=config, resume=resume, keywords=keywords, overrides=overrides, tiny=tiny)
    from openjepa.app.training import start

    return start(run, encoder=module, resume=resume is not None)


def probe(
    run: str | Path | Run,
    data: str | Group | None = None,
    *,
    test: str | Group | None = None,
    kinds: Sequence[str] | None = None,
    masks: str | Path | None = None,
    layers: Sequence[int] | None = None,
    pooling: str | None = None,
    weights: str | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Measure the frozen features of a run on labelled pictures; the numbers also go to RUN/eval/NAME.json.

    The keywords are the fields of `openjepa.app.requests.ProbeRequest`. Every accuracy comes with an interval.
    """
    given = {
        "data": data, "test": test, "kinds": kinds, "masks": None if masks is None else str(masks), "layers": layers,
        "pooling": pooling, "weights": weights, "seed": seed, "batch_size": batch_size, "device": device, "name": name,
    }  # fmt: skip
    return answer("probe", run, given)


def embed(
    run: str | Path | Run,
    data: str | Group | None = None,
    out: str | Path | None = None,
    *,
    layers: Sequence[int] | None = None,
    pooling: str | None = None,
    weights: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> np.ndarray:
    """The features (N, D) of pictures, in the order of the source; with `out` also written to a file, with names.

    The keywords are the fields of `openjepa.app.requests.EmbedRequest`.
    """
    from openjepa.app.embedding import embedding
    from openjepa.interop.embed import write_embeddings

    given = {
        "data": data, "out": None if out is None else str(out), "layers": layers, "pooling": pooling,
        "weights": weights, "dtype": dtype, "batch_size": batch_size, "device": device,
    }  # fmt: skip
    asked = request("embed", given)
    found = embedding(as_run(run), asked)
    if asked.out is not None:
        write_embeddings(asked.out, found.z, found.names, found.labels, dtype=asked.dtype)
    return found.z.numpy().astype(asked.dtype)


def look(run: str | Path | Run, out: str | Path | None = None, *, data: Any = None) -> dict[str, Any]:
    """Write the health report of a run (one HTML file, no network) and return its path and the verdict."""
    given = {"out": None if out is None else str(out), "data": data}
    return answer("look", run, given)


def compare(
    *items: str | Path | Run,
    data: str | Group | None = None,
    test: str | Group | None = None,
    kinds: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    pooling: str | None = None,
    weights: str | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Runs, "pixels" (raw pixels) and "init" (the first run's encoder, untrained) measured on the same pictures."""
    given = {
        "data": data, "test": test, "kinds": kinds, "layers": layers, "pooling": pooling, "weights": weights,
        "seed": seed, "batch_size": batch_size, "device": device, "out": None if out is None else str(out),
    }  # fmt: skip
    return answer("compare", items, given)


def export(
    run: str | Path | Run, to: str | Path, *, format: str | None = None, weights: str | None = None
) -> dict[str, Any]:
    """Write the encoder for other programs: "openjepa", "hf" (transformers) or "onnx". Returns what was written."""
    return answer("export", run, {"to": str(to), "format": format, "weights": weights})


def collect(
    world: str,
    *,
    out: str | Path,
    episodes: int | None = None,
    steps: int | None = None,
    policy: str | None = None,
    seed: int | None = None,
    settings: Group | None = None,
) -> dict[str, Any]:
    """Let a policy act in a world and write the episodes to the folder `out`; returns what is there now.

    world     a name (`openjepa list worlds`), or "gym:ID" with the id of a Gymnasium environment
    settings  of the world: {"pixels": 64}

    The other keywords are the fields of `openjepa.app.requests.CollectRequest`.

    >>> import tempfile
    >>> collect("pendulum", out=tempfile.mkdtemp() + "/eps", episodes=3, steps=5)["frames"]
    18
    """
    given = {"out": str(out), "episodes": episodes, "steps": steps, "policy": policy, "seed": seed, "world": settings}
    return answer("collect", world, given)


def plan(
    run: str | Path | Run,
    *,
    protocol: str | Path | None = None,
    world: str | None = None,
    settings: Group | None = None,
    planner: str | Group | None = None,
    cost: Group | None = None,
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
    """Reach goals by planning with a world model: success with intervals, controls beside it, a film.

    The keywords are the fields of `openjepa.app.requests.PlanRequest`; the numbers also go to OUT/result.json.
    """
    given = {
        "protocol": None if protocol is None else str(protocol), "world": world, "settings": settings,
        "planner": {"name": planner} if isinstance(planner, str) else planner, "start": start, "goal": goal,
        "episodes": episodes, "split": split, "controls": controls, "films": films, "film": film, "seed": seed,
        "out": None if out is None else str(out), "device": device, "cost": cost, "pairs": pairs,
        "ahead": ahead, "budget": budget, "tolerance": tolerance, "ceiling": ceiling,
    }  # fmt: skip
    return answer("plan", run, given)


def data_check(path: str | Group, *, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What a run on this data would meet: how many pictures, which sizes, which are unreadable and why."""
    from openjepa.app.checking import check_data

    return check_data(path, overrides)


def info(
    path: str | Path | None = None,
    *,
    family: str | None = None,
    weights: str | None = None,
    heads: Mapping[str, int] | int | None = None,
    depth: Mapping[str, int] | int | None = None,
    size: int | None = None,
    frames: int | None = None,
) -> dict[str, Any]:
    """What a run or checkpoint is; without a path, this machine and the versions installed (for bug reports).

    The keywords are the fields of `openjepa.app.requests.InfoRequest`, for checkpoints of others.
    """
    given = {"family": family, "weights": weights, "heads": heads, "depth": depth, "size": size, "frames": frames}
    return answer("info", path or (), given)


def demo(
    out: str | Path | None = None,
    *,
    tiny: bool | None = None,
    seed: int | None = None,
    resamples: int | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """LeJEPA on handwritten digits beside a run made to collapse: trained, measured, judged, reported."""
    given = {"out": None if out is None else str(out), "tiny": tiny, "seed": seed, "resamples": resamples,
             "device": device}  # fmt: skip
    return answer("demo", (), given)
