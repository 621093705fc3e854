"""V-JEPA 2.1 as its own code saves it: ViT-B and L (distilled), g and G, and any other size."""

from __future__ import annotations

from openjepa.interop.layouts.clips import (
    ENCODER_KEYS,
    PREDICTOR_KEYS,
    clipped,
    encoder_part,
    is_clip_encoder,
    predictor_part,
)
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened
from openjepa.interop.layouts.shapes import HEADS_V2, choose, shape_of, words
from openjepa.nn.clip_vit import LEVELS, level_blocks

FRAMES, FPS, SIZE = 64, 4.0, 384


def fits(found: Found) -> bool:
    state = found.main()
    return is_clip_encoder(state) and "norms_block.0.weight" in state


def read(found: Found, asked: Asked) -> Opened:
    entry, weights, also = choose(found, asked, ("ema_encoder", "target_encoder"))
    state = found.entries[entry]
    known = clipped(found, state, asked, frames=FRAMES, size=SIZE, heads=HEADS_V2)
    shape_of(state, "norms_block.0.weight", 1, found)
    count = sum(k.startswith("norms_block.") and k.endswith(".weight") for k in state)
    depth = known.shape.depth
    levels = level_blocks(depth, min(count, depth)) or (depth - 1,)
    notes: tuple[str, ...] = (f"levels after blocks {', '.join(map(str, levels))}, each with its own layer norm",)
    if depth not in LEVELS or count != 4:
        notes += ("levels are evenly spread: no table is published for this depth",)
    picture = "patch_embed_img.proj.weight" in state or "img_mod_embed" in state
    parts = {"encoder": encoder_part(found, entry, known, "rope", levels=levels, picture_patch=picture)}
    if "predictor" in found.entries:
        full = 12 if known.shape.width < 1408 else 24
        parts["predictor"] = predictor_part(found, known, asked, "rope", depth=full)
        notes += ("the predictor's positions are rescaled as in training; the published hub leaves that out",)
    if not asked.size:
        notes += (f"the file does not tell the training resolution: {SIZE} is assumed",)
    if weights == "teacher" and entry == "ema_encoder" and "target_encoder" in found.entries:
        also = [*also, "target_encoder"]
        notes += ("target_encoder, the teacher that was distilled, is left out",)
    return Opened(
        parts,
        known.preprocess(fps=FPS),
        f"{words(known.shape, known.patch)} at {known.size}, {known.frames} frames",
        weights,
        also=also,
        notes=notes,
    )


LAYOUT = Layout(
    name="V-JEPA 2.1",
    licence="MIT",
    source="arXiv 2603.14482; github.com/facebookresearch/vjepa2",
    fits=fits,
    read=read,
    keys=(
        *ENCODER_KEYS[:2],
        *PREDICTOR_KEYS,
        r"norms_block\.\d+\.(weight|bias)",
        r"patch_embed_img\.proj\.(weight|bias)",
        "(img|video)_mod_embed",
        r"mask_tokens\.\d+",
        r"predictor_embed\.[02]\.(weight|bias)",
        r"predictor_proj_context\.(weight|bias)",
    ),
    needs=(
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "norms_block.0.weight",
        "patch_embed_img.proj.weight",
    ),
)
