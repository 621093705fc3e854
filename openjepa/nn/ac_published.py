"""The predictor of V-JEPA 2-AC exactly as its checkpoint holds it: names, rotary slip and camera tokens included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openjepa.nn.causal import frame_causal
from openjepa.nn.clip_block import ClipBlock
from openjepa.nn.layers import init_transformer
from openjepa.nn.position import Grid
from openjepa.nn.position3d import Turn, coordinates, turn_3d


class PublishedACPredictor(nn.Module):
    """Patches of the next frame at every frame: z (B, T, N, D), actions (B, T, A), states (B, T, P) -> (B, T, N, D).

    Each frame is the tokens [action, state, (camera), N patches], each from one Linear; a token sees its own frame and
    the earlier ones. Patches are turned by time, row and column, the others by time alone, which moves only the first
    third of a head's features; in the tiled form of V-JEPA 2. Rows and columns count in patches of the `grid` trained
    on: on another grid they are scaled so that a picture has the same extent.

    z is layer-normed without weights (`openjepa.core.compare.whiten_tokens`), and so must be what comes out before it
    is fed back. The camera token is there only when `extrinsics` (B, T, E) are given.

    Source: arXiv 2506.09985 and its code. `openjepa.nn.ACPredictor` is the form that our own recipe trains.

    >>> net = PublishedACPredictor(12, (2, 2), width=24, depth=1, heads=2)
    >>> net(torch.zeros(2, 3, 4, 12), torch.zeros(2, 3, 7), torch.zeros(2, 3, 7)).shape
    torch.Size([2, 3, 4, 12])
    """

    checkpoint: bool = False

    def __init__(
        self, dim: int, grid: Grid, *, action: int = 7, state: int = 7, extrinsics: int = 6, width: int = 1024,
        depth: int = 24, heads: int = 16,
    ):  # fmt: skip
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width {width} and {heads} heads. Change one.")
        self.grid, self.head_dim = grid, width // heads
        self.predictor_embed = nn.Linear(dim, width)
        self.action_encoder = nn.Linear(action, width)
        self.state_encoder = nn.Linear(state, width)
        self.extrinsics_encoder = nn.Linear(extrinsics, width)
        self.predictor_blocks = nn.ModuleList(ClipBlock(width, heads) for _ in range(depth))
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor_proj = nn.Linear(width, dim)
        init_transformer(self)

    @property
    def blocks(self) -> nn.ModuleList:
        """The residual blocks in order: units for sharding and recomputation."""
        return self.predictor_blocks

    def forward(
        self, z: Tensor, action: Tensor, state: Tensor, extrinsics: Tensor | None = None, *, grid: Grid | None = None
    ) -> Tensor:
        """`grid` (h, w) of the frames, where it is not the one trained on."""
        _, t, n, _ = z.shape
        grid = grid or self.grid
        if n != grid[0] * grid[1]:
            raise ValueError(f"frames must have {grid[0]} x {grid[1]} patches, got {n}. Give their grid.")
        told = [self.action_encoder(action), self.state_encoder(state)]
        told += [] if extrinsics is None else [self.extrinsics_encoder(extrinsics)]
        front = torch.stack(told, 2)  # (B, T, 2 or 3, W)
        x = torch.cat([front, self.predictor_embed(z)], 2).flatten(1, 2)  # (B, T (front + N), W)
        turn = self.turn(t, grid, len(told), z.device)
        mask = frame_causal(t, len(told) + n, z.device)
        for block in self.predictor_blocks:
            x = self._run(block, x, turn, mask)
        x = x.unflatten(1, (t, -1))[:, :, len(told) :]
        return self.predictor_proj(self.predictor_norm(x))  # (B, T, N, D)

    def turn(self, frames: int, grid: Grid, front: int, device: torch.device | None = None) -> Turn:
        """Rotary factors of all tokens, T (front + N) of them."""
        place = coordinates((frames, *grid), device).unflatten(0, (frames, -1))  # (T, N, 3)
        place = place * torch.tensor([1.0, self.grid[0] / grid[0], self.grid[1] / grid[1]], device=place.device)
        ahead = torch.zeros(frames, front, 3, device=place.device)
        ahead[..., 0] = torch.arange(frames, device=place.device)[:, None]
        return turn_3d(self.head_dim, torch.cat([ahead, place], 1).flatten(0, 1), "tiled")

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)
