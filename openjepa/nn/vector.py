"""One vector per observation: any encoder of pictures behind a pooling and a Linear map, or an MLP on states."""

from __future__ import annotations

from torch import Tensor, nn

from openjepa.core.types import Space
from openjepa.nn.adapters import wrap
from openjepa.nn.config import EncoderConfig
from openjepa.nn.encoder import Encoder, pool
from openjepa.nn.state import StateEncoder


class VectorEncoder(nn.Module):
    """Pictures to vectors, (B, C, H, W) -> (B, dim): encoder, pooling, Linear, and a layer norm with `norm`.

    pooling  "flatten" keeps the place of every token, which a mean forgets; else as `openjepa.nn.pool`
    dim      None leaves the pooled features as they are

    >>> import torch; from openjepa.nn import build_encoder
    >>> VectorEncoder(build_encoder("vit_micro/4", size=16), dim=8)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 8])
    """

    def __init__(self, encoder: Encoder, *, dim: int | None, pooling: str = "flatten", norm: bool = False):
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        tokens = encoder.grid[0] * encoder.grid[1]
        width = encoder.dim * (tokens if pooling == "flatten" else len(pooling.split("+")))
        self.dim = dim or width
        self.head = nn.Linear(width, dim) if dim else nn.Identity()
        self.norm = nn.LayerNorm(self.dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        tokens, prefix = self.encoder(x), self.encoder.prefix
        flat = tokens[:, prefix:].flatten(1) if self.pooling == "flatten" else pool(tokens, prefix, self.pooling)
        return self.norm(self.head(flat))


class StateVector(nn.Module):
    """States to vectors, (B, S) -> (B, dim), for methods that take pictures or states alike."""

    def __init__(self, size: int, *, dim: int, norm: bool = False):
        super().__init__()
        self.dim = dim
        self.net = StateEncoder(size, dim, fill="zero", indicator=False)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.net(x))


def build_vector(
    cfg: EncoderConfig,
    space: Space,
    *,
    dim: int | None,
    pooling: str = "flatten",
    norm: bool = False,
    encoder: nn.Module | None = None,
) -> VectorEncoder | StateVector:
    """The encoder for observations of `space`: the one `cfg` names (or `encoder`) for pictures, an MLP for states.

    >>> import torch
    >>> build_vector(EncoderConfig(name="vit_micro/4"), Space(obs=(5,)), dim=8)(torch.zeros(2, 5)).shape
    torch.Size([2, 8])
    """
    from openjepa.nn import build_encoder  # the table stands above this file

    if not space.pictures:
        return StateVector(space.obs[0], dim=dim or 192, norm=norm)
    channels, height, side = space.obs
    if height != side:
        raise ValueError(f"pictures must be square, got {height} x {side}. Do crop or resize them when collecting.")
    built = (
        build_encoder(cfg, size=side, channels=channels)
        if encoder is None
        else wrap(encoder, size=side, channels=channels)
    )
    return VectorEncoder(built, dim=dim, pooling=pooling, norm=norm)
