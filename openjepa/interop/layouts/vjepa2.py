"""V-JEPA 2 as its own code saves it: ViT-L, ViT-H, ViT-g, ViT-g at 384, and any other size."""

from __future__ import annotations

from math import isqrt

from openjepa.interop.layouts.clips import (
    ENCODER_KEYS,
    PREDICTOR_KEYS,
    clipped,
    encoder_part,
    is_clip_encoder,
    mask_token_count,
    predictor_part,
    stale_in,
)
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened
from openjepa.interop.layouts.shapes import HEADS_V2, choose, shape_of, words

FRAMES, FPS, SIZES = 64, 4.0, (256, 384)
STALE = ("pos_embed", "predictor_pos_embed")
WHY = "a stale table: positions are rotary"


def fits(found: Found) -> bool:
    """Without a table of positions, or with a stale one: then ten mask tokens tell it from V-JEPA."""
    state = found.main()
    plain = is_clip_encoder(state) and "norm.weight" in state and "norms_block.0.weight" not in state
    plain = plain and not found.has("predictor", "action_encoder.weight")
    return plain and ("pos_embed" not in state or mask_token_count(found) > 2)


def read(found: Found, asked: Asked) -> Opened:
    entry, weights, also = choose(found, asked, ("target_encoder",))
    size, told = trained_size(found, entry)
    known = clipped(found, found.entries[entry], asked, frames=FRAMES, size=size, heads=HEADS_V2)
    parts = {"encoder": encoder_part(found, entry, known, "rope-tiled", stale=STALE)}
    ignored = stale_in(found, entry, "pos_embed", WHY)
    notes: tuple[str, ...] = (
        () if told or asked.size else (f"the file does not tell the training resolution: {size} is assumed",)
    )
    if "predictor" in found.entries:
        parts["predictor"] = predictor_part(found, known, asked, "rope-tiled", stale=STALE)
        ignored |= stale_in(found, "predictor", "predictor_pos_embed", WHY)
        notes += ("published inference takes mask token 1, training may have trained token 0: compare their norms",)
    return Opened(
        parts,
        known.preprocess(fps=FPS),
        f"{words(known.shape, known.patch)} at {known.size}, {known.frames} frames",
        weights,
        ignored=ignored,
        also=also,
        notes=notes,
    )


def trained_size(found: Found, entry: str) -> tuple[int, bool]:
    """The resolution that a stale table of positions tells, where it fits one of the published ones; else 256."""
    state = found.entries[entry]
    if "pos_embed" in state:
        _, _, tubelet, patch, _ = shape_of(state, "patch_embed.proj.weight", 5, found)
        side = isqrt(shape_of(state, "pos_embed", 3, found)[1] * tubelet // FRAMES)
        if side * patch in SIZES and side * side * FRAMES // tubelet == state["pos_embed"].shape[1]:
            return side * patch, True
    return SIZES[0], False


LAYOUT = Layout(
    name="V-JEPA 2",
    licence="MIT",
    source="Assran et al. 2025, arXiv 2506.09985; github.com/facebookresearch/vjepa2",
    fits=fits,
    read=read,
    keys=(*ENCODER_KEYS, *PREDICTOR_KEYS, *STALE, r"mask_tokens\.\d+"),
    needs=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight"),
)
