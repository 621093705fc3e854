"""The frame-causal predictor of V-JEPA 2-AC: action, state and patch tokens with rotary positions in three axes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openjepa.nn.causal import MaskedBlock, frame_causal
from openjepa.nn.layers import init_transformer
from openjepa.nn.position import Grid, Rotation


def rotation_3d(dim: int, frames: int, grid: Grid, prefix: int, device: torch.device | None = None) -> Rotation:
    """cos and sin of the rotary angles of every token of a clip, (T (prefix + h w), dim / 2), float32.

    A third of the angles turns with time, a third with the row, a third with the column, position * 10000^(-i / n) for
    angle i of n = dim // 6; what is left over stays. The `prefix` tokens in front of each frame's patches have a time
    but no place: only their time angles turn.

    Source: V-JEPA 2, arXiv 2506.09985. Difference: pairs are (i, i + dim / 2), as in `openjepa.nn.position.rotate`.

    >>> cos, sin = rotation_3d(12, 2, (1, 2), prefix=1)
    >>> cos.shape, (sin != 0).int().sum(1).tolist()
    (torch.Size([6, 6]), [0, 0, 2, 2, 2, 4])
    """
    n = dim // 6
    if n < 1 or dim % 2:
        raise ValueError(f"width / heads must be even and at least 6 for positions in three axes, got {dim}.")
    (h, w), f = grid, 10000.0 ** (-torch.arange(n, dtype=torch.float32, device=device) / n)
    angle = torch.zeros(frames, prefix + h * w, dim // 2, device=device)
    angle[..., :n] = torch.arange(frames, device=device)[:, None, None] * f
    cell = torch.arange(h * w, device=device)
    angle[:, prefix:, n : 2 * n] = (cell // w)[:, None] * f
    angle[:, prefix:, 2 * n : 3 * n] = (cell % w)[:, None] * f
    angle = angle.flatten(0, 1)  # (T (prefix + h w), dim / 2)
    return angle.cos(), angle.sin()


class ACPredictor(nn.Module):
    """Patches of the next frame at every frame: z (B, T, N, D), actions (B, T, A), states (B, T, P) -> (B, T, N, D).

    Each frame is the tokens [action, state, N patches], each from one Linear (no action or state token where A or P is
    0). Every token sees its own frame and the earlier ones. Pre-norm blocks, layer norm, Linear back to D.

    >>> net = ACPredictor(8, (2, 2), action=2, state=3, width=24, depth=1, heads=2)
    >>> net(torch.zeros(2, 3, 4, 8), torch.zeros(2, 3, 2), torch.zeros(2, 3, 3)).shape
    torch.Size([2, 3, 4, 8])
    """

    checkpoint: bool = False

    def __init__(
        self, dim: int, grid: Grid, *, action: int, state: int, width: int = 1024, depth: int = 24, heads: int = 16
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width {width} and {heads} heads. Change one.")
        self.grid, self.head_dim = grid, width // heads
        rotation_3d(self.head_dim, 1, (1, 1), 0)  # refuses a width that cannot be turned
        self.embed = nn.Linear(dim, width)
        self.action = nn.Linear(action, width) if action else None
        self.state = nn.Linear(state, width) if state else None
        self.blocks = nn.ModuleList(MaskedBlock(width, heads, self.head_dim, 4 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Linear(width, dim)
        init_transformer(self.embed)
        init_transformer(self.proj)

    def forward(self, z: Tensor, action: Tensor, state: Tensor) -> Tensor:
        _, t, n, _ = z.shape
        if n != self.grid[0] * self.grid[1]:
            raise ValueError(
                f"frames must have {self.grid[0]} x {self.grid[1]} patches, got {n}. Keep the picture size."
            )
        parts = [net(x)[:, :, None] for net, x in ((self.action, action), (self.state, state)) if net is not None]
        prefix = len(parts)
        x = torch.cat([*parts, self.embed(z)], 2).flatten(1, 2)  # (B, T (prefix + N), W)
        turn = rotation_3d(self.head_dim, t, self.grid, prefix, z.device)
        mask = frame_causal(t, prefix + n, z.device)
        for block in self.blocks:
            x = self._run(block, x, mask, turn)
        x = self.norm(x).unflatten(1, (t, prefix + n))[:, :, prefix:]
        return self.proj(x)  # (B, T, N, D)

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)
