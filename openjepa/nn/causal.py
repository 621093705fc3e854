"""Transformers that may not look ahead: masked attention, blocks, predictors over latents and over frames of tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.layers import init_transformer
from openjepa.nn.position import Rotation, rotate


def frame_causal(frames: int, tokens: int, device: torch.device | None = None) -> Tensor:
    """Which token may see which, (T N, T N) bool: all those of its own frame and of earlier ones.

    >>> frame_causal(2, 2).int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    frame = torch.arange(frames, device=device).repeat_interleave(tokens)
    return frame[:, None] >= frame[None]


class MaskedAttention(nn.Module):
    """Multi-head self-attention under a mask, with heads of any width: (B, N, D) -> (B, N, D).

    Without `mask` (N, N) every token sees itself and those before it.

    >>> MaskedAttention(8, heads=3, head_dim=4)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, heads: int, head_dim: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, N, d)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        drop = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop, is_causal=mask is None)
        return self.proj(out.transpose(1, 2).flatten(2))  # (B, N, D)


class MaskedBlock(nn.Module):
    """Pre-norm block under a mask: x += attn(norm1(x)); x += mlp(norm2(x)), dropout on both branches.

    With `cond` (width of a condition) it is an adaptive block: both norms lose their weights, and shift, scale and gate
    of both branches come from one Linear of silu(condition) that starts at zero, so that the block starts as the
    identity (adaLN-zero; Peebles and Xie, arXiv 2212.09748).
    """

    def __init__(self, dim: int, heads: int, head_dim: int, mlp: int, dropout: float = 0.0, cond: int | None = None):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=cond is None)
        self.attn = MaskedAttention(dim, heads, head_dim, dropout)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=cond is None)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp, dim), nn.Dropout(dropout)
        )
        self.drop = nn.Dropout(dropout)
        self.modulation = nn.Linear(cond, 6 * dim) if cond is not None else None
        init_transformer(self.attn)
        init_transformer(self.mlp)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None, cond: Tensor | None = None
    ) -> Tensor:
        """x (B, N, D); cond (B, N, E), for adaptive blocks."""
        if self.modulation is None:
            x = x + self.drop(self.attn(self.norm1(x), mask, rotation))
            return x + self.mlp(self.norm2(x))
        assert cond is not None
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(cond)).chunk(6, -1)
        x = x + gate1 * self.drop(self.attn(self.norm1(x) * (1 + scale1) + shift1, mask, rotation))
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class ActionTransformer(nn.Module):
    """The next latent at every time of a short history: z (B, T, D), action features (B, T, E) -> (B, T, D).

    Learned positions, causal blocks that actions modulate by adaptive norms, layer norm. Output t has seen z and
    actions up to t, and stands for z_{t+1}; T is at most `history`.

    Source: LeWM (6 layers, 16 heads of 64, MLP 2048, dropout 0.1, history 3).

    >>> net = ActionTransformer(16, 4, history=3, depth=1, heads=2, head_dim=8, mlp=32)
    >>> net(torch.zeros(2, 3, 16), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 16])
    """

    def __init__(
        self,
        dim: int,
        cond: int,
        *,
        history: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.history = history
        self.position = nn.Parameter(torch.empty(history, dim))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(MaskedBlock(dim, heads, head_dim, mlp, dropout, cond) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        t = z.shape[1]
        if t > self.history:
            raise ValueError(f"z must hold at most {self.history} time steps, got {t}. Raise history, or cut it.")
        x = self.drop(z + self.position[:t])
        for block in self.blocks:
            x = block(x, cond=action)
        return self.norm(x)  # (B, T, D)


class CausalStep(nn.Module):
    """`ActionTransformer` behind a Linear on the actions, as a step: z (B, D), action (B, A) -> (B, D).

    `over` takes a short history instead, (B, t, D) and (B, t, A) -> (B, t, D). Where nobody acts, A = 0, the condition
    is a constant.

    >>> net = CausalStep(16, 2, history=3, depth=1, heads=2, head_dim=8, mlp=32)
    >>> net(torch.zeros(5, 16), torch.zeros(5, 2)).shape, net.over(torch.zeros(5, 3, 16), torch.zeros(5, 3, 2)).shape
    (torch.Size([5, 16]), torch.Size([5, 3, 16]))
    """

    def __init__(self, dim: int, action: int, *, history: int, depth: int, heads: int, head_dim: int, mlp: int):
        super().__init__()
        self.history = history
        self.action = nn.Linear(max(1, action), dim)
        self.net = ActionTransformer(dim, dim, history=history, depth=depth, heads=heads, head_dim=head_dim, mlp=mlp)

    def over(self, z: Tensor, actions: Tensor) -> Tensor:
        if actions.shape[-1] == 0:
            actions = actions.new_ones(*actions.shape[:-1], 1)
        return self.net(z, self.action(actions))

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return self.over(z[:, None], action[:, None])[:, 0]


class FrameTransformer(nn.Module):
    """The next frame's tokens at every frame of a short history: (B, T, N, W) -> (B, T, N, W), T at most `history`.

    Every token sees its own frame and the earlier ones. Learned position of every token of every frame, pre-norm
    blocks, layer norm. Output t has seen frames up to t, and stands for frame t + 1.

    Source: DINO-WM, arXiv 2411.04983 (6 layers, 16 heads of 64, MLP 2048, dropout 0.1, history 3).

    >>> FrameTransformer(16, 4, history=3, depth=1, heads=2, head_dim=8, mlp=32)(torch.zeros(2, 3, 4, 16)).shape
    torch.Size([2, 3, 4, 16])
    """

    def __init__(
        self, dim: int, tokens: int, *, history: int, depth: int, heads: int, head_dim: int, mlp: int,
        dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.history = history
        self.position = nn.Parameter(torch.empty(history, tokens, dim))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(MaskedBlock(dim, heads, head_dim, mlp, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        _, t, n, _ = x.shape
        if t > self.history or n != self.position.shape[1]:
            raise ValueError(
                f"frames must be at most {self.history} of {self.position.shape[1]} tokens, got {t} of {n}. "
                "Raise history, or give pictures of the size the model was built for."
            )
        mask = frame_causal(t, n, x.device)
        x = self.drop(x + self.position[:t]).flatten(1, 2)  # (B, T N, W)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x).unflatten(1, (t, n))  # (B, T, N, W)
