"""From a picture of any kind to what an encoder was trained on: central square, resized, normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
Picture = Image.Image | str | Path


@dataclass(frozen=True)
class Preprocess:
    """What is done to a picture before the encoder sees it; saved beside the weights.

    The largest central square, resized to `size`: the same as resizing the short side and cutting out the centre.

    size      side of the square that comes out
    channels  3 (RGB) or 1 (grey)
    mean, std per channel, of values in 0..1
    resample  "bicubic" or "bilinear", Pillow's antialiased filters

    >>> Preprocess(size=4)(Image.new("RGB", (9, 6), (255, 0, 0))).shape
    torch.Size([3, 4, 4])
    """

    size: int
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resample: str = "bicubic"

    def __call__(self, picture: Picture | Tensor) -> Tensor:
        """One picture as (C, size, size) float32, normalised. A tensor must be uint8 (C, H, W)."""
        image = as_image(picture, self.channels)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        if side != self.size:
            image = image.resize((self.size, self.size), RESAMPLE[self.resample])
        pixels = torch.from_numpy(np.array(image)).reshape(self.size, self.size, self.channels)
        return self.normalise(pixels.permute(2, 0, 1))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., C, H, W) to float32: (x / 255 - mean) / std."""
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1)
        return (pixels.float() / 255 - mean) / std

    def batch(self, pictures: Picture | Tensor | Sequence[Picture], device: torch.device | str = "cpu") -> Tensor:
        """Anything that holds pictures as (B, C, H, W).

        float tensors   taken as they are: already resized and normalised; (C, H, W) becomes a batch of one
        uint8 tensors   (C, H, W) or (B, C, H, W), resized, cropped and normalised
        else            a PIL image, a path, or a sequence of these
        """
        if isinstance(pictures, Tensor):
            if pictures.dim() not in (3, 4) or pictures.shape[-3] != self.channels:
                raise ValueError(
                    f"pictures must be (B, {self.channels}, H, W) or ({self.channels}, H, W), "
                    f"got {tuple(pictures.shape)}."
                )
            many = pictures if pictures.dim() == 4 else pictures[None]
            if many.is_floating_point():
                return many.float().to(device)
            if many.dtype != torch.uint8:
                raise ValueError(
                    f"pictures must be uint8 in 0..255 or normalised floats, got {many.dtype}. Convert them."
                )
            if many.shape[-2:] == (self.size, self.size):
                return self.normalise(many.to(device))
            return torch.stack([self(x) for x in many.cpu()]).to(device)
        if isinstance(pictures, Image.Image | str | Path):
            pictures = [pictures]
        if len(pictures) == 0:
            raise ValueError("pictures must hold at least one, got none.")
        return torch.stack([self(p) for p in pictures]).to(device)

    def as_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Preprocess:
        """From the "preprocess" group of a config.json; `source` is named in errors."""
        known: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in cls.__dataclass_fields__
        }
        found = cls(**known) if "size" in known else None
        sizes = found is not None and isinstance(found.size, int) and found.size > 0 and found.channels in (1, 3)
        if found is None or not sizes or found.resample not in RESAMPLE or 0 in found.std:
            raise ValueError(f"{source} must say how pictures were prepared (size, mean ...), got {dict(values)}.")
        if len(found.mean) != found.channels or len(found.std) != found.channels:
            raise ValueError(
                f"{source} must give a mean and a std for each of {found.channels} channels, got {len(found.mean)} "
                f"and {len(found.std)}."
            )
        return found


def as_image(picture: Picture | Tensor, channels: int) -> Image.Image:
    """An upright "RGB" or "L" image: EXIF rotation applied, transparency on white, 16-bit grey scaled to 8."""
    if isinstance(picture, Tensor):
        if picture.dtype != torch.uint8 or picture.dim() != 3:
            raise ValueError(f"a picture must be uint8 (C, H, W), got {picture.dtype} {tuple(picture.shape)}.")
        pixels = picture.permute(1, 2, 0).contiguous().numpy()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    elif isinstance(picture, Image.Image):
        image = picture
    else:
        image = _read(Path(picture))
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.floor(grey.clip(0, 255) + 0.5).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy() if not image.getexif() else ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise ValueError(f"picture must exist, got {path}. Check the path.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise ValueError(f"{path} must be a picture that can be read, got: {str(e).splitlines()[0]}.") from None
