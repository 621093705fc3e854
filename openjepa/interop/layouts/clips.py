"""What V-JEPA, V-JEPA 2, 2.1 and 2-AC have in common: the parts of a checkpoint of Meta's code as our networks."""

from __future__ import annotations

from dataclasses import dataclass

from openjepa.interop.files import State
from openjepa.interop.layouts.record import Asked, Found, Part
from openjepa.interop.layouts.shapes import LETTERS, depth_of, full_depth, heads_of, shape_of, size_of, without
from openjepa.interop.preprocess import ClipPreprocess
from openjepa.nn.clip_predictor import ClipPredictor
from openjepa.nn.clip_vit import ClipPos, ClipViT
from openjepa.nn.position3d import Grid3
from openjepa.nn.vit import Size

SHORT = 256 / 224  # published evaluations resize the short side to 256/224 of the crop
ENCODER_KEYS = (
    r"patch_embed\.proj\.(weight|bias)",
    r"blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)",
    r"norm\.(weight|bias)",
)
PREDICTOR_KEYS = (
    r"predictor_embed\.(weight|bias)",
    r"predictor_blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)",
    r"(predictor_norm|predictor_proj)\.(weight|bias)",
)


@dataclass(frozen=True)
class Clipped:
    """What is known of a clip encoder before it is built."""

    shape: Size
    patch: int
    tubelet: int
    channels: int
    frames: int
    size: int

    @property
    def grid(self) -> Grid3:
        return max(1, self.frames // self.tubelet), self.size // self.patch, self.size // self.patch

    @property
    def published(self) -> bool:
        return (self.shape.width, self.shape.depth) in LETTERS and self.shape.width >= 768

    def preprocess(self, *, stride: int | None = None, fps: float | None = None, still: int = 1) -> ClipPreprocess:
        return ClipPreprocess(
            size=self.size, channels=self.channels, resample="bilinear", short=SHORT, frames=self.frames,
            stride=stride, fps=fps, still=still,
        ).grey_or_colour()  # fmt: skip


def clipped(found: Found, state: State, asked: Asked, *, frames: int, size: int, heads: dict[int, int]) -> Clipped:
    """Sizes of an encoder on clips; `frames` and `size` as asked, else these."""
    shape, (channels, tubelet, patch, _) = size_of(state, found, asked, heads, axes=5)
    side = asked.size or size
    if side % patch:
        raise ValueError(f"size must be a multiple of the patch side {patch}, got {side}. Give another size=.")
    return Clipped(shape, patch, tubelet, channels, asked.frames or frames, side)


def encoder_part(
    found: Found, entry: str, known: Clipped, pos: ClipPos, *, levels: tuple[int, ...] | None = None,
    picture_patch: bool = False, stale: tuple[str, ...] = (),
) -> Part:  # fmt: skip
    """The encoder of an entry, without its stale keys."""
    return Part(
        entry,
        lambda: ClipViT(
            known.shape, patch=known.patch, tubelet=known.tubelet, size=known.size, frames=known.frames,
            channels=known.channels, pos=pos, levels=levels, picture_patch=picture_patch,
        ),
        without(found.entries[entry], stale),
    )  # fmt: skip


def predictor_part(
    found: Found, known: Clipped, asked: Asked, pos: ClipPos, *, heads: int | None = None, depth: int = 12,
    stale: tuple[str, ...] = (),
) -> Part:  # fmt: skip
    """The predictor of a file, whatever its width, depth, levels and mask tokens; heads: given, else 12 for 384."""
    state = without(found.entries["predictor"], stale)
    levels, dim = 1, known.shape.width
    first = "predictor_embed.weight" if "predictor_embed.weight" in state else "predictor_embed.2.weight"
    if first == "predictor_embed.2.weight" and "predictor_embed.0.weight" in state:
        levels = max(1, shape_of(state, "predictor_embed.0.weight", 2, found)[1] // dim)
    width = shape_of(state, first, 2, found)[0]
    blocks = depth_of(state, "predictor_blocks.")
    full_depth("predictor", blocks, depth if known.published else None, asked, found)
    out = shape_of(state, "predictor_proj.weight", 2, found)[0]
    table = {width: heads} if heads else {384: 12}
    count = heads_of("predictor", width, table, asked, found)
    tokens = max(1, sum(k.startswith("mask_tokens.") for k in state))
    return Part(
        "predictor",
        lambda: ClipPredictor(
            dim, known.grid, width=width, depth=blocks, heads=count, pos=pos, mask_tokens=tokens, levels=levels,
            context_out="predictor_proj_context.weight" in state, out=max(1, out // levels),
            modalities="img_mod_embed" in state or "video_mod_embed" in state,
        ),
        state,
    )  # fmt: skip


def is_clip_encoder(state: State) -> bool:
    """A Meta transformer on tubelets: Conv3d patches, fused q, k, v, no class token."""
    patch = state.get("patch_embed.proj.weight")
    return patch is not None and patch.dim() == 5 and "blocks.0.attn.qkv.weight" in state and "cls_token" not in state


def mask_token_count(found: Found) -> int:
    return sum(k.startswith("mask_tokens.") for k in found.entries.get("predictor", {}))


def stale_in(found: Found, entry: str, key: str, why: str) -> dict[str, str]:
    """`key` of an entry as ignored on purpose, if it is there."""
    label = f"{entry}.{key}" if entry else key
    return {label: why} if found.has(entry, key) else {}
