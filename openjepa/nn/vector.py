"""One vector per observation: a pooling, a Linear map and a norm behind any encoder, and an encoder of states."""

from __future__ import annotations

from torch import Tensor, nn

from openjepa.core.types import Space
from openjepa.nn.adapters import wrap
from openjepa.nn.config import EncoderConfig
from openjepa.nn.encoder import Encoder, pool
from openjepa.nn.state import mlp


class StateTokens(nn.Module):
    """A state as one token, (B, S) -> (B, 1, dim), for methods that take pictures or states alike."""

    def __init__(self, size: int, dim: int = 256, layers: int = 3):
        super().__init__()
        self.dim, self.grid, self.prefix = dim, (1, 1), 0
        self.net = mlp(size, dim, dim, layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, None]


class VectorHead(nn.Module):
    """Tokens of `encoder` to one vector, (B, prefix + N, D) -> (B, dim): pooling, Linear, and a layer norm with `norm`.

    pooling  "flatten" keeps the place of every token, which a mean forgets; else as `openjepa.nn.pool`
    dim      None leaves the pooled features as they are

    >>> import torch; from openjepa.nn import build_encoder
    >>> encoder = build_encoder("vit_micro/4", size=16)
    >>> VectorHead(encoder, dim=8)(encoder(torch.zeros(2, 3, 16, 16))).shape
    torch.Size([2, 8])
    """

    def __init__(
        self, encoder: Encoder | StateTokens, *, dim: int | None, pooling: str = "flatten", norm: bool = False
    ):
        super().__init__()
        self.prefix, self.pooling = encoder.prefix, pooling
        tokens = encoder.grid[0] * encoder.grid[1]
        width = encoder.dim * (tokens if pooling == "flatten" else len(pooling.split("+")))
        self.dim = dim or width
        self.linear = nn.Linear(width, dim) if dim else nn.Identity()
        self.norm = nn.LayerNorm(self.dim) if norm else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        if self.pooling == "flatten":
            return self.norm(self.linear(tokens[:, self.prefix :].flatten(1)))
        return self.norm(self.linear(pool(tokens, self.prefix, self.pooling)))


def build_observer(cfg: EncoderConfig, space: Space, *, encoder: nn.Module | None = None) -> Encoder | StateTokens:
    """The encoder for observations of `space`: the one `cfg` names (or `encoder`) for pictures, an MLP for states.

    >>> import torch
    >>> build_observer(EncoderConfig(name="vit_micro/4"), Space(obs=(5,)))(torch.zeros(2, 5)).shape
    torch.Size([2, 1, 256])
    """
    from openjepa.nn import build_encoder  # the table stands above this file

    if not space.pictures:
        return StateTokens(space.obs[0])
    channels, height, side = space.obs
    if height != side:
        raise ValueError(f"pictures must be square, got {height} x {side}. Do crop or resize them when collecting.")
    if encoder is None:
        return build_encoder(cfg, size=side, channels=channels)
    return wrap(encoder, size=side, channels=channels)
