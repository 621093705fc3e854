"""I-JEPA as its own code saves it: ViT-H/14, H/16 at 448, G/16, and any other size."""

from __future__ import annotations

import re

from openjepa.interop.files import State
from openjepa.interop.layouts.clips import ENCODER_KEYS, PREDICTOR_KEYS
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened, Part
from openjepa.interop.layouts.shapes import HEADS, choose, depth_of, heads_of, shape_of, size_of, square, words
from openjepa.interop.preprocess import Preprocess
from openjepa.nn.predictor import MaskedPredictor
from openjepa.nn.vit import Size, ViT


def fits(found: Found) -> bool:
    state = found.main()
    patch = state.get("patch_embed.proj.weight")
    return (
        patch is not None
        and patch.dim() == 4
        and "blocks.0.attn.qkv.weight" in state
        and "pos_embed" in state
        and "cls_token" not in state
        and not any(k.startswith("decoder_") for k in state)
    )


def read(found: Found, asked: Asked) -> Opened:
    entry, weights, also = choose(found, asked, ("target_encoder",))
    state = found.entries[entry]
    shape, (channels, patch, _) = size_of(state, found, asked, HEADS, axes=4)
    side = square(shape_of(state, "pos_embed", 3, found)[1], found, "positions")
    parts = {
        "encoder": Part(entry, lambda: ViT(shape, patch=patch, size=side * patch, channels=channels), state),
    }
    if "predictor" in found.entries:
        parts["predictor"] = _predictor(found, shape, side, asked)
    return Opened(
        parts,
        Preprocess(size=side * patch, channels=channels).grey_or_colour(),
        words(shape, patch),
        weights,
        also=also,
    )


def _predictor(found: Found, shape: Size, side: int, asked: Asked) -> Part:
    """Under the names of our predictor; it has the heads of the encoder."""
    state = found.entries["predictor"]
    width = shape_of(state, "predictor_embed.weight", 2, found)[0]
    heads = heads_of("predictor", width, {width: asked.heads.get("encoder", shape.heads)}, asked, found)
    depth = max(1, depth_of(state, "predictor_blocks."))
    ours: State = {re.sub("^predictor_", "", k): v for k, v in state.items()}
    return Part(
        "predictor",
        lambda: MaskedPredictor(shape.width, (side, side), width=width, depth=depth, heads=heads),
        ours,
        lambda key: key if key == "mask_token" else f"predictor_{key}",
    )


LAYOUT = Layout(
    name="I-JEPA",
    licence="CC BY-NC 4.0 (non-commercial)",
    source="Assran et al. 2023, arXiv 2301.08243; github.com/facebookresearch/ijepa",
    fits=fits,
    read=read,
    keys=(*ENCODER_KEYS, *PREDICTOR_KEYS, "pos_embed", "predictor_pos_embed", "mask_token"),
    needs=("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "norm.weight"),
)
