"""I-JEPA weights under the names of `transformers`, and back. Renaming only: dictionaries in, dictionaries out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor

State = dict[str, Tensor]

_TOP = {  # ours -> theirs
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_V4 = {  # inside block i, under "encoder.layer.i."
    "norm1": "layernorm_before",
    "attn.q": "attention.attention.query",
    "attn.k": "attention.attention.key",
    "attn.v": "attention.attention.value",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_V5 = {  # inside block i, under "layers.i."
    "norm1": "layernorm_before",
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_BLOCK = re.compile(r"(?:encoder\.layer|encoder\.layers|layers)\.(\d+)\.(.+)\.(weight|bias)")
_HEADS = ("classifier.", "pooler.")  # of fine-tuned models: no part of an encoder


def from_hf_ijepa(state: Mapping[str, Tensor]) -> State:
    """The state of our ViT from that of an `IJepaModel`, written by transformers 4 or 5.

    A prefix "ijepa." is taken off, a classifier or pooler is left out; q, k and v become one matrix, in this order.
    Every other key must be known, and q, k and v complete: a ValueError names what is not.

    >>> ours = from_hf_ijepa({"ijepa.layernorm.weight": torch.ones(4), "classifier.bias": torch.zeros(2)})
    >>> list(ours)
    ['norm.weight']
    """
    top, inside = {v: k for k, v in _TOP.items()}, {v: k for names in (_V4, _V5) for k, v in names.items()}
    ours: State = {}
    parts: dict[str, State] = {}
    unknown, doubled = [], []
    for key, value in state.items():
        name, block = key.removeprefix("ijepa."), _BLOCK.fullmatch(key.removeprefix("ijepa."))
        if name in top:
            doubled += [key] if top[name] in ours else []
            ours[top[name]] = value
        elif block and block[2] in inside:
            ours_name, kind = f"blocks.{block[1]}.{inside[block[2]]}", block[3]
            if ours_name[-1] in "qkv" and ours_name[-2] == ".":
                pieces = parts.setdefault(f"{ours_name[:-1]}qkv.{kind}", {})
                doubled += [key] if ours_name[-1] in pieces else []
                pieces[ours_name[-1]] = value
            else:
                doubled += [key] if f"{ours_name}.{kind}" in ours else []
                ours[f"{ours_name}.{kind}"] = value
        elif not name.startswith(_HEADS):
            unknown.append(key)
    broken = [name for name, qkv in parts.items() if set(qkv) != set("qkv")]
    if unknown or broken or doubled:
        what = f"unknown {unknown[:5]}" if unknown else f"q, k or v missing for {broken[:5]}"
        what = f"doubled {doubled[:5]}" if doubled else what
        raise ValueError(f"state must be that of an IJepaModel with biases, got {what}. Check the model type.")
    return ours | {name: torch.cat([qkv["q"], qkv["k"], qkv["v"]]) for name, qkv in parts.items()}


def hf_ijepa_name(key: str, version: str = "4") -> str:
    """A key of our ViT as `transformers` 4 or 5 call it, for messages; the query's stands for the joined q, k and v.

    >>> hf_ijepa_name("blocks.2.attn.qkv.bias", "5")
    'layers.2.attention.q_proj.bias'
    """
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", key)
    inside, where = (_V4, "encoder.layer") if version == "4" else (_V5, "layers")
    name = block and inside.get(block[2].replace("attn.qkv", "attn.q"))
    return f"{where}.{block[1]}.{name}.{block[3]}" if block and name else _TOP.get(key, key)


def to_hf_ijepa(state: Mapping[str, Tensor], names: Literal["v4", "v5"] = "v4") -> State:
    """The state of an `IJepaModel` from that of our ViT (sine-cosine positions, no class token, no registers).

    Names of transformers 4 by default, which both 4 and 5 open with `from_pretrained`.

    >>> theirs = to_hf_ijepa({"blocks.0.attn.qkv.bias": torch.arange(6.0), "pos_embed": torch.zeros(1, 4, 2)})
    >>> theirs["encoder.layer.0.attention.attention.key.bias"]
    tensor([2., 3.])
    """
    if "patch_embed.convs.0.weight" in state:
        raise ValueError(
            "the encoder must have a plain patch projection to become an IJepaModel, got the convolutions of "
            "stem='conv'. Export it in our own format."
        )
    if "prefix_tokens" in state or "pos_embed" not in state:
        raise ValueError(
            "the encoder must have sine-cosine positions, no class token and no registers to become an IJepaModel, "
            f"got {'prefix tokens' if 'prefix_tokens' in state else 'rotary positions'}. Export it in our own format."
        )
    inside, where = (_V4, "encoder.layer") if names == "v4" else (_V5, "layers")
    theirs: State = {}
    for key, value in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", key)
        if key in _TOP:
            theirs[_TOP[key]] = value
        elif block and block[2] == "attn.qkv":
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                theirs[f"{where}.{block[1]}.{inside[f'attn.{part}']}.{block[3]}"] = piece.contiguous()
        elif block and block[2] in inside:
            theirs[f"{where}.{block[1]}.{inside[block[2]]}.{block[3]}"] = value
        else:
            raise ValueError(f"state must be that of a ViT, got the key {key!r}. Other encoders have no such form.")
    return theirs


def hf_ijepa_config(state: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """The config.json of the `IJepaModel` that holds our ViT `state`; sizes are read off the weights.

    >>> from openjepa.nn import build_encoder
    >>> config = hf_ijepa_config(build_encoder("vit_micro/4", size=16).state_dict(), heads=3)
    >>> config["hidden_size"], config["num_hidden_layers"], config["image_size"], config["layer_norm_eps"]
    (96, 4, 16, 1e-06)
    """
    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    side = isqrt(state["pos_embed"].shape[1])
    return {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": width,
        "num_hidden_layers": 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks.")),
        "num_attention_heads": heads,
        "intermediate_size": state["blocks.0.mlp.fc1.weight"].shape[0],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
        "image_size": side * patch,
        "patch_size": patch,
        "num_channels": channels,
        "qkv_bias": True,
    }
