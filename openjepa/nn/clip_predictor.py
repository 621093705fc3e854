"""The narrow transformer of V-JEPA, V-JEPA 2 and 2.1 that predicts the hidden tokens of a clip from the seen ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openjepa.nn.clip_block import ClipBlock
from openjepa.nn.clip_vit import ClipPos
from openjepa.nn.layers import init_transformer
from openjepa.nn.position3d import Grid3, coordinates, rescaled, resize_3d, sincos_3d, turn_3d


class ClipPredictor(nn.Module):
    """Tokens at the hidden places from the tokens of the context; all hidden places of a clip see each other.

    context (B, K, D levels), context_index (B, K), target_index (B, Kt)  ->  (B, Kt, out levels)
    with context_out=True                                       ->  (B, Kt, out levels), (B, K, out levels)

    predictor_embed (to `width`); one of the learned mask tokens at every hidden place; one sequence [context | hidden];
    pre-norm blocks; layer norm; predictor_proj (and predictor_proj_context). Indices count the tokens of `grid`
    (t, h, w), or of the grid given to `forward`.

    dim, levels   width of the encoder, and how many of its levels come in side by side (4 in 2.1, else 1)
    out           width of one predicted level; by default `dim` (2.1's distilled students predict a wider teacher)
    pos           "sincos": a table of its own is added; "rope-tiled", "rope": as in `ClipViT`
    mask_tokens   how many mask tokens there are: V-JEPA has one per kind of mask, V-JEPA 2 ten, 2.1 eight
    context_out   also predict the context, through a projection of its own: the dense loss of 2.1
    modalities    a learned vector for pictures and one for clips, as in 2.1

    The published code sorts the tokens of V-JEPA 2 and 2.1 by position and sorts them back after the blocks. Without a
    causal mask a block treats its tokens as a set, each turned by its own place: sorting moves rows and changes no
    number, so it is left out. The last block is computed for the tokens that are predicted only.

    Source: Bardes et al. 2024, arXiv 2404.08471; Assran et al. 2025, arXiv 2506.09985. Names of parameters are those of
    the published checkpoints. Differences: rotary angles are float32 under autocast; time positions have no upper end.

    >>> predictor = ClipPredictor(16, (2, 4, 4), width=24, depth=2, heads=2, pos="rope-tiled")
    >>> predictor(torch.zeros(1, 3, 16), torch.tensor([[0, 1, 2]]), torch.tensor([[5, 6, 14, 31]])).shape
    torch.Size([1, 4, 16])
    """

    predictor_pos_embed: Tensor
    checkpoint: bool = False

    def __init__(
        self,
        dim: int,
        grid: Grid3,
        *,
        width: int = 384,
        depth: int = 12,
        heads: int = 12,
        pos: ClipPos = "sincos",
        mask_tokens: int = 1,
        levels: int = 1,
        context_out: bool = False,
        out: int | None = None,
        modalities: bool = False,
    ):
        super().__init__()
        if depth < 1 or mask_tokens < 1 or levels < 1:
            raise ValueError(
                f"depth, mask_tokens and levels must be at least 1, got {depth}, {mask_tokens} and {levels}."
            )
        if pos not in ("sincos", "rope-tiled", "rope"):
            raise ValueError(f"pos must be 'sincos', 'rope-tiled' or 'rope' for clips, got {pos!r}.")
        self.grid, self.pos, self.head_dim = grid, pos, width // heads
        self.predictor_embed: nn.Module = (
            nn.Linear(dim, width)
            if levels == 1
            else nn.Sequential(nn.Linear(dim * levels, dim), nn.GELU(), nn.Linear(dim, width))
        )
        self.mask_tokens = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, width)) for _ in range(mask_tokens))
        self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, width)) if modalities else None
        self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, width)) if modalities else None
        if pos == "sincos":
            self.register_buffer("predictor_pos_embed", sincos_3d(width, grid)[None])
        else:
            turn_3d(self.head_dim, coordinates((1, 1, 1)), "tiled")  # refuses a width that cannot be turned
        self.predictor_blocks = nn.ModuleList(ClipBlock(width, heads) for _ in range(depth))
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor_proj = nn.Linear(width, levels * (out or dim))
        self.predictor_proj_context = nn.Linear(width, levels * (out or dim)) if context_out else None
        init_transformer(self)
        for told in (self.img_mod_embed, self.video_mod_embed):
            if told is not None:
                nn.init.normal_(told, std=1e-6)

    @property
    def blocks(self) -> nn.ModuleList:
        """The residual blocks in order, as in an encoder: units for sharding and recomputation."""
        return self.predictor_blocks

    def forward(
        self,
        context: Tensor,
        context_index: Tensor,
        target_index: Tensor,
        mask_token: int = 0,
        *,
        grid: Grid3 | None = None,
        picture: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The predicted tokens, and those of the context where `context_out` is set.

        mask_token  which of the mask tokens stands at the hidden places
        grid        (t, h, w) of these clips, where it is not the predictor's own
        picture     these are single frames: takes the picture's learned vector
        """
        if not 0 <= mask_token < len(self.mask_tokens):
            raise ValueError(f"mask_token must be between 0 and {len(self.mask_tokens) - 1}, got {mask_token}.")
        seen, hidden = self.predictor_embed(context), self.mask_tokens[mask_token]
        # hidden places first, so that the last block can be asked for the beginning of the sequence only
        index = torch.cat([target_index, context_index], 1)  # (B, Kt + K)
        x = torch.cat([hidden.expand(*target_index.shape, -1).to(seen.dtype), seen], 1)  # (B, Kt + K, W)
        told = self.img_mod_embed if picture else self.video_mod_embed
        x = x if told is None else x + told
        grid, turn, count = grid or self.grid, None, target_index.shape[1]
        if self.pos == "sincos":
            x = x + resize_3d(self.predictor_pos_embed, self.grid, grid)[0][index]
        else:
            place = coordinates(grid, x.device)
            place = rescaled(place, grid) if self.pos == "rope" else place
            turn = turn_3d(self.head_dim, place, "interleaved" if self.pos == "rope" else "tiled").of(index)
        for block in self.predictor_blocks[:-1]:
            x = self._run(block, x, turn, None, None)
        x = self._run(self.predictor_blocks[-1], x, turn, None, count if self.predictor_proj_context is None else None)
        x = self.predictor_norm(x)
        targets = self.predictor_proj(x[:, :count])  # (B, Kt, out levels)
        return targets if self.predictor_proj_context is None else (targets, self.predictor_proj_context(x[:, count:]))

    def _run(self, block: nn.Module, x: Tensor, *rest: object) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, x, *rest, use_reentrant=False)
        return block(x, *rest)
