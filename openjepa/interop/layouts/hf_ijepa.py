"""I-JEPA as `transformers` saves it, versions 4 and 5, with or without the prefix of a classification model."""

from __future__ import annotations

from openjepa.interop.files import State
from openjepa.interop.hf import hf_ijepa_name
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened, Part
from openjepa.interop.layouts.shapes import HEADS, heads_of, shape_of, square, words
from openjepa.interop.layouts.told import eps_of, refuse_settings, renamed_vit, told_preprocess
from openjepa.nn.vit import Size, ViT

_PATCH = "embeddings.patch_embeddings.projection.weight"
_INSIDE = (
    "layernorm_before|layernorm_after|attention.attention.(query|key|value)|attention.output.dense|intermediate.dense|"
    "output.dense|attention.[qkvo]_proj|mlp.fc1|mlp.fc2"
)


def fits(found: Found) -> bool:
    state = found.entries.get("", {})
    patch = state.get(_PATCH, state.get(f"ijepa.{_PATCH}"))
    told = found.config.get("model_type", "ijepa") == "ijepa"
    return told and patch is not None and patch.dim() == 4 and not any("cls_token" in k for k in state)


def read(found: Found, asked: Asked) -> Opened:
    """Heads and sizes from config.json where there is one, else from shapes; what pictures are like from beside it."""
    state, config = found.group(""), found.config
    heads_left = sorted(k for k in state if k.removeprefix("ijepa.").startswith(("classifier.", "pooler.")))
    ours: State = renamed_vit(state, found)
    width, channels, patch, _ = shape_of(ours, "patch_embed.proj.weight", 4, found)
    tokens = shape_of(ours, "pos_embed", 3, found)[1]
    side = square(tokens, found, "positions")
    depth = 1 + max((int(k.split(".")[1]) for k in ours if k.startswith("blocks.")), default=-1)
    hidden = shape_of(ours, "blocks.0.mlp.fc1.weight", 2, found)[0]
    depth = int(config.get("num_hidden_layers", depth))
    refuse_settings(found, {"hidden_act": "gelu", "qkv_bias": True})
    table = {width: int(config["num_attention_heads"])} if "num_attention_heads" in config else HEADS
    shape = Size(width, depth, heads_of("encoder", width, table, asked, found), hidden / width)
    style = "transformers 4" if any(".attention.attention." in k for k in state) else "transformers 5"
    eps = eps_of(found, 1e-6)
    return Opened(
        {
            "encoder": Part(
                "",
                lambda: eps(ViT(shape, patch=patch, size=side * patch, channels=channels)),
                ours,
                lambda key: hf_ijepa_name(key, style[-1]),
            )
        },
        told_preprocess(found, side * patch, channels),
        words(shape, patch),
        ignored=dict.fromkeys(heads_left, "the head of a classifier"),
        notes=(f"names of {style}", "the published files of this kind hold the online encoder, not the target"),
    )


LAYOUT = Layout(
    name="I-JEPA of transformers",
    licence="CC BY-NC 4.0 (non-commercial)",
    source="Assran et al. 2023, arXiv 2301.08243; huggingface.co/facebook",
    fits=fits,
    read=read,
    keys=(
        r"(ijepa\.)?embeddings\.(position_embeddings|patch_embeddings\.projection\.(weight|bias))",
        rf"(ijepa\.)?(encoder\.layers?|layers)\.\d+\.({_INSIDE})\.(weight|bias)",
        r"(ijepa\.)?layernorm\.(weight|bias)",
        r"classifier\.(weight|bias)",
    ),
    needs=(_PATCH, "embeddings.position_embeddings", "layernorm.weight"),
)
