"""Networks on clips under the names of transformers' VJEPA2Model: renaming only; what has no place there is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from openjepa.interop.files import State, read_weights
from openjepa.interop.model import Model
from openjepa.interop.preprocess import ClipPreprocess
from openjepa.nn.clip_predictor import ClipPredictor
from openjepa.nn.clip_vit import ClipViT

_TOP = {
    "patch_embed.proj": "encoder.embeddings.patch_embeddings.proj",
    "norm": "encoder.layernorm",
    "predictor_embed": "predictor.embeddings.predictor_embeddings",
    "predictor_norm": "predictor.layernorm",
    "predictor_proj": "predictor.proj",
}
_BLOCK = re.compile(r"(predictor_)?blocks\.(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)")


def to_hf_vjepa2(state: Mapping[str, Tensor]) -> State:
    """The state of a `VJEPA2Model` from that of our `ClipViT` or `ClipPredictor`, or of both together.

    >>> theirs = to_hf_vjepa2({"blocks.0.attn.qkv.bias": torch.arange(6.0), "norm.bias": torch.zeros(2)})
    >>> theirs["encoder.layer.0.attention.value.bias"], "encoder.layernorm.bias" in theirs
    (tensor([4., 5.]), True)
    """
    theirs: State = {}
    tokens = {int(k.split(".")[1]): v for k, v in state.items() if k.startswith("mask_tokens.")}
    for key, value in state.items():
        block = _BLOCK.fullmatch(key)
        name, _, kind = key.rpartition(".")
        if block:
            where = f"{'predictor' if block[1] else 'encoder'}.layer.{block[2]}"
            if block[3] == "attn.qkv":
                for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    theirs[f"{where}.attention.{part}.{block[4]}"] = piece.contiguous()
            else:
                theirs[f"{where}.{block[3].replace('attn.proj', 'attention.proj')}.{block[4]}"] = value
        elif name in _TOP:
            theirs[f"{_TOP[name]}.{kind}"] = value
        elif not key.startswith("mask_tokens."):
            raise ValueError(f"state must be that of a V-JEPA 2, got the key {key!r}. Export it in our own format.")
    if tokens:
        theirs["predictor.embeddings.mask_tokens"] = torch.stack([tokens[i] for i in range(len(tokens))])
    return theirs


def expressible(encoder: ClipViT) -> None:
    """A `ValueError` that says why, when transformers' VJEPA2Model cannot be this encoder."""
    why = None
    if encoder.pos == "sincos":
        why = "sine-cosine positions, where a VJEPA2Model turns its queries and keys (encoder.pos=rope-tiled)"
    elif encoder.pos == "rope":
        why = "the rotary positions of V-JEPA 2.1, where a VJEPA2Model has those of 2 (encoder.pos=rope-tiled)"
    elif encoder.levels is not None:
        why = f"{len(encoder.levels)} levels with norms of their own, where a VJEPA2Model has one"
    elif encoder.patch_embed_img is not None:
        why = "a projection of single frames, which a VJEPA2Model has not"
    if why is not None:
        raise ValueError(
            f"encoder must be that of a V-JEPA 2 to become a VJEPA2Model, got one with {why}. "
            "Export it in our own format or as ONNX."
        )


def hf_vjepa2(model: Model) -> tuple[State, dict[str, Any]]:
    """Weights and config.json of the `VJEPA2Model` with the encoder of `model`, and its predictor where it is known.

    Without a predictor only the encoder's weights are written: transformers then says that it made up the rest, and
    `last_hidden_state` with skip_predictor=True is right all the same.
    """
    encoder, prepare = model.encoder, model.preprocess
    assert isinstance(encoder, ClipViT) and isinstance(prepare, ClipPreprocess)
    expressible(encoder)
    state = encoder.state_dict()
    config: dict[str, Any] = {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "patch_size": encoder.patch,
        "crop_size": encoder.grid[1] * encoder.patch,
        "frames_per_clip": prepare.frames,
        "tubelet_size": encoder.tubelet,
        "hidden_size": encoder.dim,
        "in_chans": encoder.channels,
        "num_attention_heads": encoder.dim // encoder.head_dim,
        "num_hidden_layers": len(encoder.blocks),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / encoder.dim,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "drop_path_rate": 0.0,
    }
    weights = to_hf_vjepa2(state)
    predictor, heads = predictor_of(model)
    if predictor is not None:
        width = predictor["predictor_embed.weight"].shape[0]
        config |= {
            "pred_hidden_size": width,
            "pred_num_attention_heads": heads,
            "pred_num_hidden_layers": 1 + max(int(k.split(".")[1]) for k in predictor if "_blocks." in k),
            "pred_num_mask_tokens": sum(k.startswith("mask_tokens.") for k in predictor),
            "pred_mlp_ratio": predictor["predictor_blocks.0.mlp.fc1.weight"].shape[0] / width,
            "pred_zero_init_mask_tokens": False,
        }
        weights |= to_hf_vjepa2(predictor)
    return weights, config


def predictor_of(model: Model) -> tuple[State | None, int]:
    """The state of a model's predictor and its heads: read with it, or lying beside its weights in a run; else None."""
    part = model.parts.get("predictor")
    if isinstance(part, ClipPredictor):
        return part.state_dict(), part.predictor_norm.normalized_shape[0] // part.head_dim
    beside = None if model.source is None else model.source.parent / "predictor.safetensors"
    if beside is None or not beside.is_file():
        return None, 0
    state = read_weights(beside)
    known = "predictor_embed.weight" in state and "predictor_proj_context.weight" not in state
    if not known or "predictor_pos_embed" in state:
        return None, 0
    method = model.config.get("method")
    heads = method.get("predictor_heads") if isinstance(method, Mapping) else None
    assert isinstance(model.encoder, ClipViT)
    return state, int(heads or model.encoder.dim // model.encoder.head_dim)


def hf_video_processor(prepare: ClipPreprocess, resample: int) -> dict[str, Any]:
    """video_preprocessor_config.json: size, crop and normalisation of the frames, as transformers reads them."""
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        "do_convert_rgb": prepare.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": int(prepare.size * prepare.short)},
        "resample": resample,
        "do_center_crop": True,
        "crop_size": {"height": prepare.size, "width": prepare.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(prepare.mean),
        "image_std": list(prepare.std),
    }
