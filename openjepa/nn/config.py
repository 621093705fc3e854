"""Settings of an encoder."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from openjepa.config import Config, nearest

OUTSIDE = ("timm/", "hf/", "py:")  # encoders that other people wrote


class EncoderConfig(Config):
    """Which network turns pictures into tokens.

    `name` is one of the table `ENCODERS`, with an optional patch side after a slash ("vit_tiny/8"); or "timm/NAME",
    "hf/NAME" where those libraries are installed; or "py:package.module:factory", a function that returns a module.
    A bare string stands for `name`. `width`, `depth` and `heads` change the named size; None leaves it.

    >>> cfg = EncoderConfig.model_validate("vit_tiny/8")
    >>> cfg.base, cfg.patch_for(224), EncoderConfig(name="vit_tiny").patch_for(32)
    ('vit_tiny', 8, 4)
    """

    shorthand: ClassVar[str] = "name"
    name: str = "vit_tiny"
    patch: int | None = Field(
        None, ge=1, description="side of a patch in pixels; by default from the size of the pictures"
    )
    pos: Literal["sincos", "rope", "rope-tiled"] = Field(
        "sincos", description="positions: a fixed table, rotary, or for clips rotary as published in V-JEPA 2"
    )
    cls: bool = Field(False, description="a class token in front of the patches (ViT)")
    registers: int = Field(0, ge=0, description="register tokens after the class token (ViT)")
    width: int | None = Field(None, ge=4)
    depth: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the last block; rises linearly from 0")
    stem: Literal["auto", "small", "large", "conv"] = Field(
        "auto", description="first layer: small or large for conv nets (small up to 64 pixels); conv for a ViT"
    )
    tubelet: int = Field(2, ge=1, description="frames per token (ViT on clips)")
    levels: int = Field(1, ge=1, description="depths that are compared, 4 in V-JEPA 2.1 (ViT on clips)")
    picture_patch: bool = Field(False, description="single frames get a projection of their own (ViT on clips)")
    pretrained: bool = Field(False, description="start from published weights (timm/ and hf/ names)")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.outside:
            return self
        from openjepa.nn import ENCODERS  # the table stands above this file

        if self.base not in ENCODERS:
            raise ValueError(
                f"name must be a known encoder, timm/NAME, hf/NAME or py:package.module:factory, got {self.name!r}. "
                f"{nearest(self.base, ENCODERS)}"
            )
        side = self.name[len(self.base) + 1 :]
        if "/" in self.name and not (side.isdecimal() and int(side) > 0):
            raise ValueError(
                f"name must end in a patch side after '/', got {self.name!r}. Write for example {self.base}/8."
            )
        if side and self.patch is not None and self.patch != int(side):
            raise ValueError(f"patch must be the one in name {self.name!r}, got {self.patch}. Give one of the two.")
        if self.pretrained:
            raise ValueError(
                f"pretrained must be false for {self.base!r}, which has no published weights. Use init_from."
            )
        return self

    @property
    def outside(self) -> bool:
        """Whether the network comes from another library or from the user's own code."""
        return self.name.startswith(OUTSIDE)

    @property
    def base(self) -> str:
        """The name without its patch side."""
        return self.name if self.outside else self.name.partition("/")[0]

    def patch_for(self, size: int) -> int:
        """Side of a patch: from the name, else `patch`, else by size (2 below 16, 4 below 64, 8 below 128, 16)."""
        side = "" if self.outside else self.name.partition("/")[2]
        if side:
            return int(side)
        if self.patch is not None:
            return self.patch
        return 2 if size < 16 else 4 if size < 64 else 8 if size < 128 else 16

    def refuse(self, *fields: str) -> None:
        """Raise when a setting that this encoder does not have was changed, rather than ignore it."""
        for field in fields:
            default = type(self).model_fields[field].default
            if getattr(self, field) != default:
                raise ValueError(
                    f"{field} must be left at {default!r} for encoder {self.name!r}, got {getattr(self, field)!r}. "
                    "This kind of network has no such setting."
                )
