"""Costs whose best plan is known, and one quick setting for every planner."""

from __future__ import annotations

import torch
from torch import Tensor

from openjepa.plan import PLANNERS, Bounds

CONTINUOUS = ["shooting", "cem", "icem", "mppi", "gradient", "mixed"]


def configs(horizon: int, **more) -> dict:
    """Settings under which every planner finds the bottom of a smooth bowl of a few dimensions."""
    common = {"horizon": horizon, **more}
    return {
        "shooting": PLANNERS["shooting"].config(samples=20000, **common),
        "cem": PLANNERS["cem"].config(samples=600, elites=60, iterations=60, momentum=0.3, **common),
        "icem": PLANNERS["icem"].config(
            samples=600, elites=60, iterations=60, decay=1.0, beta=0.5, momentum=0.3, **common
        ),
        "mppi": PLANNERS["mppi"].config(samples=400, iterations=60, adapt_std=True, std_floor=1e-3, **common),
        "gradient": PLANNERS["gradient"].config(iterations=300, samples=2, lr=0.03, **common),
        "mixed": PLANNERS["mixed"].config(
            cem={"samples": 400, "elites": 40, "iterations": 15, **common},
            gradient={"iterations": 100, "samples": 2, "lr": 0.01},
        ),
    }


def generators(batch: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + i) for i in range(batch)]


class Quadratic:
    """(a - target)' M (a - target) + level per episode, M positive definite over all H * A numbers."""

    def __init__(self, batch: int, horizon: int, actions: int, seed: int = 0, *, spread: float = 0.4) -> None:
        g = torch.Generator().manual_seed(seed)
        n = horizon * actions
        root = torch.randn(batch, n, n, generator=g)
        self.matrix = root @ root.mT / n + 0.3 * torch.eye(n)
        self.target = spread * torch.randn(batch, horizon, actions, generator=g)
        self.level = torch.randn(batch, generator=g)

    def __call__(self, actions: Tensor) -> Tensor:
        away = (actions - self.target[:, None]).flatten(2)  # (B, S, n)
        return torch.einsum("bsi,bij,bsj->bs", away, self.matrix, away) + self.level[:, None]

    def rows(self, keep: slice) -> Quadratic:
        part = object.__new__(Quadratic)
        part.matrix, part.target, part.level = self.matrix[keep], self.target[keep], self.level[keep]
        return part


class LinearQuadratic:
    """x' = A x + B u; cost sum over t of x_{t+1}' Q x_{t+1} + u_t' R u_t; the best plan by the Riccati recursion."""

    def __init__(self, batch: int, horizon: int = 6, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        dt = 0.3
        self.a = torch.tensor([[1, dt, 0, 0], [0, 1, 0, 0], [0, 0, 1, dt], [0, 0, 0, 1.0]])
        self.b = torch.tensor([[dt**2 / 2, 0], [dt, 0], [0, dt**2 / 2], [0, dt]])
        self.q, self.r = torch.diag(torch.tensor([2.0, 0.3, 2.0, 0.3])), 0.2 * torch.eye(2)
        self.x0, self.horizon = 0.4 * torch.randn(batch, 4, generator=g), horizon

    def __call__(self, actions: Tensor) -> Tensor:
        x = self.x0[:, None].expand(-1, actions.shape[1], -1)  # (B, S, 4)
        total = actions.new_zeros(actions.shape[:2])
        for t in range(self.horizon):
            u = actions[:, :, t]
            x = x @ self.a.T + u @ self.b.T
            total = total + ((x @ self.q) * x).sum(-1) + ((u @ self.r) * u).sum(-1)
        return total

    def best(self) -> Tensor:
        """(B, H, 2)."""
        gains, p = [], torch.zeros(4, 4)
        for _ in range(self.horizon):
            s = self.q + p  # what the next state costs, from the next step on
            k = torch.linalg.solve(self.r + self.b.T @ s @ self.b, self.b.T @ s @ self.a)
            p = self.a.T @ s @ (self.a - self.b @ k)
            gains.append(k)
        x, plan = self.x0, []
        for k in reversed(gains):
            u = -x @ k.T
            plan.append(u)
            x = x @ self.a.T + u @ self.b.T
        return torch.stack(plan, 1)


def wide(actions: int) -> Bounds:
    return Bounds.box([-10.0] * actions, [10.0] * actions)
