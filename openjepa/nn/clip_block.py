"""The transformer block of the clip networks: pre-norm, positions by turning q and k, an optional mask."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.layers import MLP, Attention, DropPath
from openjepa.nn.position3d import Turn, turn_pairs


class ClipAttention(Attention):
    """Multi-head self-attention over the tokens of a clip, (B, N, D) -> (B, N, D).

    turn   rotary factors of the N tokens, for q and k
    mask   (N, N) bool, which token (row) may see which (column); None: all see all
    first  only the first tokens of the sequence are answered, (B, first, D); all are seen

    >>> import torch
    >>> ClipAttention(12, heads=2)(torch.zeros(2, 5, 12), first=3).shape
    torch.Size([2, 3, 12])
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, turn: Turn | None = None, mask: Tensor | None = None, first: int | None = None
    ) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, d)
        v = qkv[:, :, 2]
        qk = qkv[:, :, :2] if turn is None else turn_pairs(qkv[:, :, :2], turn)
        q, k = qk.unbind(2)
        q = q if first is None else q[:, :first]
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, N, d)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))  # (B, N, D)


class ClipBlock(nn.Module):
    """x += attn(norm1(x)); x += mlp(norm2(x)); layer norms with eps 1e-6, exact GELU. Arguments as in `ClipAttention`.

    >>> import torch
    >>> ClipBlock(12, heads=2)(torch.zeros(2, 5, 12)).shape
    torch.Size([2, 5, 12])
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = ClipAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, round(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, turn: Turn | None = None, mask: Tensor | None = None, first: int | None = None
    ) -> Tensor:
        seen = self.attn(self.norm1(x), turn, mask, first)
        x = (x if first is None else x[:, :first]) + self.drop_path(seen)
        return x + self.drop_path(self.mlp(self.norm2(x)))
