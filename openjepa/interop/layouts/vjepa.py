"""V-JEPA (the first) as its own code saves it: ViT-L, ViT-H, ViT-H at 384, and any other size."""

from __future__ import annotations

from dataclasses import replace

from openjepa.interop.layouts.clips import (
    ENCODER_KEYS,
    PREDICTOR_KEYS,
    clipped,
    encoder_part,
    is_clip_encoder,
    mask_token_count,
    predictor_part,
)
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened
from openjepa.interop.layouts.shapes import HEADS, choose, shape_of, square, words

FRAMES, STRIDE = 16, 4


def fits(found: Found) -> bool:
    """A table of positions that is in use: the predictor has a mask token for each kind of mask, two at most."""
    state = found.main()
    plain = is_clip_encoder(state) and "pos_embed" in state and not found.has("predictor", "action_encoder.weight")
    return plain and 1 <= mask_token_count(found) <= 2


def read(found: Found, asked: Asked) -> Opened:
    entry, weights, also = choose(found, asked, ("target_encoder",))
    state = found.entries[entry]
    _, _, tubelet, patch, _ = shape_of(state, "patch_embed.proj.weight", 5, found)
    frames, tokens = asked.frames or FRAMES, shape_of(state, "pos_embed", 3, found)[1]
    side = square(tokens // max(1, frames // tubelet) if tokens % max(1, frames // tubelet) == 0 else 0, found,
                  f"positions of {frames} frames")  # fmt: skip
    known = clipped(found, state, replace(asked, size=side * patch, frames=frames), frames=frames, size=side * patch,
                    heads=HEADS)  # fmt: skip
    parts = {"encoder": encoder_part(found, entry, known, "sincos")}
    if "predictor" in found.entries:
        heads = asked.heads.get("encoder", known.shape.heads)
        parts["predictor"] = predictor_part(found, known, asked, "sincos", heads=heads)
    return Opened(
        parts,
        known.preprocess(stride=STRIDE, still=frames),
        f"{words(known.shape, patch)} at {known.size}, {frames} frames",
        weights,
        also=also,
        notes=("mask token 0 stands for short-range masks, 1 for long-range ones",),
    )


LAYOUT = Layout(
    name="V-JEPA",
    licence="CC BY-NC 4.0 (non-commercial)",
    source="Bardes et al. 2024, arXiv 2404.08471; github.com/facebookresearch/jepa",
    fits=fits,
    read=read,
    keys=(*ENCODER_KEYS, *PREDICTOR_KEYS, "pos_embed", "predictor_pos_embed", r"mask_tokens\.\d+"),
    needs=("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "norm.weight", "mask_tokens.0"),
)
