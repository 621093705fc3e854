"""Real people: eight observed positions, twelve to predict, and a scene that nothing was fitted on.

    python -m benchmarks.pedestrians --data eth-ucy    # five scenes, three seeds: some ten core-minutes
    python -m benchmarks.pedestrians --data eth-ucy --scenes zara1 --seeds 0 --steps 100 --name try

Protocol   ETH and UCY at 2.5 Hz, leave one scene out as Social GAN (arXiv 1803.10892) groups them: eth, hotel, univ
           (students001 and students003), zara1, zara2; crowds_zara03 and uni_examples only ever train. Every window of
           20 frames of one person counts. ADE: mean distance over the twelve steps, metres; FDE: that of the last; the
           mean over windows of a scene, then over the five scenes.
Frame      Each window is shifted to its last observed position and turned until the last observed step points along
           x, as is usual (AgentFormer, arXiv 2103.14023), and seen from a frame that goes on with that step: standing
           still there is constant velocity. In training it is also mirrored half of the time. Distances stay.
State      The method `state` sees, at each frame, the position in that frame, the last seven displacements and the
           speed of the frame. It jumps 1 .. 12 steps from the last observed frame, one application each; positions are
           read off the dreamt z by a ridge regression that was fitted on z of training frames (`state`), or by one
           that was fitted on dreamt z of training windows against their true futures (`state, probe`: supervised, the
           model stays frozen). Settings were chosen with crowds_zara03 and uni_examples held out (`--scenes tune`).
Samples    No model here is stochastic. Twenty futures are a model's own prediction plus its own errors on training
           windows: those of 20 of the 100 (of 4,000) training windows whose observed steps are most alike. All models
           get the errors of the same windows. Constant velocity also stands with the angular noise of Scholler et al.
           (arXiv 1903.07933; 25 degrees).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from benchmarks import record
from benchmarks.jobs import each
from openjepa.core.compare import mse
from openjepa.core.rollout import rollout
from openjepa.core.types import Clock, Seen, Space, Terms, Windows
from openjepa.data.episodes import EpisodeConfig, Episodes, open_episodes
from openjepa.methods import Method, total
from openjepa.methods.state import StateConfig, StateJEPA
from openjepa.nn.state import mlp
from openjepa.probe.intervals import t_interval
from openjepa.probe.ridge import ridge
from openjepa.train.optim import make_optimizer, set_rates
from openjepa.train.run import OptimConfig

SCENES = {
    "eth": ("biwi_eth",), "hotel": ("biwi_hotel",), "univ": ("students001", "students003"),
    "zara1": ("crowds_zara01",), "zara2": ("crowds_zara02",), "tune": ("crowds_zara03", "uni_examples"),
}  # fmt: skip
SEEN, AHEAD, SAMPLES, ALIKE = 8, 12, 20, 100
POOL = 4000  # training windows that readouts are fitted on, and that errors are taken from
LEARNT = ("mlp", "state", "state, probe")
NOISE = math.radians(25.0)
OPTIM = OptimConfig(lr=2e-3, weight_decay=1e-4, clip=1.0)
STATE: dict[str, Any] = {
    "horizons": tuple(range(1, AHEAD + 1)), "window": AHEAD + 1, "dim": 32, "mask_share": 0.0, "teacher": "none",
}  # fmt: skip
NAMES = ("x", "y", *(f"v{axis}{i}" for i in range(SEEN - 1) for axis in "xy"), "speed")
TIMES = torch.arange(1 - SEEN, AHEAD + 1)  # steps from the last observed frame


class Tracks(NamedTuple):
    """N windows of one person each, in metres, each in a frame of its own that moves on with its last observed step."""

    place: Tensor  # (N, 20, 2), zero at the last observed frame and at the one before it
    speed: Tensor  # (N, 1) metres per step of the frame, along x
    person: Tensor  # (N,) whose track it is cut from

    @property
    def future(self) -> Tensor:
        """(N, 12, 2)"""
        return self.place[:, SEEN:]

    def some(self, rows: Tensor | slice) -> Tracks:
        return Tracks(self.place[rows], self.speed[rows], self.person[rows])


def tracks(episodes: Episodes, groups: Sequence[str]) -> Tracks:
    """Every window of 20 frames of the persons of some scenes."""
    long, found, person = SEEN + AHEAD, [], []
    for i, group in enumerate(episodes.groups or ()):
        if group in groups and episodes.lengths[i] >= long:
            found.append(np.lib.stride_tricks.sliding_window_view(episodes[i].state, long, axis=0).transpose(0, 2, 1))
            person.append(np.full(len(found[-1]), i))
    place, speed = own_frame(torch.from_numpy(np.concatenate(found)))
    return Tracks(place.float(), speed.float(), torch.from_numpy(np.concatenate(person)))


def own_frame(place: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 20, 2) anywhere -> seen from a frame that goes on with the last observed step, along x; its speed."""
    place = place - place[:, SEEN - 1 : SEEN]
    step = -place[:, SEEN - 2]
    angle = torch.atan2(step[:, 1], step[:, 0])  # 0 for who stands still
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    x, y = place.unbind(-1)
    speed = step.norm(dim=-1, keepdim=True)
    return torch.stack([c * x + s * y - speed * TIMES, c * y - s * x], -1), speed


def observations(seen: Tracks) -> Tensor:
    """(N, 13, 17): at the last observed frame and the twelve after it, position, seven displacements, speed."""
    steps = seen.place.diff(dim=1).unfold(1, SEEN - 1, 1).transpose(2, 3).flatten(2)  # (N, 13, 14), the oldest first
    return torch.cat([seen.place[:, SEEN - 1 :], steps, seen.speed[:, None].expand(-1, AHEAD + 1, 1)], -1)


def now(seen: Tracks) -> Tensor:
    """The last observed frame, (N, 17): nothing of the future."""
    steps = seen.place[:, :SEEN].diff(dim=1).flatten(1)
    return torch.cat([torch.zeros_like(seen.place[:, 0]), steps, seen.speed], -1)


def mirrored(seen: Tracks, generator: torch.Generator) -> Tracks:
    """Half of the windows seen in a mirror that stands along their heading."""
    sign = torch.randint(2, (len(seen.place), 1), generator=generator) * 2.0 - 1
    return seen._replace(place=torch.stack([seen.place[..., 0], sign * seen.place[..., 1]], -1))


# --------------------------------------------------------------------------------------------------------- the models
class DirectMLP(Method):
    """The observed frame -> all twelve positions at once: supervised, no latent. Zero is constant velocity."""

    cfg: Any
    eats = "windows"

    def __init__(self, width: int = 160) -> None:
        super().__init__()
        self.weights = {"predict": 1.0}
        self.net = mlp(len(NAMES), width, 2 * AHEAD, layers=3)

    def losses(self, batch: Windows, clock: Clock) -> tuple[Terms, Seen]:
        return {"predict": mse(self.encode(batch.obs[:, 0]), batch.obs[:, 1:, :2].flatten(1))}, {}

    def encode(self, obs: Tensor) -> Tensor:
        return self.net(obs)


def fit(method: Method, train: Tracks, spread: Tensor, *, steps: int, batch: int, seed: int) -> float:
    """Train on random windows; the processor seconds it took."""
    optimizer, begin = make_optimizer(method, OPTIM), time.process_time()
    for step in range(steps):
        clock = Clock(step, steps, seed)
        rows = torch.randint(len(train.place), (batch,), generator=clock.generator("rows"))
        obs = observations(mirrored(train.some(rows), clock.generator("mirror"))) / spread
        nothing = obs.new_zeros(batch, AHEAD, 0)
        terms, _ = method(Windows(obs, nothing, obs.new_zeros(batch, AHEAD + 1, 0), rows), clock)
        set_rates(optimizer, OPTIM, step, steps)
        optimizer.zero_grad()
        total(terms, method.weights).backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), OPTIM.clip or math.inf)
        optimizer.step()
        method.after_step(clock)
    method.eval()
    return time.process_time() - begin


Forecast = Callable[[Tracks], Tensor]  # windows, of which the first eight frames are looked at -> (N, 12, 2)


def copy_last(seen: Tracks) -> Tensor:
    back = -seen.speed * TIMES[SEEN:]
    return torch.stack([back, torch.zeros_like(back)], -1)


def constant_velocity(seen: Tracks) -> Tensor:
    return torch.zeros_like(seen.place[:, SEEN:])


def of_mlp(method: DirectMLP, spread: Tensor) -> Forecast:
    return lambda seen: method.encode(now(seen) / spread).unflatten(1, (AHEAD, 2)) * spread[:2]


def of_state(method: StateJEPA, pool: Tracks, spread: Tensor) -> dict[str, Forecast]:
    """The two ways to read positions off what is dreamt."""
    z = method.encode(observations(pool) / spread)  # (N, 13, D)
    reader = ridge(z.flatten(0, 1), pool.place[:, SEEN - 1 :].flatten(0, 1))
    probe = ridge(dream(method, now(pool) / spread).flatten(1), pool.future.flatten(1))

    def jumps(seen: Tracks) -> Tensor:
        start = now(seen) / spread
        return reader(dream(method, start)) - reader(method.encode(start))[:, None]  # it is at the origin now

    def probed(seen: Tracks) -> Tensor:
        return probe(dream(method, now(seen) / spread).flatten(1)).unflatten(1, (AHEAD, 2))

    return {"state": jumps, "state, probe": probed}


def dream(method: StateJEPA, obs: Tensor) -> Tensor:
    """(N, 17) -> z of the twelve steps after it, (N, 12, D)."""
    return rollout(method, method.encode(obs), obs.new_zeros(len(obs), AHEAD, 0))


# -------------------------------------------------------------------------------------------------------- the numbers
def errors(futures: Tensor, true: Tensor) -> Tensor:
    """(N, S, 12, 2) against (N, 12, 2) -> (N, 2): the least ADE and the least FDE of S futures, each by itself."""
    apart = (futures - true[:, None]).norm(dim=-1)
    return torch.stack([apart.mean(-1).amin(1), apart[..., -1].amin(1)], -1)


def alike(test: Tracks, pool: Tracks, seed: int) -> Tensor:
    """For every test window 20 of the 100 windows of the pool whose observed frame is nearest, (N, 20)."""
    g, b = torch.Generator().manual_seed(seed), now(pool)
    near = [torch.cdist(part, b).topk(min(ALIKE, len(b)), largest=False).indices for part in now(test).split(2000)]
    rows = torch.cat(near)
    chosen = torch.rand(rows.shape, generator=g).argsort(1)[:, :SAMPLES]
    return rows.gather(1, chosen)


def score(forecast: Forecast, test: Tracks, pool: Tracks, near: Tensor) -> Tensor:
    """(N, 4): ADE, FDE, and the least of 20 samples of each."""
    predicted = forecast(test)
    own = pool.future - forecast(pool)  # what it errs by where the answer was known
    parts = zip(predicted.split(2000), test.future.split(2000), near.split(2000), strict=True)
    least = torch.cat([errors(p[:, None] + own[rows], true) for p, true, rows in parts])
    return torch.cat([errors(predicted[:, None], test.future), least], -1)


def turned(test: Tracks, seed: int) -> Tensor:
    """(N, 2) least ADE and FDE of constant velocity under 20 random angles."""
    g = torch.Generator().manual_seed(seed)
    angle = NOISE * torch.randn(len(test.place), SAMPLES, 1, generator=g)
    ahead = test.speed[:, :, None] * TIMES[SEEN:]  # (N, 1, 12) along x, seen by who stands still
    futures = torch.stack([(angle.cos() - 1) * ahead, angle.sin() * ahead], -1)
    return errors(futures, test.future)


@torch.no_grad()
def plain(test: Tracks, pool: Tracks, near: Tensor, seed: int) -> dict[str, Tensor]:
    found = {"copy-last": score(copy_last, test, pool, near)}
    found["constant velocity"] = score(constant_velocity, test, pool, near)
    angles = torch.cat([found["constant velocity"][:, :2], turned(test, seed)], -1)
    return found | {"constant velocity, angles": angles}


class Job(NamedTuple):
    """One scene and one seed."""

    scene: str
    seed: int
    path: str
    steps: int
    batch: int
    state: dict[str, Any]


def work(job: Job) -> dict[str, Any]:
    """Errors of every model on one scene; and per person, what each errs by more than constant velocity."""
    torch.set_num_threads(1)
    seed, episodes = job.seed, open_episodes(EpisodeConfig(path=job.path))
    test = tracks(episodes, SCENES[job.scene])
    train = tracks(episodes, sorted(set(episodes.groups or ()) - set(SCENES[job.scene])))
    pool = train.some(torch.randperm(len(train.place), generator=torch.Generator().manual_seed(seed))[:POOL])
    row: dict[str, Any] = {"scene": job.scene, "seed": seed, "train_windows": len(train.place)}
    row |= {"test_windows": len(test.place), "test_persons": len(test.person.unique())}
    near, spread = alike(test, pool, seed), observations(pool).flatten(0, 1).std(0)
    found = plain(test, pool, near, seed)
    torch.manual_seed(seed)
    net, model = DirectMLP(), StateJEPA(StateConfig(**STATE | job.state), space=Space((len(NAMES),), 0, NAMES))
    for name, method in (("mlp", net), ("state", model)):
        row[f"{name}_seconds"] = round(fit(method, train, spread, steps=job.steps, batch=job.batch, seed=seed), 1)
        row[f"{name}_weights"] = sum(p.numel() for p in method.parameters() if p.requires_grad)
    with torch.no_grad():
        for name, forecast in {"mlp": of_mlp(net, spread), **of_state(model, pool, spread)}.items():
            found[name] = score(forecast, test, pool, near)
    row["errors"] = {name: e.mean(0).tolist() for name, e in found.items()}
    base = found["constant velocity"]
    return row | {"apart": {name: by_person(e - base, test) for name, e in found.items() if name in LEARNT}}


def by_person(found: Tensor, test: Tracks) -> Tensor:
    """(N, K) -> (persons, K + 1): sums over the windows of each person, and how many they are."""
    _, group = test.person.unique(return_inverse=True)
    rows = torch.cat([found.double(), torch.ones(len(found), 1, dtype=torch.float64)], -1)
    return torch.zeros(int(group.max()) + 1, rows.shape[1], dtype=torch.float64).index_add_(0, group, rows)


def difference(scenes: Sequence[Tensor], resamples: int = 2000) -> dict[str, list[float]]:
    """Mean over scenes of differences (persons, K + 1), with a 95 % interval that draws persons within each scene."""
    g, drawn = torch.Generator().manual_seed(0), []
    for rows in scenes:
        pick = torch.randint(len(rows), (resamples, len(rows)), generator=g)
        sums = rows[pick].sum(1)
        drawn.append(sums[:, :-1] / sums[:, -1:])
    value = torch.stack([r.sum(0)[:-1] / r.sum(0)[-1] for r in scenes]).mean(0)
    ends = torch.stack(drawn).mean(0).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return {"value": value.tolist(), "low": ends[0].tolist(), "high": ends[1].tolist()}


NUMBERS = ("ADE", "FDE", "minADE20", "minFDE20")


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over scenes for each seed, t interval over seeds; and against constant velocity, paired by window."""
    seeds, scenes = (list(dict.fromkeys(r[key] for r in rows)) for key in ("seed", "scene"))
    seeds = [s for s in seeds if {r["scene"] for r in rows if r["seed"] == s} == set(scenes)]
    out: dict[str, Any] = {"scenes": scenes, "seeds": seeds, "average": {}, "against constant velocity": {}}
    for model in rows[0]["errors"]:
        cells: dict[str, Any] = {}
        for i, name in enumerate(NUMBERS):
            each = [float(np.mean([r["errors"][model][i] for r in rows if r["seed"] == s])) for s in seeds]
            low, high = t_interval(each)
            cells[name] = {"mean": float(np.mean(each)), "low": low, "high": high}
        out["average"][model] = cells
    for model in LEARNT:
        each_scene = [torch.stack([r["apart"][model] for r in rows if r["scene"] == s]).mean(0) for s in scenes]
        found = difference(each_scene)
        columns = zip(*found.values(), strict=True)
        out["against constant velocity"][model] = {
            name: dict(zip(found, column, strict=True)) for name, column in zip(NUMBERS, columns, strict=True)
        }
    return out


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="eth-ucy", help="folder of the eight text files, also below $OPENJEPA_DATA")
    parser.add_argument("--scenes", nargs="+", default=[s for s in SCENES if s != "tune"], choices=list(SCENES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--state", type=json.loads, default={}, help="settings of `state` that differ, as JSON")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--name", default="pedestrians", help="of the results file")
    args = parser.parse_args(arguments)
    path = Path(args.data) if Path(args.data).exists() else Path(os.environ.get("OPENJEPA_DATA", ".")) / args.data
    settings = {"steps": args.steps, "batch": args.batch, "optim": OPTIM.model_dump(mode="json")}
    settings["state"] = STATE | args.state
    jobs = [Job(scene, seed, str(path), args.steps, args.batch, args.state)
            for seed in args.seeds for scene in args.scenes]  # fmt: skip
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    for row in each(work, jobs, args.processes):
        rows.append(row)
        print(*(f"{k} {v}" for k, v in row.items() if k not in ("errors", "apart")), flush=True)
        print(*(f"    {m}: {' '.join(f'{v:.3f}' for v in e)}" for m, e in row["errors"].items()), sep="\n", flush=True)
        if len(rows) % len(args.scenes) == 0:  # kept as it comes
            plain_rows = [{k: v for k, v in r.items() if k != "apart"} for r in rows]
            results = {"settings": settings, "summary": summary(rows), "runs": plain_rows}
            record.save(args.name, results)
    for model, cells in results["summary"]["average"].items():
        shown = [f"{n} {c['mean']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for n, c in cells.items()]
        print(f"{model:26s}", "  ".join(shown))
    for model, cells in results["summary"]["against constant velocity"].items():
        shown = [f"{n} {c['value']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for n, c in cells.items()]
        print(f"{model:12s} less c. velocity", "  ".join(shown))
    return results


if __name__ == "__main__":
    main()
