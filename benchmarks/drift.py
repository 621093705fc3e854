"""How far does a rollout of a hundred steps stray, in a JEPA's latent and in pixels, at the same size and cost?

    python -m benchmarks.drift                            # three seeds
    python -m benchmarks.drift --seeds 0 --steps 20 --name try

World      one room of 33 x 33 pixels, a dot that walks; a step of the models is three of the world's. The preset
           `one-room-pldm`, its data and optimiser. Both kinds see the same windows in the same order.
JEPA       PLDM, some steps; its processor seconds are the budget of the others
pixels     a conv net picture -> next picture under the action, x' = x + f(x, a), about as many weights (the inverse
           model of PLDM, which does not predict, counts as weights of PLDM). Trained by mean squared error of pixels,
           unrolled over the four steps of each window as PLDM is (`pixels, unrolled`), or on single steps (`pixels`)
Measured   64 episodes that nobody learnt from, drawn with a seed of their own: from their first frame and the actions
           alone 100 steps ahead. Where the dot is, in pixels of the picture: off z by a ridge regression or a small MLP
           fitted on z of training frames; off imagined pictures by the centre of the dot's channel, or by the same two
           readouts fitted on training pictures. Mean distance to the true place over episodes, beside copy-last and a
           guess at the mean place. A readout's error on what was really seen is its own floor.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import record
from benchmarks.jobs import each
from openjepa.core.compare import mse
from openjepa.core.rollout import rollout
from openjepa.core.types import Clock, Space, Windows
from openjepa.data.episodes import EpisodeConfig, WindowStream, open_episodes
from openjepa.methods import Method, total
from openjepa.methods.pldm import PLDM, PLDMConfig
from openjepa.nn.state import mlp
from openjepa.presets.worlds import one_room_pldm
from openjepa.probe.intervals import t_interval
from openjepa.probe.ridge import ridge
from openjepa.train.optim import make_optimizer, set_rates
from openjepa.train.run import OptimConfig

AHEAD, EPISODES, LEARN = 100, 64, 4000
READ_STEPS = 600  # that the small MLP readout is fitted for
SHOWN = (1, 2, 5, 10, 25, 50, 100)  # steps ahead that are printed
Read = Callable[[Tensor], Tensor]  # z or pictures (N, ...) -> places (N, 2)


class PixelNet(nn.Module):
    """Picture (B, C, H, W) and action (B, A) -> the next picture: x + f(x, a), as `Dynamics` in pixels.

    f halves the picture once, works there with the action as a scale and shift of every channel, and comes back.
    """

    def __init__(self, channels: int, action: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(2))
        self.act = mlp(action, 64, 8 * width)
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def encode(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        fine = F.silu(self.first(z))
        x = F.silu(self.down(fine))
        turns = self.act(action)[..., None, None].chunk(4, 1)  # (B, 2 width, 1, 1) each
        for conv, scale, shift in zip(self.inner, turns[::2], turns[1::2], strict=True):
            x = x + F.silu(conv(x) * (1 + scale) + shift)
        x = F.interpolate(F.silu(self.up(x)), size=z.shape[-2:], mode="bilinear", align_corners=False)
        return z + self.last(x + fine)


def pixel_net(space: Space, weights: int) -> PixelNet:
    """The one whose number of weights comes nearest."""
    nets = (PixelNet(space.obs[0], space.action, width) for width in range(4, 65))
    return min(nets, key=lambda net: abs(count(net) - weights))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def pixel_loss(net: PixelNet, batch: Windows, unrolled: bool) -> Tensor:
    if unrolled:
        return mse(rollout(net, batch.obs[:, 0], batch.action), batch.obs[:, 1:])
    return mse(net.step(batch.obs[:, :-1].flatten(0, 1), batch.action.flatten(0, 1)), batch.obs[:, 1:].flatten(0, 1))


def train(module: nn.Module, loss: Callable[[Windows, Clock], Tensor], stream: WindowStream, optim: OptimConfig,
          progress: Iterator[float]) -> tuple[int, float]:  # fmt: skip
    """Until `progress`, the share that is done, ends; steps made and processor seconds spent."""
    optimizer, begin, step = make_optimizer(module, optim), time.process_time(), 0
    for done, batch in zip(progress, stream.batches(), strict=False):
        set_rates(optimizer, optim, round(1000 * done), 1000)
        optimizer.zero_grad()
        loss(batch, Clock(step, seed=stream.seed)).backward()
        nn.utils.clip_grad_norm_(module.parameters(), optim.clip or math.inf)
        optimizer.step()
        step += 1
    module.eval()
    return step, time.process_time() - begin


def by_steps(steps: int) -> Iterator[float]:
    yield from (step / steps for step in range(steps))


def by_time(seconds: float) -> Iterator[float]:
    begin = time.process_time()
    while (done := (time.process_time() - begin) / seconds) < 1:
        yield done


# ---------------------------------------------------------------------------------------------------------- measuring
def readouts(x: Tensor, place: Tensor, seed: int) -> dict[str, Read]:
    """Place read off x (N, ...) by a ridge regression and by a small MLP, both fitted on these rows."""
    flat = x.flatten(1)
    mean, std = flat.mean(0), flat.std(0).clamp_min(1e-3)
    middle, spread = place.mean(0), place.std(0)
    torch.manual_seed(seed)
    net = mlp(flat.shape[1], 64, 2, layers=3)
    solver = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-4)
    g, steps = torch.Generator().manual_seed(seed), READ_STEPS
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.randint(len(flat), (128,), generator=g)
            solver.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
            solver.zero_grad()
            mse(net((flat[rows] - mean) / std), (place[rows] - middle) / spread).backward()
            solver.step()
    linear = ridge(flat, place)
    return {"ridge": lambda z: linear(z.flatten(1)),
            "mlp": lambda z: net((z.flatten(1) - mean) / std) * spread + middle}  # fmt: skip


def centre(background: Tensor) -> Read:
    """Centre of what stands out from the background of the dot's channel, (H, W)."""

    def read(pictures: Tensor) -> Tensor:
        over = (pictures[:, 0] - background).clamp_min(0)
        over = torch.where(over > over.amax((1, 2), keepdim=True) / 4, over, 0.0)  # leaves out faint ghosts
        mass = over.sum((1, 2)).clamp_min(1e-9)
        ys, xs = (torch.arange(n, dtype=over.dtype) for n in over.shape[1:])
        return torch.stack([(over.sum(1) * xs).sum(1) / mass, (over.sum(2) * ys).sum(1) / mass], -1)

    return read


@torch.no_grad()
def measure(model: Any, sees: Tensor, knows: Tensor, obs: Tensor, action: Tensor, place: Tensor, seed: int,
            pixels: bool) -> dict[str, Any]:  # fmt: skip
    """Mean distance at every step, per readout, and the readout's own floor.

    sees, knows  training observations (N, C, H, W) and true places (N, 2);  obs (E, 101, C, H, W), action (E, 100, A)
    """
    reads = readouts(torch.cat([model.encode(x) for x in sees.split(500)]), knows, seed)
    if pixels:
        reads["centre"] = centre(sees[:, 0].amin(0))
    future = rollout(model, model.encode(obs[:, 0]), action)  # (E, 100, ...)
    seen = torch.cat([model.encode(x) for x in obs.flatten(0, 1).split(500)])
    out: dict[str, Any] = {}
    for name, read in reads.items():
        apart = (read(future.flatten(0, 1)).unflatten(0, future.shape[:2]) - place[:, 1:]).norm(dim=-1)
        floor = (read(seen) - place.flatten(0, 1)).norm(dim=-1).mean()
        out[name] = {"floor": float(floor), "mean": apart.mean(0).tolist(), "median": apart.median(0).values.tolist()}
    if pixels:
        peak = (future[:, :, 0] - sees[:, 0].amin(0)).amax((2, 3)) / (obs[:, 1:, 0] - sees[:, 0].amin(0)).amax((2, 3))
        out["brightness of the dot"] = peak.mean(0).tolist()
    return out


def scene(seed: int, window: Any, batch: int) -> tuple[WindowStream, dict[str, Tensor]]:
    """The preset's stream for a seed, and what is measured on."""
    data = one_room_pldm()["data"]
    cfg = EpisodeConfig(**data, seed=seed)
    stream = WindowStream(open_episodes(cfg), window, cfg=cfg, batch_size=batch, seed=seed)
    frames = stream.episodes.keep(stream.split.train).rows()
    some = np.random.default_rng(seed).permutation(frames)[:LEARN]
    other = EpisodeConfig(**{**data, "episodes": EPISODES, "steps": AHEAD * window.skip}, seed=10_000 + seed)
    found = open_episodes(other)
    whole = [found[i] for i in range(EPISODES)]
    obs = torch.from_numpy(np.stack([e.obs[:: window.skip] for e in whole])).movedim(-1, -3)
    taken = np.stack([e.action[:-1].reshape(AHEAD, -1) for e in whole])
    pictures = torch.from_numpy(np.ascontiguousarray(stream.episodes.obs[some])).movedim(-1, -3)
    return stream, {
        "sees": stream.scale.observation(pictures.contiguous()),
        "knows": torch.from_numpy(stream.episodes.state[some, :2]).float(),
        "obs": stream.scale.observation(obs.contiguous()),
        "action": stream.scale.action(torch.from_numpy(taken)),
        "place": torch.from_numpy(np.stack([e.state[:: window.skip, :2] for e in whole])).float(),
    }


def work(job: tuple[int, int]) -> dict[str, Any]:
    """All models of one seed, the JEPA trained for so many steps."""
    seed, steps = job
    torch.set_num_threads(1)
    preset = one_room_pldm()
    cfg, optim = PLDMConfig(**preset["method"]), OptimConfig(**preset["optim"])
    stream, on = scene(seed, cfg.window, preset["batch_size"])
    torch.manual_seed(seed)
    jepa: Method = PLDM(cfg, space=stream.space)

    def jepa_loss(batch: Windows, clock: Clock) -> Tensor:
        return total(jepa(batch, clock)[0], jepa.weights)

    made, seconds = train(jepa, jepa_loss, stream, optim, by_steps(steps))
    runs = {"jepa": {"weights": count(jepa), "steps": made, "seconds": round(seconds, 1),
                     **measure(jepa, **on, seed=seed, pixels=False)}}  # fmt: skip
    print(line(seed, "jepa", runs["jepa"]), flush=True)
    for name, unrolled in (("pixels, unrolled", True), ("pixels", False)):
        torch.manual_seed(seed)
        net = pixel_net(stream.space, count(jepa))
        made, spent = train(
            net, lambda batch, _, u=unrolled, n=net: pixel_loss(n, batch, u), stream, optim, by_time(seconds)
        )  # fmt: skip
        runs[name] = {"weights": count(net), "steps": made, "seconds": round(spent, 1),
                      **measure(net, **on, seed=seed, pixels=True)}  # fmt: skip
        print(line(seed, name, runs[name]), flush=True)
    stream.close()
    place = on["place"]
    for name, guess in (("copy-last", place[:, :1]), ("mean place", on["knows"].mean(0))):
        apart = (guess - place[:, 1:]).norm(dim=-1)
        runs[name] = {"guess": {"mean": apart.mean(0).tolist(), "median": apart.median(0).values.tolist()}}
    return {"seed": seed, "models": runs}


def line(seed: int, name: str, run: dict[str, Any]) -> str:
    """A model at a glance: mean distances at some steps, per readout."""
    head = f"seed {seed} {name}: {run['weights']:,} weights, {run['steps']} steps, {run['seconds']} s"
    rows = [f"    {r:8s} reads to {v['floor']:.2f}; " + " ".join(f"{v['mean'][k - 1]:.2f}" for k in SHOWN)
            for r, v in run.items() if isinstance(v, dict)]  # fmt: skip
    return "\n".join([head, *rows])


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean distance over seeds with its t interval, for every model, readout and step."""
    out: dict[str, Any] = {}
    for name, model in runs[0]["models"].items():
        for read in (r for r, v in model.items() if isinstance(v, dict)):
            curves = np.array([r["models"][name][read]["mean"] for r in runs])  # (seeds, 100)
            ends = [t_interval(c.tolist()) for c in curves.T]
            out.setdefault(name, {})[read] = {
                "mean": curves.mean(0).tolist(), "low": [e.low for e in ends], "high": [e.high for e in ends],
            }  # fmt: skip
    return out


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=one_room_pldm()["budget"]["steps"], help="of the JEPA")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--name", default="drift", help="of the results file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    jobs = [(seed, args.steps) for seed in args.seeds]
    for run in each(work, jobs, args.processes):
        runs.append(run)
        results = {"settings": {"steps": args.steps, "preset": one_room_pldm()}, "summary": summary(runs), "runs": runs}
        record.save(args.name, results)  # kept as it comes
    for name, reads in results["summary"].items():
        for read, c in reads.items():
            cells = "  ".join(
                f"+{k} {c['mean'][k - 1]:.2f} [{c['low'][k - 1]:.2f}, {c['high'][k - 1]:.2f}]" for k in SHOWN
            )
            print(f"{name:18s}{read:8s}{cells}")
    return results


if __name__ == "__main__":
    main()
