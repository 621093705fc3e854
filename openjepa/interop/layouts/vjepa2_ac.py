"""V-JEPA 2-AC as its own code saves it: the frozen encoder and the action-conditioned predictor."""

from __future__ import annotations

from openjepa.interop.layouts.clips import (
    ENCODER_KEYS,
    PREDICTOR_KEYS,
    clipped,
    encoder_part,
    is_clip_encoder,
    stale_in,
)
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened, Part
from openjepa.interop.layouts.shapes import HEADS_V2, choose, depth_of, full_depth, heads_of, shape_of, words
from openjepa.interop.layouts.vjepa2 import STALE, WHY
from openjepa.nn.ac_published import PublishedACPredictor

FRAMES, FPS, SIZE = 8, 4.0, 256


def fits(found: Found) -> bool:
    return is_clip_encoder(found.main()) and found.has("predictor", "action_encoder.weight")


def read(found: Found, asked: Asked) -> Opened:
    entry, weights, also = choose(found, asked, ("target_encoder",))
    known = clipped(found, found.entries[entry], asked, frames=FRAMES, size=SIZE, heads=HEADS_V2)
    state, dim = found.group("predictor"), known.shape.width
    width = shape_of(state, "predictor_embed.weight", 2, found)[0]
    told = {name: shape_of(state, f"{name}_encoder.weight", 2, found)[1] for name in ("action", "state", "extrinsics")}
    heads = heads_of("predictor", width, {1024: 16}, asked, found)
    depth = depth_of(state, "predictor_blocks.")
    full_depth("predictor", depth, 24 if width == 1024 else None, asked, found)
    predictor = Part(
        "predictor",
        lambda: PublishedACPredictor(
            dim, known.grid[1:], action=told["action"], state=told["state"], extrinsics=told["extrinsics"], width=width,
            depth=depth, heads=heads,
        ),
        state,
    )  # fmt: skip
    return Opened(
        {"encoder": encoder_part(found, entry, known, "rope-tiled", stale=STALE), "predictor": predictor},
        known.preprocess(fps=FPS),
        f"{words(known.shape, known.patch)} at {known.size}; predictor {depth} x {width}",
        weights,
        ignored=stale_in(found, entry, "pos_embed", WHY),
        also=also,
        notes=(
            "the predictor takes features of single frames, each layer-normed without weights, as do its own outputs",
        ),
    )


LAYOUT = Layout(
    name="V-JEPA 2-AC",
    licence="MIT",
    source="Assran et al. 2025, arXiv 2506.09985; github.com/facebookresearch/vjepa2",
    fits=fits,
    read=read,
    keys=(*ENCODER_KEYS, *PREDICTOR_KEYS, "pos_embed", r"(action|state|extrinsics)_encoder\.(weight|bias)"),
    needs=("patch_embed.proj.weight", "norm.weight", "action_encoder.weight", "predictor_embed.weight"),
)
