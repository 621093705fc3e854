"""Encoders that other people wrote: any module of the user, and lazily those of timm and transformers."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.nn.config import EncoderConfig
from openjepa.nn.conv import as_tokens
from openjepa.nn.encoder import Encoder, block_indices

PREFIXES = (0, 1, 2, 5)  # what published transformers put in front of a square of patches: class token, registers


class Wrapped(Encoder):
    """A foreign module as an encoder. Its output may be, with or without a tuple or a `last_hidden_state` around it:

    (B, D)        one vector per picture: one token, grid (1, 1)
    (B, N, D)     tokens: a square of patches behind 0, 1, 2 or 5 prefix tokens; else N tokens in one row
    (B, D, h, w)  a map: h * w tokens in raster order
    """

    def __init__(self, module: nn.Module, *, size: int, channels: int, prefix: int | None = None):
        super().__init__()
        self.module, self.blocks = module, nn.ModuleList()
        out = self._probe(size, channels)
        if out.dim() == 4:
            self.dim, self.grid = out.shape[1], (out.shape[2], out.shape[3])
        elif out.dim() == 3:
            self.dim = out.shape[2]
            self.prefix, self.grid = _layout(out.shape[1], prefix)
        else:
            self.dim, self.grid = out.shape[1], (1, 1)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is not None:
            raise ValueError(
                "keep must be None for a wrapped module, which needs whole pictures. Use a ViT of the table."
            )
        out = _features(self.run(self.module, x))
        return as_tokens(out) if out.dim() == 4 else out if out.dim() == 3 else out[:, None]  # (B, N, D)

    def layers(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Only the last layer is known of a foreign module: `indices` may hold -1 (or 0) alone."""
        if any(i not in (-1, 0) for i in indices):
            raise ValueError(f"layers must be -1 for a wrapped module, got {list(indices)}. Its insides are not known.")
        out = self(x)
        return [out for _ in indices]

    @torch.no_grad()
    def _probe(self, size: int, channels: int) -> Tensor:
        """The output for two empty pictures, in evaluation mode so that no running statistic moves."""
        modes = {m: m.training for m in self.module.modules()}
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        self.module.eval()
        try:
            out = _features(self.module(torch.zeros(2, channels, size, size, device=device)))
        finally:
            for m, training in modes.items():
                m.training = training
        if out.dim() not in (2, 3, 4) or out.shape[0] != 2:
            raise ValueError(
                f"module must return (B, D), (B, N, D) or (B, D, h, w), got {tuple(out.shape)} for 2 pictures. "
                "Wrap it in a module that returns one of these."
            )
        return out


def _features(out: Any) -> Tensor:
    if isinstance(out, Mapping):
        if "last_hidden_state" not in out:
            raise ValueError(f"module must return last_hidden_state, got {sorted(out)}. Use a model without a head.")
        out = out["last_hidden_state"]
    if isinstance(out, tuple | list):
        out = out[0]
    if not isinstance(out, Tensor):
        raise ValueError(f"module must return a tensor, got {type(out).__name__}. Wrap it in a module that does.")
    return out


def _layout(tokens: int, prefix: int | None) -> tuple[int, tuple[int, int]]:
    """Prefix and grid of `tokens` tokens."""
    if prefix is not None:
        side = isqrt(tokens - prefix)
        return prefix, (side, side) if side * side == tokens - prefix else (1, tokens - prefix)
    side = isqrt(tokens)
    if side > 1 and tokens - side * side in PREFIXES:
        return tokens - side * side, (side, side)
    return 0, (1, tokens)


def wrap(module: nn.Module, *, size: int, channels: int = 3, prefix: int | None = None) -> Encoder:
    """Any `nn.Module` that takes pictures (B, channels, size, size) as an encoder; an encoder is returned as it is.

    It is run once on two empty pictures to learn its shape. `prefix`, the number of tokens in front of the patches, is
    guessed when not given. Prefer a module without its classification head.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
    >>> encoder = wrap(net, size=16)
    >>> encoder.dim, encoder.grid, encoder(torch.zeros(2, 3, 16, 16)).shape
    (8, (4, 4), torch.Size([2, 16, 8]))
    """
    return module if isinstance(module, Encoder) else Wrapped(module, size=size, channels=channels, prefix=prefix)


class _Timm(nn.Module):
    """A timm model up to its last map or tokens, maps as (B, D, h, w)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> Tensor:
        out = self.model.forward_features(x)
        d = self.model.num_features
        if out.dim() == 4 and out.shape[1] != d and out.shape[3] == d:  # some of its models put features last
            out = out.permute(0, 3, 1, 2)
        return out


class _HuggingFace(nn.Module):
    """A transformers model fed with pictures of any size that it can take."""

    def __init__(self, model: Any):
        super().__init__()
        self.model: Any = model
        self.native = model.config.to_dict().get("image_size")
        self.resizable = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters

    def forward(self, x: Tensor, hidden: bool = False) -> Any:
        options = {"output_hidden_states": True} if hidden else {}
        if self.resizable and tuple(x.shape[2:]) not in {(self.native, self.native), self.native}:
            options["interpolate_pos_encoding"] = True
        return self.model(pixel_values=x, **options)


class HuggingFace(Wrapped):
    """A transformers model as an encoder; it also gives the tokens after each of its layers."""

    def layers(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Tokens after the layers `indices`, as the model reports them; -1 equals `forward(x)`."""
        module: Any = self.module
        depth = module.model.config.num_hidden_layers
        wanted = block_indices(indices, depth)
        out = module(x, hidden=True)
        states = [*out["hidden_states"][1:-1], out["last_hidden_state"]]  # without the embeddings
        return [states[i] for i in wanted]


def build_outside(cfg: EncoderConfig, *, size: int, channels: int) -> Encoder:
    """The encoder of a "timm/", "hf/" or "py:" name."""
    cfg.refuse("patch", "pos", "cls", "registers", "width", "depth", "heads", "stem")
    kind = next(p for p in _BUILDERS if cfg.name.startswith(p))
    return _BUILDERS[kind](cfg, cfg.name[len(kind) :], size, channels)


def _timm(cfg: EncoderConfig, name: str, size: int, channels: int) -> Encoder:
    timm = _library("timm")
    options: dict[str, Any] = {"pretrained": cfg.pretrained, "num_classes": 0, "in_chans": channels}
    options["drop_path_rate"] = cfg.drop_path
    try:
        try:
            model = timm.create_model(name, img_size=size, **options)
        except TypeError:  # conv nets know no picture size
            model = timm.create_model(name, **options)
    except (RuntimeError, TypeError) as e:
        raise ValueError(f"timm must know the model {name!r}, got: {_first_line(e)}. Try timm.list_models().") from e
    return wrap(_Timm(model), size=size, channels=channels, prefix=getattr(model, "num_prefix_tokens", None))


def _hf(cfg: EncoderConfig, name: str, size: int, channels: int) -> Encoder:
    cfg.refuse("drop_path")
    transformers = _library("transformers")
    try:
        if cfg.pretrained:
            model = transformers.AutoModel.from_pretrained(name)
        else:
            settings = transformers.AutoConfig.from_pretrained(name)
            known = settings.to_dict()
            for key, value in (("image_size", size), ("num_channels", channels)):
                if key in known:
                    setattr(settings, key, value)
            model = transformers.AutoModel.from_config(settings)
    except (OSError, ValueError, ImportError, RuntimeError) as e:
        raise ValueError(f"transformers must be able to open {name!r}, got: {_first_line(e)}") from e
    return HuggingFace(_HuggingFace(model), size=size, channels=channels)


def _py(cfg: EncoderConfig, name: str, size: int, channels: int) -> Encoder:
    cfg.refuse("drop_path", "pretrained")
    where, _, what = name.partition(":")
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(where), what)
    except (ImportError, AttributeError, ValueError) as e:
        raise ValueError(f"name must be py:package.module:factory, got {cfg.name!r} ({_first_line(e)}).") from e
    takes, offered = inspect.signature(factory).parameters, {"size": size, "channels": channels}
    module = factory(**{k: v for k, v in offered.items() if k in takes})
    if not isinstance(module, nn.Module):
        raise ValueError(f"{what} must return an nn.Module, got {type(module).__name__}. Return the network itself.")
    return wrap(module, size=size, channels=channels)


_BUILDERS: dict[str, Callable[[EncoderConfig, str, int, int], Encoder]] = {"timm/": _timm, "hf/": _hf, "py:": _py}


def _library(name: str) -> Any:
    """An optional library. A torchvision that does not fit torch breaks its import with a RuntimeError: say so."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as e:
        extra = {"transformers": "hf"}.get(name, name)
        raise ValueError(
            f"{name} must be importable for '{extra}/' encoders, got {type(e).__name__}: {_first_line(e)}. "
            f"Do pip install 'openjepa[{extra}]', with a torchvision that fits your torch, or use a built-in encoder."
        ) from e


def _first_line(e: Exception) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0]
