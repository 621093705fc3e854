"""Vision transformer on clips, as in V-JEPA, V-JEPA 2 and 2.1: tubelets in, tokens in raster order out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.clip_block import ClipBlock
from openjepa.nn.config import EncoderConfig
from openjepa.nn.encoder import Encoder, block_indices
from openjepa.nn.layers import init_transformer
from openjepa.nn.position3d import Grid3, Turn, coordinates, rescaled, resize_3d, sincos_3d, turn_3d
from openjepa.nn.vit import SIZES, Size

ClipPos = Literal["sincos", "rope-tiled", "rope"]
LEVELS = {12: (2, 5, 8, 11), 24: (5, 11, 17, 23), 40: (9, 19, 29, 39), 48: (11, 23, 37, 47)}  # depth -> blocks, 2.1


class TubeletEmbed(nn.Module):
    """Blocks of `tubelet` frames x patch x patch through one linear map, stored as the Conv3d of published checkpoints.

    (B, T, C, H, W) -> (B, N, D), or (B, K, D) with `keep` (B, K): tubelets are gathered before the projection, so a
    dropped one costs nothing. Computed as one matrix product, which equals the convolution.

    >>> TubeletEmbed(3, 8, patch=4, tubelet=2)(torch.zeros(2, 4, 3, 8, 12)).shape
    torch.Size([2, 12, 8])
    """

    def __init__(self, channels: int, dim: int, patch: int, tubelet: int):
        super().__init__()
        self.patch, self.tubelet = patch, tubelet
        side = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, dim, kernel_size=side, stride=side)

    def start(self) -> None:
        """Unit variance by fan-in, as in `openjepa.nn.vit.PatchEmbed`."""
        nn.init.trunc_normal_(self.proj.weight, std=self.proj.weight[0].numel() ** -0.5)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        b, t, c, h, w = x.shape
        p, s = self.patch, self.tubelet
        cells = x.view(b, t // s, s, c, h // p, p, w // p, p).permute(
            0, 1, 4, 6, 3, 2, 5, 7
        )  # (B, t, h, w, C, s, p, p)
        if keep is None:
            flat = cells.reshape(b, -1, c * s * p * p)  # (B, N, C s p p)
        else:
            column, row = keep % (w // p), keep // (w // p) % (h // p)
            time = keep // (h // p * (w // p))
            flat = cells[torch.arange(b, device=x.device)[:, None], time, row, column].flatten(2)  # (B, K, C s p p)
        return F.linear(flat, self.proj.weight.flatten(1), self.proj.bias)


class ClipViT(Encoder):
    """Vision transformer on clips: tubelets (+ positions) -> pre-norm blocks -> layer norm; no class token.

    Input is (B, T, C, H, W), T a multiple of `tubelet`; or (B, C, H, W), clips of one frame. One frame is repeated to
    fill a tubelet, or goes through `picture_patch`'s own projection of single frames. `grid` is (t, h, w) of clips of
    `frames` frames and `size` x `size` pixels; others are taken too. Token (t, row, column) is (t h + row) w + column.

    pos    "sincos": a fixed table (`pos_embed`, saved, never trained), interpolated to other grids        (V-JEPA)
           "rope-tiled": q and k turned by time, row and column, the published slip included               (V-JEPA 2)
           "rope": q and k turned, rows and columns rescaled to span 16 patches whatever the resolution    (V-JEPA 2.1)
    levels          blocks whose outputs, each through a layer norm of its own (`norms_block`), `forward` gives side by
                    side with deep=True; the last must be the last block. None: one level, one `norm`
    picture_patch   2.1's projection of single frames, and a learned vector that tells pictures from clips

    Source: Bardes et al. 2024, arXiv 2404.08471; Assran et al. 2025, arXiv 2506.09985; 2.1: arXiv 2603.14482.
    Differences: the projection of tubelets starts at unit variance, as in `openjepa.nn.vit.ViT`; angles are float32
    under autocast. Parameter names are those of the published checkpoints. Equal to `transformers`' VJEPA2Model with
    the same weights to 1e-5.

    >>> vit = ClipViT(SIZES["vit_micro"], patch=4, tubelet=2, size=16, frames=4, pos="rope")
    >>> vit(torch.zeros(2, 4, 3, 16, 16)).shape, vit.grid, vit(torch.zeros(2, 3, 16, 16)).shape
    (torch.Size([2, 32, 96]), (2, 4, 4), torch.Size([2, 16, 96]))
    >>> vit(torch.zeros(2, 4, 3, 16, 16), keep=torch.tensor([[0, 5], [1, 31]])).shape
    torch.Size([2, 2, 96])
    """

    grid: Grid3  # type: ignore[assignment]
    patch: int
    pos_embed: Tensor

    def __init__(
        self,
        shape: Size,
        *,
        patch: int = 16,
        tubelet: int = 2,
        size: int = 224,
        frames: int = 16,
        channels: int = 3,
        pos: ClipPos = "sincos",
        levels: Sequence[int] | None = None,
        picture_patch: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        _check(shape, patch, tubelet, size, frames, pos, levels)
        self.dim, self.patch, self.tubelet, self.channels, self.pos = shape.width, patch, tubelet, channels, pos
        self.grid = (max(1, frames // tubelet), size // patch, size // patch)
        self.head_dim = shape.width // shape.heads
        self.levels = None if levels is None else tuple(levels)
        self.patch_embed = TubeletEmbed(channels, shape.width, patch, tubelet)
        self.patch_embed_img = TubeletEmbed(channels, shape.width, patch, 1) if picture_patch else None
        self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, shape.width)) if picture_patch else None
        self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, shape.width)) if picture_patch else None
        if pos == "sincos":
            self.register_buffer("pos_embed", sincos_3d(shape.width, self.grid)[None])
        else:
            turn_3d(self.head_dim, coordinates((1, 1, 1)), "tiled")  # refuses a width that cannot be turned
        rates = [drop_path * i / max(1, shape.depth - 1) for i in range(shape.depth)]
        self.blocks = nn.ModuleList(ClipBlock(shape.width, shape.heads, shape.mlp_ratio, rate) for rate in rates)
        if self.levels is None:
            self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        else:
            self.norms_block = nn.ModuleList(nn.LayerNorm(shape.width, eps=1e-6) for _ in self.levels)
        self._start()

    def _start(self) -> None:
        init_transformer(self)
        self.patch_embed.start()
        if self.patch_embed_img is not None:
            self.patch_embed_img.start()
            for told in (self.img_mod_embed, self.video_mod_embed):
                assert told is not None
                nn.init.normal_(told, std=1e-6)

    def forward(self, x: Tensor, keep: Tensor | None = None, deep: bool = False) -> Tensor:
        """Tokens of clips, (B, N, D), or with `keep` (B, K) of those tubelets only, (B, K, D).

        deep  all `levels` side by side, the last one last, (B, N, D len(levels)); without levels it changes nothing
        """
        last = (len(self.blocks) - 1,)
        found = self._after(x, keep, self.levels if deep and self.levels else last)
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def layers(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Tokens after the blocks `indices`, through their own norm where they are levels, else through the last."""
        return self._after(x, None, block_indices(indices, len(self.blocks)))

    def norm_after(self, block: int) -> nn.Module:
        """The layer norm for what leaves a block."""
        if self.levels is None:
            return self.norm
        return self.norms_block[self.levels.index(block) if block in self.levels else -1]

    def _after(self, x: Tensor, keep: Tensor | None, wanted: Sequence[int]) -> list[Tensor]:
        tokens, turn = self.embed(x, keep)
        found: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            tokens = self.run(block, tokens, turn)
            if i in wanted:
                found[i] = self.norm_after(i)(tokens)
        return [found[i] for i in wanted]

    def embed(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Turn | None]:
        """What the first block sees: the tokens, with a table's positions added; and the rotary factors, if any."""
        x = x[:, None] if x.dim() == 4 else x
        grid = self.grid_of(x)
        project, told = self.patch_embed, self.video_mod_embed
        if x.shape[1] == 1 and self.patch_embed_img is not None:
            project, told = self.patch_embed_img, self.img_mod_embed
        elif x.shape[1] == 1:
            x = x.expand(-1, self.tubelet, -1, -1, -1)
        tokens = project(x, keep)
        if told is not None:
            tokens = tokens + told
        if self.pos == "sincos":
            table = resize_3d(self.pos_embed, self.grid, grid)
            return tokens + (table if keep is None else table[0][keep]), None
        return tokens, self.turn(grid, x.device).of(keep)

    def turn(self, grid: Grid3, device: torch.device) -> Turn:
        """The rotary factors of all tokens of a grid."""
        place = coordinates(grid, device)
        if self.pos == "rope":
            return turn_3d(self.head_dim, rescaled(place, grid), "interleaved")
        return turn_3d(self.head_dim, place, "tiled")

    def grid_of(self, x: Tensor) -> Grid3:
        """(t, h, w) of clips (B, T, C, H, W), or (B, C, H, W) of one frame; `ValueError` for what does not fit."""
        shape = x.shape if x.dim() == 5 else (*x.shape[:1], 1, *x.shape[1:])
        fits = len(shape) == 5 and shape[2] == self.channels and shape[1] > 0
        fits = fits and not (shape[3] % self.patch or shape[4] % self.patch)
        if not fits or (shape[1] != 1 and shape[1] % self.tubelet):
            raise ValueError(
                f"clips must be (B, T, {self.channels}, H, W) with T one or a multiple of {self.tubelet}, H and W "
                f"multiples of {self.patch}, got {tuple(x.shape)}. Cut or resize them."
            )
        return max(1, shape[1] // self.tubelet), shape[3] // self.patch, shape[4] // self.patch


def _check(
    shape: Size, patch: int, tubelet: int, size: int, frames: int, pos: str, levels: Sequence[int] | None
) -> None:
    if size < patch or size % patch:
        raise ValueError(f"size must be a multiple of the patch side {patch}, got {size}. Change one of them.")
    if frames != 1 and frames % tubelet:
        raise ValueError(f"frames must be one or a multiple of tubelet = {tubelet}, got {frames}. Change one of them.")
    if pos not in ("sincos", "rope-tiled", "rope"):
        raise ValueError(f"pos must be 'sincos', 'rope-tiled' or 'rope' for clips, got {pos!r}.")
    if levels is not None and (not levels or list(levels) != sorted(set(levels)) or levels[-1] != shape.depth - 1):
        raise ValueError(
            f"levels must rise and end with the last block {shape.depth - 1}, got {tuple(levels)}. Change them."
        )


def level_blocks(depth: int, count: int) -> tuple[int, ...] | None:
    """The blocks whose outputs are `count` levels of a network of `depth` blocks; None for one level.

    2.1's own table for 4 levels of 12, 24, 40 or 48 blocks; otherwise evenly spread, the last block last.

    >>> level_blocks(48, 4), level_blocks(6, 3), level_blocks(6, 1)
    ((11, 23, 37, 47), (1, 3, 5), None)
    """
    if count == 1:
        return None
    if not 1 <= count <= depth:
        raise ValueError(f"levels must be between 1 and the depth {depth}, got {count}. Lower it.")
    return (
        LEVELS[depth]
        if count == 4 and depth in LEVELS
        else tuple(-(-depth * (i + 1) // count) - 1 for i in range(count))
    )


def build_clip_encoder(cfg: EncoderConfig | str, *, size: int, channels: int = 3, frames: int = 16) -> ClipViT:
    """The transformer on clips that `cfg` names, for clips of `frames` frames of `size` x `size` pixels.

    Its settings for clips are `tubelet`, `pos`, `levels` and `picture_patch`; the name is one of the vit_* sizes.

    >>> encoder = build_clip_encoder({"name": "vit_micro/4", "pos": "rope", "levels": 2}, size=16, frames=8)
    >>> encoder.dim, encoder.grid, encoder.levels
    (96, (4, 4, 4), (1, 3))
    """
    cfg = EncoderConfig.model_validate(cfg)
    if cfg.outside or cfg.base not in SIZES:
        raise ValueError(
            f"encoder must be a vision transformer for clips, got {cfg.name!r}. Use one of {', '.join(SIZES)}."
        )
    cfg.refuse("cls", "registers", "stem")
    shape = SIZES[cfg.base]
    shape = shape._replace(
        width=cfg.width or shape.width, depth=cfg.depth or shape.depth, heads=cfg.heads or shape.heads
    )
    return ClipViT(
        shape,
        patch=cfg.patch_for(size),
        tubelet=cfg.tubelet,
        size=size,
        frames=frames,
        channels=channels,
        pos=cfg.pos,
        levels=level_blocks(shape.depth, cfg.levels),
        picture_patch=cfg.picture_patch,
        drop_path=cfg.drop_path,
    )
