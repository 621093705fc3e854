"""What methods on a frozen encoder share: how it is given, that it stays as it is, and its patch tokens."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from openjepa.core.types import Space
from openjepa.methods.base import Method
from openjepa.nn import Encoder, EncoderConfig, build_clip_encoder
from openjepa.nn.vector import StateTokens, build_observer


class OnFrozen(Method):
    """A method whose `encoder` is given: always in evaluation mode, never with a gradient, saved with the rest.

    obs  (C, H, W) of the pictures, which may be of another size than those that the encoder was trained on
    """

    eats = "windows"
    encoder: Encoder
    obs: tuple[int, ...]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def patches(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), without prefix tokens. To an encoder of clips each picture is a whole tubelet."""
        return self.encoder(obs)[:, self.encoder.prefix :]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the N patches of one picture."""
        patch = self.encoder.patch
        if patch is None:
            return self.encoder.grid[-2], self.encoder.grid[-1]
        return self.obs[1] // patch, self.obs[2] // patch


def frozen_encoder(
    cfg: EncoderConfig,
    space: Space,
    *,
    module: nn.Module | None = None,
    checkpoint: str | None = None,
    clips: bool = False,
) -> Encoder:
    """The encoder for pictures of `space`, without gradients.

    clips       `cfg` names an encoder of clips, for one tubelet at a time
    module      the network itself, with its weights; else the one `cfg` names is built
    checkpoint  where its weights lie. Methods read no files: whoever builds the method opens it and passes `module`.
                Without one it is refused, rather than silently left random
    """
    if not space.pictures:
        raise ValueError(f"observations must be pictures (C, H, W) for a frozen encoder, got {space.obs}. Use state.")
    if checkpoint and module is None:
        raise ValueError(
            f"the encoder of checkpoint {checkpoint} must be opened and passed as encoder=, got none. "
            "Do openjepa train, which does, or init_from with the encoder's settings."
        )
    if clips and module is None:
        module = build_clip_encoder(cfg, size=space.obs[1], channels=space.obs[0], frames=cfg.tubelet)
    encoder = build_observer(cfg, space, encoder=module)
    assert not isinstance(encoder, StateTokens)
    if encoder.patch is not None and space.obs[1] % encoder.patch:
        raise ValueError(
            f"pictures must be a multiple of the encoder's patches of {encoder.patch} pixels, got {space.obs[1]}. "
            "Resize them, or take another checkpoint."
        )
    return encoder.requires_grad_(False).eval()
