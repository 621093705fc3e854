"""Heads on top of an encoder: the projector of joint-embedding methods, and linear classifiers."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.layers import MLP, BatchNorm, Block


class Projector(nn.Module):
    """MLP with batch norm: (Linear, BatchNorm, ReLU) x (layers - 1), then Linear; (..., dim) -> (..., out).

    Every leading axis counts as batch for the statistics, views included. `layers` counts the Linear maps; those in
    front of a batch norm have no bias, which it would remove. Batch norm here reduces over processes.

    >>> Projector(8, hidden=16, out=4)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, dim: int, hidden: int = 2048, out: int = 128, layers: int = 3):
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}. One layer is a plain linear map.")
        widths = [dim] + [hidden] * (layers - 1)
        hidden_layers = [
            nn.Sequential(nn.Linear(a, b, bias=False), BatchNorm(b), nn.ReLU(inplace=True)) for a, b in pairwise(widths)
        ]
        self.hidden = nn.Sequential(*hidden_layers)
        self.last = nn.Linear(widths[-1], out)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.last(self.hidden(x.flatten(0, -2)))  # (N, out)
        return flat.unflatten(0, x.shape[:-1])


class LinearHead(nn.Module):
    """A linear classifier behind a batch norm without scale and shift, (B, D) -> (B, classes).

    The batch norm makes the learning rate independent of the features' scale, which differs between methods by orders
    of magnitude (He et al. 2022, arXiv 2111.06377, appendix A.1). It also hides a collapse: look at
    the raw spread beside it.

    >>> LinearHead(8, classes=3)(torch.randn(4, 8)).shape
    torch.Size([4, 3])
    """

    def __init__(self, dim: int, classes: int):
        super().__init__()
        self.norm = BatchNorm(dim, affine=False)
        self.linear = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class AttentiveHead(nn.Module):
    """A classifier that looks at tokens through one learned query: (B, N, D) -> (B, classes).

    The query attends over all tokens (one cross-attention block with layer norm, a residual MLP of ratio 4), then a
    linear map; the query itself is not normed. `blocks` transformer blocks on the tokens come first: none in V-JEPA's
    frozen evaluation (Bardes et al. 2024, arXiv 2404.08471), three in that of V-JEPA 2 (arXiv 2506.09985). Differences:
    keys and values are projected together, and there is an output projection in place of one of the query.

    >>> AttentiveHead(8, classes=3, heads=2, blocks=3)(torch.randn(4, 5, 8)).shape
    torch.Size([4, 3])
    """

    def __init__(self, dim: int, classes: int, heads: int = 1, blocks: int = 0):
        super().__init__()
        if dim % heads:
            raise ValueError(f"width must be a multiple of heads, got width {dim} and {heads} heads. Change heads.")
        self.heads = heads
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(blocks))
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, 4 * dim)
        self.linear = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        b, n, d = tokens.shape
        k, v = self.kv(self.norm1(tokens)).view(b, n, 2, self.heads, d // self.heads).unbind(2)
        q = self.query.expand(b, 1, d).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, 1, d)
        out = F.scaled_dot_product_attention(q.to(k.dtype), k.transpose(1, 2), v.transpose(1, 2))
        x = self.query + self.proj(out.transpose(1, 2).reshape(b, 1, d))
        x = x + self.mlp(self.norm2(x))
        return self.linear(x[:, 0])  # (B, classes)
