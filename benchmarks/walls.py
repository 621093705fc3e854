"""What a world model of Two Rooms believes of walls: a dot is pushed at one, and at the door, and the model is asked.

    python -m benchmarks.walls RUN [RUN ...]                                  # a minute each
    python -m benchmarks.walls RUN --again 3000 --policy bumps                # and with its predictor trained on, alone
    python -m benchmarks.walls RUN --again 8000 --keep NEW                    # which is kept, as a run to plan with

The dot begins 5 to 9 px from the middle of the wall, away from the door or in front of it, and is pushed straight at it
at nine tenths of the full speed for four steps of the model. `wrong_side` is how often the imagined dot ends on another
side of the wall's middle than the true one, `error` the mean error of x and y in pixels. Place and layout are read from
z by an MLP that is fitted to the states of fresh episodes: z is what the model knows, the MLP only says it.

`--again` answers whether z holds enough: the predictor is trained for so many steps of 384 windows on the latents of
1,000 fresh episodes, which stay as they are, with the loss of the recipe.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.record import save
from openjepa.app.dreaming import Dreamer, dreamer
from openjepa.app.runs import Run
from openjepa.core.compare import mse
from openjepa.data.episodes.scale import Scale
from openjepa.train import checkpoint
from openjepa.worlds import make_policy

LENGTH, STEPS, SIDES = 100, 4, 2000  # of fresh episodes; of the model, pushed; dots


class Asked:
    """A model, its world, and a reader of its latents."""

    def __init__(self, run: str, *, policy: str, episodes: int, seed: int) -> None:
        self.found: Dreamer = dreamer(Run(Path(run)), torch.device("cpu"))
        self.model: Any = self.found.model
        self.world: Any = self.found.world(None)
        self.scale = Scale.from_dict(self.found.preprocess)
        self.rng = np.random.default_rng(seed)
        states, actions = self.episodes(policy, episodes)
        self.z = self.encode(states.reshape(-1, 4)).unflatten(0, states.shape[:2])  # (E, T, D)
        self.actions = self.scale.action(torch.from_numpy(actions).float())
        self.read = reader(self.z.flatten(0, 1), torch.from_numpy(states).float().flatten(0, 1), seed)

    def episodes(self, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        policy, states, actions = make_policy(name, self.world), [self.world.reset(count, self.rng)], []
        for _ in range(LENGTH - 1):
            actions.append(policy.act(states[-1], self.rng))
            states.append(self.world.step(states[-1], actions[-1]))
        return np.stack(states, 1), np.stack(actions, 1)

    @torch.no_grad()
    def encode(self, states: np.ndarray) -> Tensor:
        parts = np.array_split(states, max(1, len(states) // 250))
        seen = (torch.from_numpy(self.world.observe(part)).permute(0, 3, 1, 2) for part in parts)
        return torch.cat([self.model.encode(self.scale.observation(x)) for x in seen])

    def pushed(self) -> dict[str, dict[str, float]]:
        """At the wall and at the door, see the head of this file."""
        world, rng, unit = self.world, self.rng, self.world.unit
        states = world.reset(SIDES, rng)
        side, door = np.sign(rng.standard_normal(SIDES)), np.arange(SIDES) < SIDES // 2
        states[:, 0] = states[:, 2] + side * unit * rng.uniform(5, 9, SIDES)
        states[door, 1] = states[door, 3] + unit * rng.uniform(-1, 1, door.sum())
        kept = door | (np.abs(states[:, 1] - states[:, 3]) > 8 * unit)
        states, side, door = states[kept], side[kept], door[kept]
        push = np.zeros((len(states), STEPS * self.found.skip, 2))
        push[..., 0] = -0.9 * world.high[0] * side[:, None]
        true = states
        for action in push.swapaxes(0, 1):
            true = world.step(true, action)
        actions = self.scale.action(torch.from_numpy(push).float()).reshape(len(push), STEPS, -1)
        with torch.no_grad():
            imagined = self.read(self.model.unroll(self.encode(states), actions)[:, -1]).numpy()
        wrong = np.sign(imagined[:, 0] - true[:, 2]) != np.sign(true[:, 0] - true[:, 2])
        error = np.abs(imagined[:, :2] - true[:, :2]).mean(1) / unit
        return {
            name: {"wrong_side": round(float(wrong[rows].mean()), 3), "error": round(float(error[rows].mean()), 2),
                   "crossed": round(float((np.sign(true[:, 0] - true[:, 2]) != side)[rows].mean()), 3),
                   "dots": int(rows.sum())}
            for name, rows in (("wall", ~door), ("door", door))
        }  # fmt: skip

    def train_on(self, steps: int, seed: int, lr: float = 2e-3, batch: int = 384) -> None:
        """The predictor alone, on latents that stay as they are."""
        g, skip, k = torch.Generator().manual_seed(seed), self.found.skip, self.model.cfg.unroll
        net = self.model.predictor.train().requires_grad_(True)
        optim = torch.optim.Adam(net.parameters(), lr)
        rate = torch.optim.lr_scheduler.OneCycleLR(optim, lr, total_steps=steps + 1, pct_start=0.03)
        for _ in range(steps):
            rows = torch.randint(len(self.z), (batch, 1), generator=g)
            first = torch.randint(LENGTH - k * skip, (batch, 1), generator=g)
            z = self.z[rows, first + skip * torch.arange(k + 1)]
            actions = self.actions[rows, first + torch.arange(k * skip)].reshape(batch, k, -1)
            loss = mse(self.model.futures(z[:, 0], actions), z[None, :, 1:])
            optim.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            optim.step()
            rate.step()
        net.eval()

    def keep(self, out: Path) -> None:
        """The run with the predictor as it is now, in a folder of its own."""
        run = self.found.run.path
        old = checkpoint.newest_good(run / "checkpoints")
        assert old is not None
        shutil.copytree(run, out, ignore=shutil.ignore_patterns("checkpoints", "plan", "eval"))
        parts = {**checkpoint.read_parts(old), "predictor": self.model.predictor.state_dict()}
        config = json.loads((old / "config.json").read_text(encoding="utf-8"))
        checkpoint.write(out / "checkpoints", checkpoint.step_of(old), parts, config, checkpoint.read_training(old))


def reader(z: Tensor, states: Tensor, seed: int, steps: int = 4000) -> Any:
    """An MLP from latents to states, in their own units."""
    mean, std = states.mean(0), states.std(0).clamp_min(1e-3)  # a wall that never moves has no spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(z.shape[1], 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))
        optim = torch.optim.Adam(net.parameters(), 1e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
        for _ in range(steps):
            rows = torch.randint(len(z), (512,))
            loss = mse(net(z[rows]), (states[rows] - mean) / std)
            optim.zero_grad(set_to_none=True)
            loss.backward()
            optim.step()
            rate.step()
    return lambda z: net(z) * std + mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs on two-rooms")
    parser.add_argument("--policy", default="bumps", help="of the fresh episodes")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--again", type=int, default=0, help="steps of training the predictor alone")
    parser.add_argument("--keep", help="new folder for the run with its predictor trained on; of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="all", help="name of this part in the results file")
    args = parser.parse_args()
    if args.keep and (len(args.runs) > 1 or not args.again or Path(args.keep).exists()):
        parser.error("--keep must name a new folder, for one run and with --again")
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "settings": {k: v for k, v in vars(args).items() if k not in ("runs", "keep")},
        "runs": {},
    }
    for run in args.runs:
        asked = Asked(run, policy=args.policy, episodes=args.episodes, seed=args.seed)
        rows = {"as it is": asked.pushed()}
        if args.again:
            asked.train_on(args.again, args.seed)
            rows["predictor trained on"] = asked.pushed()
            if args.keep:
                asked.keep(Path(args.keep))
        name = Path(run).name
        results["runs"][name] = {"seed": asked.found.run.config.seed, "rows": rows}
        for what, row in rows.items():
            print(f"{name}, {what}: {row}", flush=True)
    print("saved", save(f"walls-{args.part}", results))


if __name__ == "__main__":
    main()
