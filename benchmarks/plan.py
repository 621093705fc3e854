"""Planning throughput: plans per second at CEM 300 x 30, horizon 5, for latent models of about 15 M parameters.

    python -m benchmarks.plan [--device cuda] [--quick]

Also cost against samples, horizon and batch of episodes; against a loop over episodes; and against torchrl's CEM on the
same model, where torchrl is installed. One thread on a CPU. Sizes that would take minutes are measured with fewer
iterations, which every row states: time is proportional to them, and the row `proportional` shows how nearly.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.record import save
from openjepa.plan import Bounds, CEMConfig, cem
from openjepa.plan.cost import LatentGoal, ModelCost

DIM, ACTION, HISTORY = 192, 10, 3  # as LeWM: 192 features, 5 world actions of 2 numbers, 3 latents of context
FULL = CEMConfig(horizon=5, samples=300, iterations=30, elites=30)


class MLP(nn.Module):
    """z + f(z, a), f of `layers` hidden layers."""

    def __init__(self, width: int, layers: int, dim: int = DIM) -> None:
        super().__init__()
        sizes = [dim + ACTION] + [width] * layers
        hidden = [m for i in range(layers) for m in (nn.Linear(sizes[i], sizes[i + 1]), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, dim))

    def encode(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return z + self.net(torch.cat([z, action], -1))


class Transformer(nn.Module):
    """A causal transformer over the last latents, actions added: 3 latents of context, recomputed at every step."""

    def __init__(self, width: int = 448, layers: int = 6) -> None:
        super().__init__()
        self.into, self.act, self.out = nn.Linear(DIM, width), nn.Linear(ACTION, width), nn.Linear(width, DIM)
        layer = nn.TransformerEncoderLayer(
            width, 8, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )  # fmt: skip
        self.net = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def encode(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return self.unroll(z, action[:, None])[:, 0]

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        past = [z]
        for k in range(actions.shape[1]):
            window = torch.stack(past[-HISTORY:], 1)  # (B, up to 3, D)
            near = actions[:, max(0, k + 1 - HISTORY) : k + 1]
            mask = nn.Transformer.generate_square_subsequent_mask(window.shape[1], device=z.device)
            x = self.net(self.into(window) + self.act(near), mask=mask, is_causal=True)
            past.append(past[-1] + self.out(x[:, -1]))
        return torch.stack(past[1:], 1)


def plan(model: nn.Module, batch: int, cfg: CEMConfig, device: str) -> Callable[[], None]:
    """All episodes at once."""
    z, goal = (torch.randn(batch, DIM, device=device) for _ in range(2))
    bounds = Bounds.box([-2.0] * ACTION, [2.0] * ACTION).to(device)
    generator = torch.Generator(device).manual_seed(0)
    return lambda: cem(ModelCost(model, z, [LatentGoal(goal)]), bounds, cfg, generator, batch=batch) and None


def loop(model: nn.Module, batch: int, cfg: CEMConfig, device: str) -> Callable[[], None]:
    """One episode after the other."""
    one = plan(model, 1, cfg, device)
    return lambda: [one() for _ in range(batch)] and None


def rival(model: nn.Module, batch: int, cfg: CEMConfig, device: str) -> Callable[[], None] | None:
    """torchrl's CEM with the same model, samples, elites, iterations and horizon; None where it is not installed."""
    try:
        from benchmarks.plan_torchrl import planner
    except ImportError:
        return None
    return planner(model, batch, cfg, DIM, ACTION, device)


def seconds(run: Callable[[], None], rounds: int, device: str) -> dict[str, float]:
    """Median wall-clock and processor seconds of `run`."""
    wall, busy = [], []
    with torch.no_grad():
        for _ in range(rounds):
            w, p = time.perf_counter(), time.process_time()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            wall.append(time.perf_counter() - w)
            busy.append(time.process_time() - p)
    return {"seconds": round(statistics.median(wall), 4), "processor_seconds": round(statistics.median(busy), 4)}


def row(what: str, name: str, model: nn.Module, cfg: CEMConfig, batch: int, device: str, make=plan, rounds=1) -> dict:
    """One measurement, printed as it comes; plans per second by the clock and by the processor."""
    run = make(model, batch, cfg, device)
    if run is None:
        return {}
    with torch.no_grad():
        make(model, batch, cfg.model_copy(update={"iterations": 1, "samples": 30}), device)()  # warm
    out = {"what": what, "model": name, "parameters_m": round(sum(p.numel() for p in model.parameters()) / 1e6, 2)}
    out |= {k: getattr(cfg, k) for k in ("samples", "iterations", "horizon")} | {"episodes": batch}
    out |= seconds(run, rounds, device)
    busy = out["processor_seconds"] if device == "cpu" else out["seconds"]
    out["plans_per_second"] = round(batch / busy, 4)
    steps = batch * cfg.samples * cfg.iterations * cfg.horizon
    out["model_steps_per_second"] = round(steps / busy)
    print("  ".join(f"{k} {v}" for k, v in out.items()), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="the small model alone; writes nothing")
    given = parser.parse_args()
    device, gpu = given.device, given.device == "cuda"
    torch.manual_seed(0)
    if not gpu:
        torch.set_num_threads(1)
    small = MLP(128, 2).to(device).eval()
    rows, rounds = [], 3
    for what, make in (("together", plan), ("loop", loop), ("torchrl", rival)):
        rows.append(row(what, "MLP small", small, FULL.model_copy(update={"iterations": 10}), 8, device, make, rounds))
    if not given.quick:
        mlp, transformer = MLP(1536, 7).to(device).eval(), Transformer().to(device).eval()
        few = FULL if gpu else FULL.model_copy(update={"iterations": 2})
        rows.append(row("headline", "MLP", mlp, FULL, 1, device))
        rows.append(row("proportional", "MLP", mlp, few, 1, device))
        rows.append(row("headline", "transformer", transformer, few, 1, device))
        for what, make in (("together", plan), ("loop", loop), ("torchrl", rival)):
            rows.append(row(what, "MLP", mlp, few, 4, device, make))
        for key, values in {"samples": (75, 150, 600), "horizon": (1, 2, 10)}.items():
            for value in values:
                rows.append(row(key, "MLP", mlp, few.model_copy(update={key: value, "elites": 30}), 1, device))
        for batch in (2, 8, *((32, 128) if gpu else ())):
            rows.append(row("episodes", "MLP", mlp, few, batch, device))
        print(save("plan", {"rows": [r for r in rows if r]}, device=device))


if __name__ == "__main__":
    main()
