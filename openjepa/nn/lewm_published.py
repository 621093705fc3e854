"""The world model LeWM exactly as its checkpoint holds it, behind our transformer: projector, actions, predictor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.rollout import recall
from openjepa.nn.encoder import Encoder


class _Inside(nn.Module):
    """What a published MLP or transformer calls `net`, `layers` and so on: a named place for a module."""

    net: nn.Sequential


def _mlp(dim: int, hidden: int, out: int) -> nn.Module:
    part = _Inside()
    part.net = nn.Sequential(nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, out))
    return part


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
        self.mlp = _Inside()
        self.mlp.net = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, mlp), nn.GELU(), nn.Identity(), nn.Linear(mlp, dim)
        )
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(cond).chunk(6, -1)
        x = x + gate1 * self.attn(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp.net(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2)


class PublishedLeWM(nn.Module):
    """A world model that can dream: class token -> projector -> z (B, D); z and actions -> the next z.

    `encoder` is our ViT with a class token; the other parts have the published names: projector, action_encoder,
    predictor (learned positions, adaptive causal blocks, layer norm), pred_proj. The heads'
    inner width is free, as published. For use in evaluation mode: dropout is left out. `openjepa.methods.LeWM` is the recipe.

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
        self.projector, self.pred_proj = _mlp(encoder.dim, hidden, dim), _mlp(dim, hidden, dim)
        self.action_encoder = nn.Module()
        self.action_encoder.patch_embed = nn.Conv1d(action, smoothed, 1)
        self.action_encoder.embed = nn.Sequential(
            nn.Linear(smoothed, action_hidden), nn.SiLU(), nn.Linear(action_hidden, dim)
        )
        self.predictor = nn.Module()
        self.predictor.pos_embedding = nn.Parameter(torch.zeros(1, history, dim))
        self.predictor.transformer = nn.Module()
        self.predictor.transformer.norm = nn.LayerNorm(dim)
        self.predictor.transformer.layers = nn.ModuleList(_Block(dim, heads, head_dim, mlp) for _ in range(depth))

    def encode(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)."""
        return self.projector.net(self.encoder(obs)[:, 0])  # type: ignore[operator, union-attr]

    def act(self, action: Tensor) -> Tensor:
        """Actions (B, t, A) as features (B, t, D)."""
        parts = self.action_encoder
        return parts.embed(parts.patch_embed(action.transpose(1, 2)).transpose(1, 2))  # type: ignore[operator]

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """What follows each of the latents (B, t, D), under action features (B, t, D); t at most `history`."""
        inner = self.predictor.transformer
        x = z + self.predictor.pos_embedding[:, : z.shape[1]]  # type: ignore[index]
        for block in inner.layers:  # type: ignore[union-attr]
            x = block(x, action)
        x = inner.norm(x)  # type: ignore[operator, union-attr]
        return self.pred_proj.net(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # type: ignore[operator, union-attr]

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return self.predict(z[:, None], self.act(action[:, None]))[:, 0]

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """(B, D), (B, K, A) -> (B, K, D): the own predictions are fed back, with `history` of them in view."""
        return recall(self.predict, z, self.act(actions), self.history)
