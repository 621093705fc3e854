"""An encoder with all that is needed to use it: weights, how pictures are prepared, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from openjepa.interop.preprocess import ClipPreprocess, Picture, Preprocess
from openjepa.interop.videos import is_video, read_clip
from openjepa.nn.encoder import Encoder, pool

if TYPE_CHECKING:
    from openjepa.interop.card import Card


class Encoded(NamedTuple):
    """What an encoder says of B pictures or clips."""

    tokens: Tensor  # (B, N, D) patch tokens, class and register tokens left out
    pooled: Tensor  # (B, D)


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded encoder.

    encoder     in evaluation mode
    preprocess  size, mean and std of the pictures it was trained on; for clips also which frames
    config      the checkpoint's config.json
    weights     which weights these are: "encoder" (online) or "teacher" (target)
    source      the file they were read from
    family      of the checkpoint, "openjepa" for our own; `size` is its published name, or sizes in words
    licence     of the weights, as far as it is known
    parts       what else the file holds: "predictor", "classifier", "world"
    ignored     key of the file -> why it is left out on purpose
    notes       what to know before trusting the numbers
    pooling     of `encode` by default
    """

    encoder: Encoder
    preprocess: Preprocess
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "encoder"
    source: Path | None = None
    family: str = "openjepa"
    size: str = ""
    licence: str | None = None
    parts: Mapping[str, nn.Module] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    pooling: str = "mean"

    def part(self, name: str) -> nn.Module:
        """ "predictor", "classifier" or "world"; a `ValueError` when the file has none."""
        if name not in self.parts:
            raise ValueError(f"{self.source} must hold a {name}, got {', '.join(['encoder', *self.parts])}.")
        return self.parts[name]

    def encode(
        self,
        pictures: Picture | Tensor | Sequence[Picture | Tensor],
        *,
        pooling: str | None = None,
        batch_size: int = 64,
    ) -> Encoded:
        """Tokens and one vector for each picture or clip, without gradient, on the encoder's device.

        pictures    a PIL image, a path, a list of these, or a tensor: uint8 is prepared, floats are taken as they are.
                    An encoder of clips also takes the path of a video, and tensors (T, C, H, W) and (B, T, C, H, W);
                    a picture is a clip of one frame to it
        pooling     "mean", "max", "cls", or several joined by "+"
        batch_size  pictures, or frames of clips, that go through the encoder together

        >>> from openjepa.nn import build_encoder
        >>> model = Model(build_encoder("vit_micro/4", size=8), Preprocess(size=8))
        >>> tokens, pooled = model.encode(torch.zeros(3, 20, 30, dtype=torch.uint8))
        >>> tokens.shape, pooled.shape
        (torch.Size([1, 4, 96]), torch.Size([1, 96]))
        """
        pooling = pooling or self.pooling
        if isinstance(self.preprocess, ClipPreprocess):
            return self._encode_clips(pictures, pooling, batch_size)
        single = isinstance(pictures, str | Path) or not isinstance(pictures, Tensor | Sequence)
        many: Any = pictures if isinstance(pictures, Tensor) and pictures.dim() == 4 else [pictures]
        many = pictures if not single and not isinstance(pictures, Tensor) else many
        if len(many) == 0:
            raise ValueError("pictures must hold at least one, got none.")
        found = []
        with torch.no_grad():
            for i in range(0, len(many), batch_size):
                part = many[i : i + batch_size]
                part = part[0] if isinstance(part, list) and isinstance(part[0], Tensor) else part
                found.append(self._through(self.preprocess.batch(part, self.device), pooling))
        return _joined(found)

    def _encode_clips(self, given: Any, pooling: str, frames: int) -> Encoded:
        """Each thing given as clips, in batches of about so many frames; all must have the same number of tokens."""
        many = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        if len(many) == 0:
            raise ValueError("pictures must hold at least one, got none.")
        found = []
        with torch.no_grad():
            for item in many:
                clips = self._clips(item)
                step = max(1, frames // clips.shape[1])
                found += [self._through(clips[i : i + step], pooling) for i in range(0, len(clips), step)]
        counts = sorted({x.tokens.shape[1] for x in found})
        if len(counts) > 1:
            raise ValueError(f"clips must be of one length and size to go together, got {counts} tokens. Encode apart.")
        return _joined(found)

    def _clips(self, item: Picture | Tensor) -> Tensor:
        """One thing as clips (B, T, C, H, W) on the encoder's device."""
        prepare = self.preprocess
        assert isinstance(prepare, ClipPreprocess)
        if isinstance(item, Tensor) and item.dim() != 3:
            return prepare.clips(item, self.device)
        if isinstance(item, str | Path) and is_video(Path(item)):
            return prepare.clips(read_clip(Path(item), prepare), self.device)
        return prepare.stills(prepare.batch(item, self.device))

    def classify(self, pictures: Any, *, batch_size: int = 64) -> Tensor:
        """Scores of the classes (B, C), by the attentive classifier of the file; what is given is as in `encode`."""
        classifier = self.part("classifier")
        with torch.no_grad():
            return classifier(self.encode(pictures, batch_size=batch_size).tokens)

    def save_pretrained(self, folder: str | Path, *, format: str = "openjepa", card: Card | None = None) -> Path:
        """Write weights, settings and a model card to a new folder; format "hf" is the layout of transformers."""
        from openjepa.interop.sharing import save_pretrained

        return save_pretrained(self, folder, format=format, card=card)

    @staticmethod
    def from_pretrained(name: str | Path, *, revision: str | None = None) -> Model:
        """A model from a folder, or from the Hub when there is no such folder and `name` is "owner/name"."""
        from openjepa.interop.sharing import from_pretrained

        return from_pretrained(name, revision=revision)

    def push_to_hub(
        self, repo: str, *, format: str = "openjepa", card: Card | None = None, private: bool = True, api: Any = None
    ) -> str:
        """Upload to the Hugging Face Hub as `repo` ("owner/name"); its address. See `interop.sharing.push_to_hub`."""
        from openjepa.interop.sharing import push_to_hub

        return push_to_hub(self, repo, format=format, card=card, private=private, api=api)

    def _through(self, x: Tensor, pooling: str) -> Encoded:
        tokens, prefix = self.encoder(x).float(), self.encoder.prefix
        return Encoded(tokens[:, prefix:], pool(tokens, prefix, pooling))

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.encoder.parameters()), torch.device("cpu"))

    def to(self, device: torch.device | str) -> Model:
        """Moves the encoder and the other parts, and gives the model back."""
        for network in (self.encoder, *self.parts.values()):
            network.to(device)
        return self


def _joined(found: Sequence[Encoded]) -> Encoded:
    tokens, pooled = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Encoded(tokens, pooled)
