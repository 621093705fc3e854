"""Networks: shapes in, shapes out, never a loss. `ENCODERS` is the table of encoders; add one with one line here."""

from __future__ import annotations

from collections.abc import Callable

from openjepa.nn.adapters import build_outside, wrap
from openjepa.nn.clip_predictor import ClipPredictor
from openjepa.nn.clip_vit import ClipViT, build_clip_encoder
from openjepa.nn.config import EncoderConfig
from openjepa.nn.conv import RESNETS, build_convnet_tiny, build_resnet
from openjepa.nn.convnext import SHAPES, build_convnext
from openjepa.nn.encoder import Encoder, pool
from openjepa.nn.heads import AttentiveHead, LinearHead, Projector
from openjepa.nn.impala import build_convnet_lean, build_impala
from openjepa.nn.keypoints import build_keypoints
from openjepa.nn.layers import BatchNorm
from openjepa.nn.predictor import MaskedPredictor
from openjepa.nn.vit import SIZES, ViT, build_vit

ENCODERS: dict[str, Callable[..., Encoder]] = {
    **dict.fromkeys(SIZES, build_vit),
    **dict.fromkeys(SHAPES, build_convnext),
    **dict.fromkeys(RESNETS, build_resnet),
    "convnet_tiny": build_convnet_tiny,
    "convnet_lean": build_convnet_lean,
    "impala": build_impala,
    "keypoints": build_keypoints,
}


def build_encoder(cfg: EncoderConfig | str, *, size: int, channels: int = 3) -> Encoder:
    """The encoder that `cfg` names, for pictures of `size` x `size` pixels; its weights are drawn by torch's generator.

    >>> encoder = build_encoder("vit_micro/4", size=16)
    >>> encoder.dim, encoder.grid, encoder.patch
    (96, (4, 4), 4)
    """
    cfg = EncoderConfig.model_validate(cfg)
    cfg.refuse("tubelet", "levels", "picture_patch")  # those of clips
    if cfg.outside:
        return build_outside(cfg, size=size, channels=channels)
    return ENCODERS[cfg.base](cfg, size=size, channels=channels)
