"""The narrow transformer that predicts the tokens of hidden blocks from the tokens of the context."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openjepa.nn.layers import Block, init_transformer
from openjepa.nn.position import Grid, sincos


class ReadingBlock(Block):
    """A block that updates hidden tokens only: they attend to the context and to their own hidden block.

    context (B, K, W), or (B M, K, W) with a copy per hidden block; hidden (B M, Kt, W)  ->  hidden (B M, Kt, W)
    """

    def forward(self, context: Tensor, hidden: Tensor) -> Tensor:  # type: ignore[override]
        _, k, v = self.attn.split(self.norm1(context))
        return self.read(k, v, hidden)

    def read(self, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        """The block on `hidden`, with keys and values (B or B M, heads, K, d) of the context in front of its own."""
        q, own_k, own_v = self.attn.split(self.norm1(hidden))
        out = F.scaled_dot_product_attention(q, _before(k, own_k), _before(v, own_v))
        hidden = hidden + self.attn.proj(out.transpose(1, 2).reshape(hidden.shape))
        return hidden + self.mlp(self.norm2(hidden))


class SharedBlock(ReadingBlock):
    """A block that updates the context (B, K, W), which attends to itself, and the hidden tokens (B M, Kt, W)."""

    def forward(self, context: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        q, k, v = self.attn.split(self.norm1(context))
        out = F.scaled_dot_product_attention(q, k, v)
        after = context + self.attn.proj(out.transpose(1, 2).reshape(context.shape))
        return after + self.mlp(self.norm2(after)), self.read(k, v, hidden)


def _before(context: Tensor, own: Tensor) -> Tensor:
    """[context | own] along the tokens, the context repeated for the blocks of its picture: (B M, heads, K + Kt, d)."""
    times = len(own) // len(context)
    context = context[:, None].expand(-1, times, -1, -1, -1).flatten(0, 1)
    return torch.cat([context, own], dim=2)


class MaskedPredictor(nn.Module):
    """Tokens of M hidden blocks from the context tokens and from where the blocks are.

    context (B, K, D), context_index (B, K), target_index (B, M, Kt)  ->  (B, M, Kt, D)

    embed (D -> width) + positions of the context; one learned mask token + position for every hidden token; pre-norm
    blocks; layer norm; proj (width -> D). Positions are the predictor's own fixed sine-cosine table. In neither form do
    the blocks see each other.

    share_context=False: as published. Each block has a sequence of its own, [context | its mask tokens], so the context
    reads the mask tokens too and is recomputed for every block. (The last layer updates the mask tokens only: nobody
    reads the context after it, so the numbers are the same.)

    share_context=True: a lean form of ours. The context attends to itself only, hence is computed once for all blocks;
    each mask token attends to the context and to its own block. Cost grows with K + M Kt instead of M (K + Kt).

    Source: Assran et al. 2023, arXiv 2301.08243, appendix A.1 (width 384, as many heads as the encoder).

    >>> predictor = MaskedPredictor(16, (4, 4), width=8, depth=2, heads=2)
    >>> context_index, target_index = torch.tensor([[0, 1, 2]]), torch.tensor([[[5, 6], [14, 15]]])
    >>> predictor(torch.zeros(1, 3, 16), context_index, target_index).shape
    torch.Size([1, 2, 2, 16])
    """

    pos_embed: Tensor
    checkpoint: bool = False

    def __init__(
        self, dim: int, grid: Grid, width: int = 384, depth: int = 6, heads: int = 12, share_context: bool = False
    ):
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth of the predictor must be at least 1, got {depth}. Six layers are usual.")
        self.share_context = share_context
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sincos(width, grid)[None])
        inner = SharedBlock if share_context else Block
        self.blocks = nn.ModuleList([*(inner(width, heads) for _ in range(depth - 1)), ReadingBlock(width, heads)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Linear(width, dim)
        init_transformer(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, context: Tensor, context_index: Tensor, target_index: Tensor) -> Tensor:
        table, blocks = self.pos_embed[0], target_index.shape[1]
        c = self.embed(context) + table[context_index]  # (B, K, W)
        t = self.mask_token + table[target_index].flatten(0, 1)  # (B M, Kt, W)
        if self.share_context:
            for block in self.blocks[:-1]:
                c, t = self._run(block, c, t)
        else:
            x = torch.cat([c.repeat_interleave(blocks, 0), t], dim=1)  # (B M, K + Kt, W)
            for block in self.blocks[:-1]:
                x = self._run(block, x)
            c, t = x.split([c.shape[1], t.shape[1]], dim=1)
        t = self._run(self.blocks[-1], c, t)
        return self.proj(self.norm(t)).unflatten(0, (-1, blocks))  # (B, M, Kt, D)

    def _run(self, block: nn.Module, *args: Tensor) -> Any:
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)
