"""Vision transformer, as in I-JEPA: pre-norm blocks, fixed positions, and a forward pass on kept patches only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.config import EncoderConfig
from openjepa.nn.encoder import Encoder, block_indices
from openjepa.nn.layers import Block, init_transformer
from openjepa.nn.position import Grid, Rotation, resize, rotation, sincos
from openjepa.nn.stem import ConvStem


class Size(NamedTuple):
    """Width, depth, heads and MLP ratio of a named transformer."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


SIZES: dict[str, Size] = {
    "vit_micro": Size(96, 4, 3),  # for 8 x 8 digits and for tests
    "vit_nano": Size(128, 6, 4),  # for 32 x 32 pictures on a laptop
    "vit_tiny": Size(192, 12, 3),
    "vit_small": Size(384, 12, 6),
    "vit_base": Size(768, 12, 12),
    "vit_large": Size(1024, 24, 16),
    "vit_huge": Size(1280, 32, 16),
    "vit_giant": Size(1408, 40, 16, 48 / 11),
    "vit_gigantic": Size(1664, 48, 16, 64 / 13),  # V-JEPA 2.1's has heads=26, as its giant has 22
}


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one linear map, stored as the Conv2d `proj` of published checkpoints.

    (B, C, H, W) -> (B, N, D), or (B, K, D) with `keep` (B, K): patches are gathered before the projection, so a dropped
    patch costs nothing. Computed as one matrix product, which equals the convolution and is faster on small pictures.

    >>> PatchEmbed(3, 8, patch=4)(torch.zeros(2, 3, 8, 12)).shape
    torch.Size([2, 6, 8])
    """

    def __init__(self, channels: int, dim: int, patch: int):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def start(self) -> None:
        """Unit variance by fan-in, not std 0.02.

        On a 4 x 4 x 3 patch 0.02 leaves the content seven times weaker than its position, and masked prediction then
        finds the easy answer, tokens that only tell where they are.
        """
        nn.init.trunc_normal_(self.proj.weight, std=self.proj.weight[0].numel() ** -0.5)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        b, c, h, w = x.shape
        p = self.patch
        cells = x.view(b, c, h // p, p, w // p, p)
        if keep is None:
            flat = cells.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)  # (B, N, C p p)
        else:
            rows, columns = keep // (w // p), keep % (w // p)
            which = torch.arange(b, device=x.device)[:, None]
            flat = cells[which, :, rows, :, columns].flatten(2)  # (B, K, C p p)
        return F.linear(flat, self.proj.weight.flatten(1), self.proj.bias)


class ViT(Encoder):
    """Vision transformer: patches + positions -> pre-norm blocks -> layer norm.

    The block is x += proj(attn(LN(x))); x += fc2(gelu(fc1(LN(x)))) with layer norm eps 1e-6, fused q, k, v with bias,
    exact GELU; no dropout, no layer scale. By default there is neither a class token nor registers, as in I-JEPA.

    stem="conv" puts a few strided convolutions in place of the patch projection (`ConvStem`), masks respected.
    pos="sincos": a fixed table (`pos_embed`, saved with the weights, never trained) is added to the patches; at other
    picture sizes it is interpolated (bicubic). pos="rope": q and k of the patches are turned in every block.

    Source: Dosovitskiy et al. 2021; sizes, positions and initialisation of I-JEPA (Assran et al. 2023), except that the
    patch projection starts at unit variance. Parameter names are those of its published checkpoints. Equal to
    `transformers`' IJepaModel with the same weights to 1e-5.

    >>> vit = ViT(SIZES["vit_micro"], patch=4, size=16, channels=3)
    >>> vit(torch.zeros(2, 3, 16, 16)).shape, vit.grid, vit.dim
    (torch.Size([2, 16, 96]), (4, 4), 96)
    >>> vit(torch.zeros(2, 3, 16, 16), keep=torch.tensor([[0, 5], [1, 2]])).shape
    torch.Size([2, 2, 96])
    """

    pos_embed: Tensor

    def __init__(
        self,
        shape: Size,
        *,
        patch: int,
        size: int,
        channels: int = 3,
        pos: str = "sincos",
        stem: str = "auto",
        cls: bool = False,
        registers: int = 0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if size < patch or size % patch:
            raise ValueError(f"size must be a multiple of the patch side {patch}, got {size}. Change one of them.")
        self.dim, self.patch, self.prefix, self.channels = shape.width, patch, int(cls) + registers, channels
        self.grid = (size // patch, size // patch)
        self.patch_embed: PatchEmbed | ConvStem = (ConvStem if stem == "conv" else PatchEmbed)(
            channels, shape.width, patch
        )
        self.head_dim = shape.width // shape.heads
        self.rope = pos == "rope"
        if self.rope:
            rotation(self.head_dim, (1, 1), (1, 1))  # refuses a width that cannot be turned
        else:
            self.register_buffer("pos_embed", sincos(shape.width, self.grid)[None])
        self.prefix_tokens = nn.Parameter(torch.zeros(1, self.prefix, shape.width)) if self.prefix else None
        rates = [drop_path * i / max(1, shape.depth - 1) for i in range(shape.depth)]
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads, shape.mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        init_transformer(self)
        self.patch_embed.start()
        if self.prefix_tokens is not None:
            nn.init.trunc_normal_(self.prefix_tokens, std=0.02)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        tokens, turn = self.embed(x, keep)
        for block in self.blocks:
            tokens = self.run(block, tokens, turn)
        return self.norm(tokens)  # (B, prefix + N, D)

    def layers(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Tokens after the blocks `indices`, each through the final layer norm; -1 equals `forward(x)`."""
        wanted = block_indices(indices, len(self.blocks))
        tokens, turn = self.embed(x, None)
        found: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            tokens = self.run(block, tokens, turn)
            if i in wanted:
                found[i] = self.norm(tokens)
        return [found[i] for i in wanted]

    def embed(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Rotation | None]:
        """What the first block sees: prefix and patch tokens with their positions, and the rotary angles if any."""
        grid = self._grid_of(x)
        tokens, turn = self.patch_embed(x, keep), None
        if self.rope:
            cos, sin = rotation(self.head_dim, grid, self.grid, x.device)
            turn = (cos, sin) if keep is None else (cos[keep], sin[keep])
        else:
            table = resize(self.pos_embed, self.grid, grid)
            tokens = tokens + (table if keep is None else table[0][keep])
        if self.prefix_tokens is not None:
            tokens = torch.cat([self.prefix_tokens.expand(len(x), -1, -1).to(tokens.dtype), tokens], dim=1)
        return tokens, turn

    def _grid_of(self, x: Tensor) -> Grid:
        p, channels = self.patch_embed.patch, self.channels
        if x.dim() != 4 or x.shape[1] != channels or x.shape[2] % p or x.shape[3] % p:
            raise ValueError(
                f"pictures must be (B, {channels}, H, W) with H and W multiples of the patch side {p}, "
                f"got {tuple(x.shape)}. Resize them, or change the encoder's channels or patch."
            )
        return x.shape[2] // p, x.shape[3] // p


def build_vit(cfg: EncoderConfig, *, size: int, channels: int) -> ViT:
    """The transformer that `cfg` names, for pictures of `size` pixels."""
    if cfg.stem not in ("auto", "conv"):
        raise ValueError(f"stem must be 'auto' or 'conv' for encoder {cfg.name!r}, got {cfg.stem!r}. Change it.")
    if cfg.pos == "rope-tiled":
        raise ValueError(
            "pos must be 'sincos' or 'rope' for an encoder of pictures, got 'rope-tiled'. That is for clips."
        )
    shape = SIZES[cfg.base]
    shape = shape._replace(
        width=cfg.width or shape.width, depth=cfg.depth or shape.depth, heads=cfg.heads or shape.heads
    )
    return ViT(
        shape,
        patch=cfg.patch_for(size),
        size=size,
        channels=channels,
        pos=cfg.pos,
        stem=cfg.stem,
        cls=cfg.cls,
        registers=cfg.registers,
        drop_path=cfg.drop_path,
    )
