"""LeWM as its authors publish it: one state of a ViT (names of transformers 4 or 5), projectors and predictor."""

from __future__ import annotations

import re

import torch

from openjepa.interop.files import State
from openjepa.interop.hf import hf_ijepa_name
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened, Part
from openjepa.interop.layouts.shapes import depth_of, heads_of, shape_of, square, words
from openjepa.interop.layouts.told import renamed_vit
from openjepa.interop.preprocess import Preprocess
from openjepa.nn.lewm_published import PublishedLeWM
from openjepa.nn.vit import Size, ViT

HEAD_DIM = 64
_CLS, _POS = "embeddings.cls_token", "embeddings.position_embeddings"
_LAYER = "predictor.transformer.layers."


def fits(found: Found) -> bool:
    state = found.entries.get("", {})
    return f"encoder.{_CLS}" in state and "predictor.pos_embedding" in state


def read(found: Found, asked: Asked) -> Opened:
    state = found.group("")
    vit = _encoder({k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}, found)
    rest = {k: v for k, v in state.items() if not k.startswith("encoder.")}
    width, channels, patch, _ = shape_of(vit, "patch_embed.proj.weight", 4, found)
    depth, hidden = depth_of(vit, "blocks."), shape_of(vit, "blocks.0.mlp.fc1.weight", 2, found)[0]
    side = square(shape_of(vit, "pos_embed", 3, found)[1], found, "positions")
    heads = heads_of("encoder", width, {192: 3, 384: 6, 768: 12}, asked, found)
    shape = Size(width, depth, heads, hidden / width)
    _, history, dim = shape_of(state, "predictor.pos_embedding", 3, found)
    inner = shape_of(state, f"{_LAYER}0.attn.to_qkv.weight", 2, found)[0] // 3
    count = asked.heads.get("predictor") or max(1, inner // HEAD_DIM)
    smoothed, action, _ = shape_of(state, "action_encoder.patch_embed.weight", 3, found)
    sizes = {
        "action": action, "dim": dim, "history": history, "depth": depth_of(state, _LAYER), "heads": count,
        "head_dim": inner // count, "mlp": shape_of(state, f"{_LAYER}0.mlp.net.1.weight", 2, found)[0],
        "hidden": shape_of(state, "projector.net.0.weight", 2, found)[0], "smoothed": smoothed,
        "action_hidden": shape_of(state, "action_encoder.embed.0.weight", 2, found)[0],
    }  # fmt: skip

    def make() -> PublishedLeWM:
        encoder = ViT(shape, patch=patch, size=side * patch, channels=channels, cls=True)
        for m in encoder.modules():
            if isinstance(m, torch.nn.LayerNorm):
                m.eps = 1e-12  # that of transformers' ViT
        return PublishedLeWM(encoder, **sizes)

    size = side * patch
    left = [k for k in state if k.startswith("encoder.pooler.")]
    notes = (f"predictor of {sizes['depth']} layers, {count} heads of {inner // count}, history {history}; actions of "
             f"{action} numbers", "z is what world.encode gives: the projected class token")  # fmt: skip
    return Opened(
        {"world": Part("", make, {f"encoder.{k}": v for k, v in vit.items()} | rest, _theirs)},
        Preprocess(size=size, channels=channels).grey_or_colour(),
        f"{words(shape, patch)} at {size}",
        pooling="cls",
        ignored=dict.fromkeys(left, "a pooler that nothing reads"),
        notes=notes,
    )


def _encoder(state: State, found: Found) -> State:
    """A ViT of transformers as ours: the class token carries its position, the patches' table is apart."""
    token, table = shape_of(state, _CLS, 3, found), shape_of(state, _POS, 3, found)
    if token[2] != table[2] or table[1] < 2:
        raise ValueError(f"{found.path} must hold a class token and positions of one width, got {token} and {table}.")
    plain = {k: v for k, v in state.items() if k not in (_CLS, _POS)}
    ours = renamed_vit(plain | {_POS: state[_POS][:, 1:]}, found)
    return ours | {"prefix_tokens": state[_CLS] + state[_POS][:, :1]}


def _theirs(key: str) -> str:
    if not key.startswith("encoder."):
        return key
    return f"encoder.{_CLS}" if key == "encoder.prefix_tokens" else f"encoder.{hf_ijepa_name(key[8:], '4')}"


LAYOUT = Layout(
    name="LeWM",
    licence="not stated beside the weights; the code it trains with (stable-worldmodel) is MIT",
    source="LeWorldModel, github.com/lucas-maes/le-wm; huggingface.co/quentinll",
    fits=fits,
    read=read,
    keys=(
        r"encoder\.embeddings\..+",
        r"encoder\.(encoder\.layer|encoder\.layers|layers)\.\d+\..+\.(weight|bias)",
        r"encoder\.layernorm\.(weight|bias)",
        r"(projector|pred_proj)\.net\.[013]\.(weight|bias|running_mean|running_var|num_batches_tracked)",
        r"action_encoder\.(patch_embed|embed\.[02])\.(weight|bias)",
        r"predictor\.pos_embedding",
        re.escape("predictor.transformer.") + r"(norm|layers\.\d+\..+)\.(weight|bias)",
    ),
    needs=(f"encoder.{_CLS}", "predictor.pos_embedding", "projector.net.0.weight"),
)
