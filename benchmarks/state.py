"""What each part of the state-space JEPA is worth: one switch at a time, on worlds whose physics is exact.

    python -m benchmarks.state                                    # all of it: about twenty minutes of one core
    python -m benchmarks.state --worlds spring --seeds 0 --steps 50 --variants default no-prior --name try

Every run trains one variant on one world with one seed (which draws the episodes, the weights and the batches), then
reads the physical variables off the latent of held-out episodes by a ridge regression, lets the model dream 100 steps
from their starts, and reads the same map off the dreams. So an error is in the world's unit (metres or radians, see
`distance` of each world), and a map that reads well from a latent without any scale left shows as R2 beside spread.
Median over episodes: one dream that runs away to infinity does not hide the others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from benchmarks import record
from benchmarks.jobs import each
from benchmarks.state_scene import AT, LONGEST, Scene, make_scene, references
from openjepa.core.compare import mse
from openjepa.core.measure import feature_std, noise_floor, rank_above_floor, spectrum
from openjepa.core.motion import compose
from openjepa.core.types import Clock, Seen, Space, Terms, Windows
from openjepa.methods import Method, total
from openjepa.methods.state import StateConfig, StateJEPA
from openjepa.nn.state import mlp
from openjepa.probe.intervals import t_interval
from openjepa.probe.regress import r2
from openjepa.probe.ridge import ridge
from openjepa.train.optim import make_optimizer, set_rates
from openjepa.train.run import OptimConfig

WORLDS = ("spring", "pendulum", "bouncing-ball", "orbit")
SIZE = {"dim": 32, "width": 64}  # of every variant; the MLP on raw states has as many weights
VARIANTS: dict[str, dict[str, Any]] = {  # name -> what differs from the default of the method
    "default": {},
    "absolute": {"residual": False},
    "no-prior": {"prior": False},
    "mask-none": {"mask_share": 0.0},
    "mask-positions": {"masking": ("positions",)},
    "mask-velocities": {"masking": ("velocities",)},
    "mask-two": {"masking": ("two",)},
    "mask-one": {"masking": ("one",)},
    "mask-all": {"masking": ("all",)},
    "ema-alone": {"variance": 0.0},
    "ema-fast": {"ema": 0.95},
    "nothing": {"teacher": "none", "variance": 0.0},
    "variance-alone": {"teacher": "none"},
    "sigreg-alone": {"teacher": "none", "variance": 0.0, "sigreg": 0.05},
    "k1": {"horizons": (1,)},
    "k4": {"horizons": (4,)},
}
CONTROLS = ("untrained", "raw-mlp")  # the default before its first step; an MLP x' = x + f(x) on the states themselves
OPTIM = OptimConfig(lr=3e-3, weight_decay=1e-5, clip=1.0)
COMPARED = (4, 20, 100)


class Job(NamedTuple):
    """One run."""

    world: str
    seed: int
    variant: str
    steps: int
    batch: int
    episodes: int


# --------------------------------------------------------------------------------------------------------- the models
class RawMLP(Method):
    """What one would do without a latent: x' = x + f(x) on normalised states, trained on single steps."""

    cfg: StateConfig
    eats = "windows"

    def __init__(self, cfg: StateConfig, *, space: Space) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0}
        self.net = mlp(space.obs[0], 2 * cfg.width, space.obs[0], layers=3)

    def losses(self, batch: Windows, clock: Clock) -> tuple[Terms, Seen]:
        return {"predict": mse(self.step(batch.obs[:, :-1], batch.action), batch.obs[:, 1:])}, {}

    def encode(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return z + self.net(z)


def train(scene: Scene, variant: str, seed: int, steps: int) -> tuple[Method, dict[str, Any]]:
    """A trained model; what it cost, and how wide its features were before."""
    torch.manual_seed(seed)
    cfg = StateConfig(**{**SIZE, **VARIANTS.get(variant, {})})
    method: Method = (RawMLP if variant == "raw-mlp" else StateJEPA)(cfg, space=scene.stream.space)
    with torch.no_grad():
        before = feature_std(method.encode(scene.train)).square().mean().sqrt().item()
    optimizer, begin, loss = make_optimizer(method, OPTIM), time.process_time(), torch.zeros(())
    batches = scene.stream.batches()
    for step, batch in zip(range(0 if variant == "untrained" else steps), batches, strict=False):
        clock = Clock(step, steps, seed)
        terms, _ = method(batch, clock)
        set_rates(optimizer, OPTIM, step, steps)
        optimizer.zero_grad()
        total(terms, method.weights).backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), OPTIM.clip or math.inf)
        optimizer.step()
        method.after_step(clock)
        loss = terms["predict"].detach()
    spent = time.process_time() - begin
    weights = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return method.eval(), {"seconds": round(spent, 2), "predict": None if variant == "untrained" else float(loss),
                           "weights": weights, "spread_before": before}  # fmt: skip


@torch.no_grad()
def measure(scene: Scene, method: Any, before: float) -> dict[str, Any]:
    """Everything that is kept about a trained model."""
    z, x = method.encode(scene.held.flatten(0, 1)), scene.held.flatten(0, 1)
    reader = ridge(method.encode(scene.train), scene.train)
    names = scene.stream.episodes.features
    spread = feature_std(z).square().mean().sqrt().item()
    floor = noise_floor(len(z), z.shape[1], (0.01 * before) ** 2)
    found: dict[str, Any] = {
        "r2": dict(zip(names, r2((reader(z) - x).double(), x.double()).tolist(), strict=True)),
        "r2_axes": of_axes(method.encode(scene.train), scene.train, z, x),
        "spread": spread,
        "spread_ratio": spread / before,
        "rank": rank_above_floor(spectrum(z), floor).item(),
    }
    start = method.encode(scene.held[:, 0])
    horizons = getattr(getattr(method, "horizon", None), "horizons", (1,))
    if 1 in horizons:
        ahead = one_by_one(method, start)  # (E, 100, D)
        found["steps"] = scene.errors([scene.physical(reader(ahead[:, k - 1])) for k in AT], AT)
    if hasattr(method, "jump"):
        at = [k for k in AT if composable(k, horizons)]
        found["jumps"] = scene.errors([scene.physical(reader(method.jump(start, k))) for k in at], at)
        found["hidden"] = one_hidden(method, reader, x)
    else:
        found["jumps"] = found["steps"]
    return found


def one_by_one(method: Any, z: Tensor) -> Tensor:
    """(E, D) -> (E, 100, D): single steps fed back, whatever a method's own `unroll` would do."""
    future, nobody = [], z.new_zeros(len(z), 0)
    for _ in range(LONGEST):
        z = method.step(z, nobody)
        future.append(z)
    return torch.stack(future, 1)


def of_axes(a: Tensor, ya: Tensor, b: Tensor, yb: Tensor) -> float:
    """Mean R2 of the variables read off as many principal axes of z as there are variables: what a picture shows."""
    mean = a.mean(0)
    axes = torch.linalg.svd(a - mean, full_matrices=False).Vh[: ya.shape[1]].T  # (D, S)
    if not (axes.isfinite().all() and (a - mean).abs().max() > 1e-12):
        return 0.0
    return r2((ridge((a - mean) @ axes, ya)((b - mean) @ axes) - yb).double(), yb.double()).mean().item()


def one_hidden(method: Any, reader: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, float]:
    """Mean R2 of the visible variables, and of the hidden one, with each variable hidden in turn from the encoder."""
    seen, unseen = [], []
    for i in range(x.shape[1]):
        mask = torch.zeros_like(x, dtype=torch.bool)
        mask[:, i] = True
        each = r2((reader(method.encoder(x, mask)) - x).double(), x.double()).clamp_min(-1.0).tolist()
        unseen.append(each.pop(i))
        seen += each
    return {"visible_r2": fmean(seen), "hidden_r2": fmean(unseen)}


def composable(k: int, horizons: Sequence[int]) -> bool:
    try:
        return bool(compose(k, horizons))
    except ValueError:
        return False


# -------------------------------------------------------------------------------------------------------- the numbers
def work(job: Job) -> dict[str, Any]:
    """One run, or what needs no run."""
    torch.set_num_threads(1)
    scene, row = make_scene(job.world, job.seed, job.episodes, job.batch), {"world": job.world, "seed": job.seed}
    if job.variant == "references":
        return {**row, "variant": "references", **references(scene)}
    method, cost = train(scene, job.variant, job.seed, job.steps)
    return {**row, "variant": job.variant, **cost, **measure(scene, method, cost["spread_before"])}


def flat(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a run that are compared."""
    out = {"r2": fmean(row["r2"].values()), "r2_least": min(row["r2"].values()), "seconds": row["seconds"]}
    out |= {k: row[k] for k in ("r2_axes", "spread", "spread_ratio", "rank")} | row.get("hidden", {})
    for way in ("steps", "jumps"):
        for kind, values in row.get(way, {}).items():
            out |= {f"{kind}_{k}_by_{way}": values[str(k)] for k in (1, *COMPARED) if str(k) in values}
    return out


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per world and variant the mean and t interval over seeds; and against the default, paired by world and seed, the
    ratio of errors (geometric mean; t interval of the logarithm)."""
    runs = {(r["world"], r["seed"], r["variant"]): flat(r) for r in rows if r["variant"] != "references"}
    worlds, variants = (list(dict.fromkeys(key[i] for key in runs)) for i in (0, 2))
    table = {w: {v: over_seeds([f for (a, _, b), f in runs.items() if (a, b) == (w, v)]) for v in variants}
             for w in worlds}  # fmt: skip
    against: dict[str, Any] = {}
    for variant in variants:
        pairs = [(f, runs[w, s, "default"]) for (w, s, v), f in runs.items()
                 if v == variant != "default" and (w, s, "default") in runs]  # fmt: skip
        for name in [f"error_{k}_by_jumps" for k in COMPARED] + ["energy_100_by_jumps"] if pairs else []:
            logs = [math.log(max(a[name], 1e-9) / max(b[name], 1e-9)) for a, b in pairs if name in a and name in b]
            ends = [math.exp(v) for v in (fmean(logs), *t_interval(logs))]
            against.setdefault(variant, {})[name] = dict(zip(("ratio", "low", "high"), ends, strict=True))
            against[variant][name]["pairs"] = len(logs)
    return {"per_world": table, "against_default": against}


def over_seeds(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    out = {}
    for name in found[0] if found else []:
        values = [f[name] for f in found]
        low, high = t_interval(values)
        out[name] = {"mean": fmean(values), "low": low, "high": high}
    return out


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), help="any world where nobody acts and energy is")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64, help="windows of 11 observations per step")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--variants", nargs="+", default=[*VARIANTS, *CONTROLS], choices=[*VARIANTS, *CONTROLS])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep the runs that the last results file holds")
    parser.add_argument("--name", default="state", help="of the results file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = {k: getattr(args, k) for k in ("steps", "batch", "episodes")}
    results: dict[str, Any] = {"settings": settings | {"optim": OPTIM.model_dump(mode="json"), "size": SIZE}}
    rows = earlier(args.name, results["settings"]) if args.resume else []
    known = {(r["world"], r["seed"], r["variant"]) for r in rows}
    jobs = [Job(world, seed, variant, **settings)
            for seed in args.seeds for variant in ("references", *args.variants) for world in args.worlds
            if (world, seed, variant) not in known]  # fmt: skip
    for row in each(work, jobs, args.processes):
        rows.append(row)
        record.save(args.name, results | {"summary": summary(rows), "runs": rows})  # kept as it comes
        print(line(row), flush=True)
    return results | {"summary": summary(rows), "runs": rows}


def line(r: dict[str, Any]) -> str:
    """A run at a glance."""
    if r["variant"] == "references":
        return f"{r['world']} {r['seed']}: the simulator is off by {r['simulator_largest_error']:.1g}"
    f, errors = flat(r), " ".join(f"{r['jumps']['error'][str(k)]:.3g}" for k in COMPARED)
    return (f"{r['world']:14s} {r['seed']} {r['variant']:16s} least R2 {f['r2_least']:.4f}  spread {f['spread']:.3g}  "
            f"rank {f['rank']:.1f}  error {errors}  {f['seconds']} s")  # fmt: skip


def earlier(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of the newest results file of that name, where it was made with the same settings."""
    files = sorted(record.RESULTS.glob(f"{name}_cpu_*.json"))
    kept = json.loads(files[-1].read_text())["results"] if files else {}
    return kept["runs"] if kept.get("settings") == json.loads(json.dumps(settings)) else []


if __name__ == "__main__":
    main()
