"""V-JEPA 2 as `transformers` saves it: VJEPA2Model, and VJEPA2ForVideoClassification with its attentive classifier."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from openjepa.interop.files import State
from openjepa.interop.layouts.clips import Clipped
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened, Part
from openjepa.interop.layouts.shapes import HEADS_V2, depth_of, heads_of, shape_of, words
from openjepa.interop.layouts.told import eps_of, refuse_settings
from openjepa.interop.preprocess import ClipPreprocess
from openjepa.nn.attentive import PublishedClassifier
from openjepa.nn.clip_predictor import ClipPredictor
from openjepa.nn.clip_vit import ClipViT
from openjepa.nn.vit import Size

_PATCH = "encoder.embeddings.patch_embeddings.proj.weight"
_TOP = {
    "encoder.embeddings.patch_embeddings.proj": "encoder:patch_embed.proj",
    "encoder.layernorm": "encoder:norm",
    "predictor.embeddings.predictor_embeddings": "predictor:predictor_embed",
    "predictor.layernorm": "predictor:predictor_norm",
    "predictor.proj": "predictor:predictor_proj",
    "classifier": "classifier:linear",
    "pooler.cross_attention_layer.layer_norm1": "classifier:pooler.cross_attention_block.norm1",
    "pooler.cross_attention_layer.layer_norm2": "classifier:pooler.cross_attention_block.norm2",
    "pooler.cross_attention_layer.mlp.fc1": "classifier:pooler.cross_attention_block.mlp.fc1",
    "pooler.cross_attention_layer.mlp.fc2": "classifier:pooler.cross_attention_block.mlp.fc2",
    "pooler.cross_attention_layer.cross_attn.q_proj": "classifier:pooler.cross_attention_block.xattn.q",
    "pooler.cross_attention_layer.cross_attn.k_proj": "classifier:pooler.cross_attention_block.xattn.kv/0",
    "pooler.cross_attention_layer.cross_attn.v_proj": "classifier:pooler.cross_attention_block.xattn.kv/1",
}
_BLOCKS = (
    (r"encoder\.layer\.(\d+)\.", "encoder:blocks."),
    (r"predictor\.layer\.(\d+)\.", "predictor:predictor_blocks."),
    (r"pooler\.self_attention_layers\.(\d+)\.", "classifier:pooler.blocks."),
)
_INSIDE = {  # theirs in a block -> ours; "/i" is the place in a joined matrix
    "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    "attention.query": "attn.qkv/0", "attention.key": "attn.qkv/1", "attention.value": "attn.qkv/2",
    "attention.proj": "attn.proj", "layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.q_proj": "attn.qkv/0",
    "self_attn.k_proj": "attn.qkv/1", "self_attn.v_proj": "attn.qkv/2", "self_attn.out_proj": "attn.proj",
}  # fmt: skip
_JOINED = {"qkv": 3, "kv": 2}


def ours(key: str) -> str | None:
    """Where a tensor of theirs belongs, "part:our.name.kind" with "/i" for a piece of a joined matrix; None: unknown.

    >>> ours("encoder.layer.3.attention.key.bias")
    'encoder:blocks.3.attn.qkv/1.bias'
    """
    if key == "pooler.query_tokens":
        return "classifier:pooler.query_tokens"
    if key == "predictor.embeddings.mask_tokens":
        return "predictor:mask_tokens"
    name, _, kind = key.rpartition(".")
    if name in _TOP and kind in ("weight", "bias"):
        return f"{_TOP[name]}.{kind}"
    for pattern, base in _BLOCKS:
        block = re.match(pattern, name)
        inside = _INSIDE.get(name[block.end() :]) if block else None
        if block and inside:
            return f"{base}{block[1]}.{inside}.{kind}"
    return None


def renamed(state: State, found: Found) -> dict[str, State]:
    """part -> our key -> tensor, joined matrices put together; unknown, doubled and incomplete ones raise."""
    parts: dict[str, State] = {"encoder": {}, "predictor": {}, "classifier": {}}
    pieces: dict[str, dict[int, Tensor]] = {}
    unknown, doubled = [], []
    for key, value in state.items():
        place = ours(key.removeprefix("vjepa2."))
        if place is None:
            unknown.append(key)
            continue
        part, _, name = place.partition(":")
        joined = re.fullmatch(r"(.+)/(\d)(\..+)", name)
        if joined:
            whole = pieces.setdefault(f"{part}:{joined[1]}{joined[3]}", {})
            if int(joined[2]) in whole:
                doubled.append(key)
            whole[int(joined[2])] = value
        elif name in parts[part]:
            doubled.append(key)
        else:
            parts[part][name] = value
    torn = []
    for place, whole in pieces.items():
        part, _, name = place.partition(":")
        want = _JOINED[name.split(".")[-2]]
        if len(whole) != want:
            torn.append(f"{name} ({len(whole)} of {want} pieces)")
        else:
            parts[part][name] = torch.cat([whole[i] for i in range(want)])
    wrong = {"extra": unknown, "doubled": doubled, "torn": torn}
    text = "; ".join(f"{what}: {', '.join(keys[:5])}" for what, keys in wrong.items() if keys)
    if text:
        raise ValueError(f"{found.path} must be a whole V-JEPA 2 of transformers, got {text}. Copy or save it again.")
    tokens = parts["predictor"].pop("mask_tokens", None)
    if tokens is not None:
        parts["predictor"] |= {f"mask_tokens.{i}": t for i, t in enumerate(tokens)}
    return parts


def fits(found: Found) -> bool:
    state = found.entries.get("", {})
    patch = state.get(_PATCH, state.get(f"vjepa2.{_PATCH}"))
    return found.config.get("model_type", "vjepa2") == "vjepa2" and patch is not None and patch.dim() == 5


def read(found: Found, asked: Asked) -> Opened:
    config, parts = found.config, renamed(found.group(""), found)
    refuse_settings(found, {"hidden_act": "gelu", "qkv_bias": True})
    state = parts["encoder"]
    width, channels, tubelet, patch, _ = shape_of(state, "patch_embed.proj.weight", 5, found)
    depth = int(config.get("num_hidden_layers", depth_of(state, "blocks.")))
    hidden = shape_of(state, "blocks.0.mlp.fc1.weight", 2, found)[0]
    heads = heads_of("encoder", width, _told(found, "num_attention_heads", width, HEADS_V2), asked, found)
    known = Clipped(
        Size(width, depth, heads, hidden / width), patch, tubelet, channels,
        asked.frames or int(config.get("frames_per_clip", 64)), asked.size or int(config.get("crop_size", 256)),
    )  # fmt: skip
    eps = eps_of(found, 1e-6)
    made = {
        "encoder": Part("", lambda: eps(ClipViT(
            known.shape, patch=patch, tubelet=tubelet, size=known.size, frames=known.frames, channels=channels,
            pos="rope-tiled",
        )), state, _theirs("encoder")),
    }  # fmt: skip
    if parts["predictor"]:
        made["predictor"] = _predictor(found, asked, known, parts["predictor"])
    if parts["classifier"]:
        classes = shape_of(parts["classifier"], "linear.weight", 2, found)[0]
        blocks = int(config.get("num_pooler_layers", depth_of(parts["classifier"], "pooler.blocks.")))
        made["classifier"] = Part("", lambda: eps(PublishedClassifier(
            width, classes, heads=heads, blocks=blocks, eps=1e-6,
        )), parts["classifier"], _theirs("classifier"))  # fmt: skip
    return Opened(
        made,
        _as_told(known.preprocess(fps=4.0), found),
        f"{words(known.shape, patch)} at {known.size}, {known.frames} frames",
        notes=("the published files of this kind hold the online encoder, not the target",),
    )


def _as_told(prepared: ClipPreprocess, found: Found) -> ClipPreprocess:
    """With the mean and deviation of the processor beside the weights, where there is one."""
    told = found.prepared
    if "image_mean" not in told or "image_std" not in told:
        return prepared
    values = prepared.as_dict() | {"mean": list(told["image_mean"]), "std": list(told["image_std"])}
    return ClipPreprocess.from_dict(values, str(found.path))


def _predictor(found: Found, asked: Asked, known: Clipped, state: State) -> Part:
    width = shape_of(state, "predictor_embed.weight", 2, found)[0]
    depth = int(found.config.get("pred_num_hidden_layers", depth_of(state, "predictor_blocks.")))
    heads = heads_of("predictor", width, _told(found, "pred_num_attention_heads", width, {384: 12}), asked, found)
    tokens = int(found.config.get("pred_num_mask_tokens", sum(k.startswith("mask_tokens.") for k in state)))
    eps = eps_of(found, 1e-6)
    return Part("", lambda: eps(ClipPredictor(
        known.shape.width, known.grid, width=width, depth=depth, heads=heads, pos="rope-tiled", mask_tokens=tokens,
    )), state, _theirs("predictor"))  # fmt: skip


def _told(found: Found, name: str, width: int, table: dict[int, int]) -> dict[int, int]:
    return {width: int(found.config[name])} if name in found.config else table


def _theirs(part: str) -> Callable[[str], str]:
    """Our key of a part as the file has it, for messages."""
    flat = {v: k for k, v in _TOP.items()}
    style = "classifier" if part == "classifier" else "model"
    inside = {v.partition("/")[0]: k for k, v in reversed(_INSIDE.items()) if _style(k) in (style, "both")}

    def name(key: str) -> str:
        base, _, kind = key.rpartition(".")
        for at in ("", "/0"):
            if f"{part}:{base}{at}" in flat:
                return f"{flat[f'{part}:{base}{at}']}.{kind}"
        for pattern, start in _BLOCKS:
            block = re.match(re.escape(start.partition(":")[2]) + r"(\d+)\.", base)
            if start.startswith(f"{part}:") and block and base[block.end() :] in inside:
                front = pattern.replace("\\", "").replace("(d+)", block[1])
                return f"{front}{inside[base[block.end() :]]}.{kind}"
        return key

    return name


def _style(name: str) -> str:
    """Which blocks have a name inside: those of the model, of the classifier, or both."""
    if name.startswith(("self_attn", "layer_norm")):
        return "classifier"
    return "model" if name.startswith(("attention", "norm")) else "both"


LAYOUT = Layout(
    name="V-JEPA 2 of transformers",
    licence="MIT",
    source="Assran et al. 2025, arXiv 2506.09985; huggingface.co/facebook",
    fits=fits,
    read=read,
    keys=(
        r"(vjepa2\.)?encoder\.(embeddings\.patch_embeddings\.proj|layernorm)\.(weight|bias)",
        r"(vjepa2\.)?(encoder|predictor)\.layer\.\d+\.(norm[12]|attention\.(query|key|value|proj)|mlp\.fc[12])\.(weight|bias)",
        r"(vjepa2\.)?predictor\.(embeddings\.predictor_embeddings\.|layernorm\.|proj\.)(weight|bias)",
        r"(vjepa2\.)?predictor\.embeddings\.mask_tokens",
        r"(pooler|classifier)\..+",
    ),
    needs=(_PATCH, "encoder.layer.0.attention.query.weight", "encoder.layernorm.weight"),
)
