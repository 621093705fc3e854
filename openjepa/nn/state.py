"""Small networks on vectors: MLPs, encoders of states with hidden variables, embeddings of actions and of horizons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from openjepa.core.types import check_shape


def mlp(inside: int, hidden: int, out: int, layers: int = 2, norm: bool = False) -> nn.Sequential:
    """`layers` Linear maps with SiLU between them, and a layer norm in front of each SiLU with `norm`.

    >>> mlp(3, 8, 2)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}. One layer is a plain linear map.")
    widths = [inside] + [hidden] * (layers - 1)
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.SiLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], out))


class StateEncoder(nn.Module):
    """A state with some variables hidden, (..., S) -> (..., D): fill, tell which are hidden, MLP.

    fill       what stands in a hidden variable's place: "token", a learned number per variable, or "zero"
    indicator  give the network the mask too, as S more inputs
    """

    token: Tensor | None

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        width: int = 256,
        layers: int = 3,
        fill: Literal["token", "zero"] = "token",
        indicator: bool = True,
    ):
        super().__init__()
        self.size, self.dim, self.indicator = size, dim, indicator
        self.token = nn.Parameter(0.02 * torch.randn(size)) if fill == "token" else None
        self.net = mlp(size * (1 + indicator), width, dim, layers)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x (..., S); hidden (..., S) bool, True where the variable must not be seen (None: all are seen)."""
        if x.shape[-1] != self.size:
            raise ValueError(f"observations must have {self.size} variables, got {tuple(x.shape)}.")
        if hidden is not None:
            x = x.masked_fill(hidden, 0.0) if self.token is None else torch.where(hidden, self.token, x)
        if self.indicator:
            x = torch.cat([x, torch.zeros_like(x) if hidden is None else hidden.to(x.dtype)], -1)  # (..., 2 S)
        return self.net(x)


class HorizonEmbedding(nn.Module):
    """How far ahead to look, as features: a number of steps -> (dim,).

    linear      Linear(1 -> dim) of k / (longest horizon): any k may be asked for
    sinusoidal  fixed sines and cosines of k, wavelengths from 2 pi up to 2 pi times the longest horizon
    table       one learned row per trained horizon: others raise

    >>> HorizonEmbedding((1, 2, 4))(2).shape
    torch.Size([4])
    """

    scale: Tensor

    def __init__(self, horizons: Sequence[int], kind: str = "linear", dim: int = 4):
        super().__init__()
        self.horizons, self.kind = tuple(horizons), kind
        if kind == "linear":
            self.net: nn.Module = nn.Linear(1, dim)
        elif kind == "table":
            self.net = nn.Embedding(len(self.horizons), dim)
        elif kind == "sinusoidal" and dim % 2 == 0:
            self.net = nn.Identity()
            half = torch.arange(dim // 2) / max(1, dim // 2 - 1)
            self.register_buffer("scale", max(horizons) ** -half, persistent=False)
        else:
            raise ValueError(
                f"horizon embedding must be linear, table or sinusoidal of even width, got {kind!r} of width {dim}."
            )

    def forward(self, k: int) -> Tensor:
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        if self.kind == "linear":
            return self.net(torch.full((1,), k / max(self.horizons), device=device))
        if self.kind == "sinusoidal":
            return torch.cat([(k * self.scale).sin(), (k * self.scale).cos()])
        if k not in self.horizons:
            raise ValueError(f"k must be one of the trained horizons {self.horizons}, got {k}. Use linear.")
        return self.net(torch.tensor(self.horizons.index(k), device=device))


class StretchEmbedding(nn.Module):
    """Up to `longest` actions in a row as features, (..., k, A) -> (..., dim).

    One Linear over the actions side by side, zeros after the k-th; the order of the actions is kept.

    >>> StretchEmbedding(2, longest=4, dim=8)(torch.zeros(5, 3, 2)).shape
    torch.Size([5, 8])
    """

    def __init__(self, action: int, longest: int, dim: int):
        super().__init__()
        self.longest = longest
        self.net = nn.Linear(action * longest, dim)

    def forward(self, actions: Tensor) -> Tensor:
        missing = self.longest - actions.shape[-2]
        return self.net(nn.functional.pad(actions, (0, 0, 0, missing)).flatten(-2))


class InverseModel(nn.Module):
    """The action between two latents: [z_t, z_{t+1}] -> a_t; (..., D), (..., D) -> (..., A).

    >>> InverseModel(8, 2)(torch.zeros(5, 8), torch.zeros(5, 8)).shape
    torch.Size([5, 2])
    """

    def __init__(self, dim: int, action: int, width: int = 256):
        super().__init__()
        self.net = mlp(2 * dim, width, action, layers=3)

    def forward(self, z: Tensor, after: Tensor) -> Tensor:
        return self.net(torch.cat([z, after], -1))


class ActionEncoder(nn.Module):
    """Actions as features: Linear(A -> narrow), Linear(narrow -> hidden), SiLU, Linear(hidden -> dim); (..., A) in.

    The narrow first map is LeWM's pointwise convolution.

    >>> ActionEncoder(2, dim=16)(torch.zeros(5, 3, 2)).shape
    torch.Size([5, 3, 16])
    """

    def __init__(self, action: int, dim: int, *, narrow: int = 10, hidden: int = 768):
        super().__init__()
        if action < 1:
            raise ValueError(f"action must have at least 1 number, got {action}. This network needs a world that acts.")
        self.first = nn.Linear(action, narrow)
        self.net = mlp(narrow, hidden, dim)

    def forward(self, action: Tensor) -> Tensor:
        return self.net(self.first(action))


class GRUStep(nn.Module):
    """One step in the latent, with z as the memory of a GRU and the action as its input: (B, D), (B, A) -> (B, D).

        u = sigmoid(.), n = tanh(.);   z' = (1 - u) n + u z

    Features beyond [-1, 1] can only shrink: a norm behind it gives them their scale back.

    >>> GRUStep(8, 2)(torch.zeros(5, 8), torch.zeros(5, 2)).shape
    torch.Size([5, 8])
    """

    def __init__(self, dim: int, action: int):
        super().__init__()
        self.cell = nn.GRUCell(max(1, action), dim)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        if action.shape[-1] == 0:  # nobody acts: a constant input
            action = action.new_zeros(*action.shape[:-1], 1)
        return self.cell(action, z)


class MLPStep(nn.Module):
    """One step by an MLP: z' = z + f([z, a]), or f([z, a]) without `residual`; (B, D), (B, A) -> (B, D).

    >>> MLPStep(8, 2)(torch.zeros(5, 8), torch.zeros(5, 2)).shape
    torch.Size([5, 8])
    """

    def __init__(self, dim: int, action: int, *, width: int = 512, layers: int = 3, residual: bool = True):
        super().__init__()
        self.residual = residual
        self.net = mlp(dim + action, width, dim, layers, norm=True)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        check_shape("action", action, (z.shape[0], "A"))
        change = self.net(torch.cat([z, action], -1))
        return z + change if self.residual else change
