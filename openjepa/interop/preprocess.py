"""From a picture of any kind to what an encoder was trained on: central square, resized, normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

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
    fit       "crop": as above; "squash": the whole picture, its sides changed each on its own
    short     the short side is resized to `short` times `size` before the centre is cut out; 1 keeps all of it

    >>> Preprocess(size=4)(Image.new("RGB", (9, 6), (255, 0, 0))).shape
    torch.Size([3, 4, 4])
    """

    size: int
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resample: str = "bicubic"
    fit: str = "crop"
    short: float = 1.0

    def __call__(self, picture: Picture | Tensor) -> Tensor:
        """One picture as (C, size, size) float32, normalised. A tensor must be uint8 (C, H, W)."""
        image = self._fitted(as_image(picture, self.channels))
        pixels = torch.from_numpy(np.array(image)).reshape(self.size, self.size, self.channels)
        return self.normalise(pixels.permute(2, 0, 1))

    def _fitted(self, image: Image.Image) -> Image.Image:
        """A square of side `size`."""
        if self.fit == "squash":
            return image.resize((self.size, self.size), RESAMPLE[self.resample])
        if self.short != 1.0:
            want, side = int(self.size * self.short), min(image.size)
            wide, tall = (want if n == side else int(want * n / side) for n in image.size)
            image = image.resize((wide, tall), RESAMPLE[self.resample])
            left, top = round((wide - self.size) / 2), round((tall - self.size) / 2)
            return image.crop((left, top, left + self.size, top + self.size))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        return image if side == self.size else image.resize((self.size, self.size), RESAMPLE[self.resample])

    def grey_or_colour(self) -> Self:
        """With as many means and deviations as channels: their averages for one, ImageNet's for three."""
        if len(self.mean) == self.channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * self.channels, std=(std,) * self.channels)

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
            if many.shape[-2:] == (self.size, self.size) and (self.short == 1.0 or self.fit == "squash"):
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
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """From the "preprocess" group of a config.json; `source` is named in errors."""
        known: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in cls.__dataclass_fields__
        }
        found = cls(**known) if "size" in known else None
        sizes = found is not None and isinstance(found.size, int) and found.size > 0 and found.channels in (1, 3)
        ways = found is not None and found.resample in RESAMPLE and found.fit in ("crop", "squash") and found.short >= 1
        if found is None or not sizes or not ways or 0 in found.std:
            raise ValueError(f"{source} must say how pictures were prepared (size, mean ...), got {dict(values)}.")
        if len(found.mean) != found.channels or len(found.std) != found.channels:
            raise ValueError(
                f"{source} must give a mean and a std for each of {found.channels} channels, got {len(found.mean)} "
                f"and {len(found.std)}."
            )
        return found


@dataclass(frozen=True)
class ClipPreprocess(Preprocess):
    """What is done to a clip: every frame as `Preprocess` says, and which frames.

    frames  of a clip
    stride  frames of the file from one to the next; or
    fps     frames per second, whatever the file's own rate is; neither: spread evenly over the file
    still   how often the frame of a picture is repeated to make a clip

    >>> ClipPreprocess(size=4, frames=2).clips(torch.zeros(2, 3, 6, 9, dtype=torch.uint8)).shape
    torch.Size([1, 2, 3, 4, 4])
    """

    kind: str = "clips"
    frames: int = 16
    stride: int | None = None
    fps: float | None = None
    still: int = 1

    def clips(self, frames: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """(T, C, H, W) or (B, T, C, H, W), uint8 or normalised floats, as (B, T, C, H', W')."""
        if frames.dim() not in (4, 5) or frames.shape[-3] != self.channels or 0 in frames.shape:
            raise ValueError(
                f"clips must be (T, {self.channels}, H, W) or (B, T, {self.channels}, H, W), got {tuple(frames.shape)}."
            )
        many = frames if frames.dim() == 5 else frames[None]
        flat = self.batch(many.flatten(0, 1), device)
        return flat.unflatten(0, many.shape[:2])  # (B, T, C, H', W')

    def stills(self, pictures: Tensor) -> Tensor:
        """Prepared pictures (B, C, H, W) as clips (B, still, C, H, W)."""
        return pictures[:, None].expand(-1, self.still, -1, -1, -1)


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
