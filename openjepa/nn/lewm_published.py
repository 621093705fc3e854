"""The world model LeWM exactly as its checkpoint holds it, behind our transformer: projector, actions, predictor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.rollout import recall
from openjepa.nn.encoder import Encoder


class _MLP(nn.Module):
    """Linear, batch norm, GELU, Linear: (N, D) -> (N, out)."""

    def __init__(self, dim: int, hidden: int, out: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _FeedForward(nn.Module):
    """Layer norm, Linear, GELU, (dropout), Linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        parts = nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim)
        self.net = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.to_out(out.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    """An adaptive block whose branches have a layer norm of their own behind the adaptive one."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp: int):
        super().__init__()
        self.attn = _Attention(dim, heads, head_dim)
        self.mlp = _FeedForward(dim, mlp)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(cond).chunk(6, -1)
        x = x + gate1 * self.attn(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2)


class _Actions(nn.Module):
    """Actions (B, t, A) as features (B, t, D)."""

    def __init__(self, action: int, smoothed: int, hidden: int, dim: int):
        super().__init__()
        self.patch_embed = nn.Conv1d(action, smoothed, 1)
        self.embed = nn.Sequential(nn.Linear(smoothed, hidden), nn.SiLU(), nn.Linear(hidden, dim))

    def forward(self, action: Tensor) -> Tensor:
        return self.embed(self.patch_embed(action.transpose(1, 2)).transpose(1, 2))


class _Transformer(nn.Module):
    """Adaptive blocks, then a layer norm."""

    def __init__(self, dim: int, depth: int, heads: int, head_dim: int, mlp: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(_Block(dim, heads, head_dim, mlp) for _ in range(depth))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        for block in self.layers:
            x = block(x, cond)
        return self.norm(x)


class _Predictor(nn.Module):
    """Learned positions in front of the transformer."""

    def __init__(self, history: int, dim: int, depth: int, heads: int, head_dim: int, mlp: int):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, history, dim))
        self.transformer = _Transformer(dim, depth, heads, head_dim, mlp)

    def forward(self, z: Tensor, cond: Tensor) -> Tensor:
        return self.transformer(z + self.pos_embedding[:, : z.shape[1]], cond)


class PublishedLeWM(nn.Module):
    """A world model that can dream: class token -> projector -> z (B, D); z and actions -> the next z.

    `encoder` is our ViT with a class token; the other parts have the published names: projector, action_encoder,
    predictor (learned positions, adaptive causal blocks, layer norm), pred_proj. For use in evaluation mode: dropout is
    left out. `openjepa.methods.LeWM` is the recipe.

    Source: github.com/lucas-maes/le-wm.

    >>> from openjepa.nn import build_encoder
    >>> vit = build_encoder({"name": "vit_micro/4", "cls": True}, size=8)
    >>> world = PublishedLeWM(vit, action=2, dim=96, history=3, depth=1, heads=2, head_dim=8, mlp=32, hidden=16).eval()
    >>> z = world.encode(torch.zeros(5, 3, 8, 8))
    >>> z.shape, world.step(z, torch.zeros(5, 2)).shape, world.unroll(z, torch.zeros(5, 4, 2)).shape
    (torch.Size([5, 96]), torch.Size([5, 96]), torch.Size([5, 4, 96]))
    """

    def __init__(
        self, encoder: Encoder, *, action: int, dim: int, history: int, depth: int, heads: int, head_dim: int, mlp: int,
        hidden: int, smoothed: int | None = None, action_hidden: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.history = encoder, history
        smoothed, action_hidden = smoothed or action, action_hidden or 4 * dim
        self.projector, self.pred_proj = _MLP(encoder.dim, hidden, dim), _MLP(dim, hidden, dim)
        self.action_encoder = _Actions(action, smoothed, action_hidden, dim)
        self.predictor = _Predictor(history, dim, depth, heads, head_dim, mlp)

    def encode(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)."""
        return self.projector(self.encoder(obs)[:, 0])

    def act(self, action: Tensor) -> Tensor:
        """Actions (B, t, A) as features (B, t, D)."""
        return self.action_encoder(action)

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """What follows each of the latents (B, t, D), under action features (B, t, D); t at most `history`."""
        x = self.predictor(z, action)
        return self.pred_proj(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return self.predict(z[:, None], self.act(action[:, None]))[:, 0]

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """(B, D), (B, K, A) -> (B, K, D): the own predictions are fed back, with `history` of them in view."""
        return recall(self.predict, z, self.act(actions), self.history)
