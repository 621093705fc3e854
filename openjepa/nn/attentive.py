"""The attentive classifiers of V-JEPA and V-JEPA 2 exactly as their checkpoints hold them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.clip_block import ClipBlock
from openjepa.nn.layers import MLP


class CrossAttention(nn.Module):
    """Queries (B, Q, D) that look at tokens (B, N, D); no output projection."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        k, v = self.kv(tokens).unflatten(-1, (2, self.heads, -1)).unbind(2)
        q = self.q(query).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, Q, d)
        out = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2))
        return out.transpose(1, 2).flatten(2)  # (B, Q, D)


class CrossBlock(nn.Module):
    """q += xattn(q, norm1(tokens)); q += mlp(norm2(q)). The queries themselves are not normed before they look."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.xattn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        query = query + self.xattn(query, self.norm1(tokens))
        return query + self.mlp(self.norm2(query))


class Pooler(nn.Module):
    """Self-attention blocks on the tokens, if any, then one query that looks at them: (B, N, D) -> (B, D)."""

    def __init__(self, dim: int, heads: int, blocks: int):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, dim))
        self.cross_attention_block = CrossBlock(dim, heads)
        self.blocks = nn.ModuleList(ClipBlock(dim, heads) for _ in range(blocks))
        nn.init.trunc_normal_(self.query_tokens, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.cross_attention_block(self.query_tokens.expand(len(tokens), -1, -1), tokens)[:, 0]


class PublishedClassifier(nn.Module):
    """Tokens (B, N, D) to classes (B, C), as in the published evaluations: pooler and one Linear.

    blocks  0 in V-JEPA (arXiv 2404.08471), 3 in V-JEPA 2 (arXiv 2506.09985)
    eps     of the layer norms: 1e-5 in Meta's files (the default of torch), 1e-6 in those of transformers

    `openjepa.nn.AttentiveHead` is the form that our own probes train.

    >>> PublishedClassifier(8, classes=3, heads=2, blocks=1)(torch.zeros(4, 5, 8)).shape
    torch.Size([4, 3])
    """

    def __init__(self, dim: int, classes: int, *, heads: int = 16, blocks: int = 3, eps: float = 1e-5):
        super().__init__()
        self.pooler = Pooler(dim, heads, blocks)
        self.linear = nn.Linear(dim, classes)
        for m in self.modules():
            if isinstance(m, nn.LayerNorm):
                m.eps = eps

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.pooler(tokens))
