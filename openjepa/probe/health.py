"""The health observer: what the features of a fixed set of pictures look like, at every look of a running training.

`Monitor` is called by the loop with a `Moment` and returns name -> float, which the loop writes into metrics.jsonl;
`openjepa.probe.verdict.verdict` reads those rows. Nothing here changes the run: no gradient, no random number, no
running statistic, and every module is put back into the mode it was in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from openjepa.core import measure
from openjepa.core.spread import sigreg_floor
from openjepa.core.types import Moment
from openjepa.probe.shortcut import border_share, content_share, trivial_r2
from openjepa.probe.symptoms import START
from openjepa.probe.vitals import features, inputs, knn_accuracy, observations, prediction, sigreg_here, weights

LARGEST = 2048  # reference pictures: beyond this the numbers no longer change and a look gets slow
SHORTCUT = 256  # pictures for the shortcut measurements, which encode once more


@runtime_checkable
class Encodes(Protocol):
    """What the observer needs of a method: pictures (B, C, H, W) to patch tokens (B, N, D)."""

    def encode(self, obs: Tensor) -> Tensor: ...


@runtime_checkable
class Projects(Protocol):
    """A method that compares projected features: `pooled` views (V, B, C, H, W) -> (V, B, D), then `projector`."""

    projector: nn.Module

    def pooled(self, views: Tensor) -> Tensor: ...


class Monitor:
    """An observer that measures the features of the same pictures at every look.

    pictures    (N, C, H, W) normalised, without augmentation; a few hundred to two thousand, drawn from the data
    windows     they are single observations of a world model, (N, S) or (N, C, H, W), or clips, (N, T, C, H, W), and
                the method's features are z, (N, D) or (N, N', D): then no measure is taken that asks for views, or for
                pictures of things
    labels      (N,) classes or -1, only for the kNN accuracy; None when there are none
    batch_size  pictures encoded at once
    start       the method before its first step: measured at once and reported with the first look, as
                `start/health/...`, so that the verdict can tell what training changed even if that look comes late

    The numbers, per look (health/...): `std` and `spread` of the features, `dead` features, `rank` above the noise
    floor (and the count of `axes`) beside the raw `effective_rank` and `rankme`, `top_share` and `decay` of the
    spectrum, `mean_cosine` between pictures; `projected_std`, `projected_rank` and `sigreg` of the projected features,
    beside its `sigreg_floor`; `prediction_cosine`, `unexplained`, `view_spread`; `teacher_distance`, `weight_rms`; the
    shortcut measures; what the pictures offer (`input_...`); and `knn`. Eigenvalues go under `spectrum/1`,
    `spectrum/2`, `spectrum/4` ... (rank in the name), as shares of the features' mean squared length.

    >>> class Method(torch.nn.Module):
    ...     def encode(self, pictures):
    ...         return pictures.flatten(2).transpose(1, 2)
    >>> pictures = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> row = Monitor(pictures)(Moment(0, 10, Method(), {}, {}))
    >>> round(row["health/spread"], 1), "spectrum/3" in row
    (1.0, True)
    """

    def __init__(
        self,
        pictures: Tensor,
        labels: Tensor | None = None,
        *,
        batch_size: int = 256,
        start: nn.Module | None = None,
        windows: bool = False,
    ) -> None:
        if (pictures.dim() != 4 and not (windows and pictures.dim() in (2, 5))) or not 16 <= len(pictures) <= LARGEST:
            raise ValueError(
                f"pictures must be 16 to {LARGEST} normalised pictures (N, C, H, W), got {tuple(pictures.shape)}. "
                "Take a sample of the data."
            )
        if labels is not None and len(labels) != len(pictures):
            raise ValueError(f"labels must be one per picture ({len(pictures)}), got {len(labels)}.")
        if labels is not None and int((labels >= 0).sum()) < 16:
            labels = None
        self.pictures, self.labels, self.batch_size = pictures, labels, batch_size
        self.windows = windows
        self.constant = inputs(pictures) if not windows else observations(pictures)
        if labels is not None:
            self.constant["health/knn_pixels"] = knn_accuracy(pictures.flatten(1), labels)
        self.start: dict[str, float] = {}
        if start is not None:
            self.start = {START + name: value for name, value in self.measure(start).items()}

    def __call__(self, moment: Moment) -> dict[str, float]:
        first, self.start = self.start, {}
        row = first | self.measure(moment.method) | prediction(moment.seen)
        if self.windows:
            row.pop("health/view_spread", None)  # time and batch are no views of one thing
        return {name: value for name, value in row.items() if not math.isnan(value) or name in ALWAYS}

    def measure(self, method: nn.Module) -> dict[str, float]:
        """All that does not need a training batch."""
        if not isinstance(method, Encodes):
            raise ValueError(f"method must have encode(pictures), got {type(method).__name__}.")
        self.pictures = self.pictures.to(next((p.device for p in method.parameters()), self.pictures.device))
        with quiet(method):
            tokens = torch.cat([method.encode(x).float() for x in self.pictures.split(self.batch_size)])  # (N, T, D)
            z = tokens if tokens.dim() == 2 else tokens.mean(1)  # (N, D)
            row = self.constant | features(z)
            if not self.windows:
                row |= self._projected(method) | self._shortcuts(method, tokens)
            if self.labels is not None:
                row["health/knn"] = knn_accuracy(z, self.labels)
            return row | weights(method)

    def _projected(self, method: nn.Module) -> dict[str, float]:
        """SIGReg of the projected features, always on the same directions, so that looks can be compared."""
        if not isinstance(method, Projects):
            return {}
        parts = [method.projector(method.pooled(x.unsqueeze(0))[0]) for x in self.pictures.split(self.batch_size)]
        p = torch.cat(parts).float()  # (N, P)
        return {
            "health/sigreg": _float(sigreg_here(p)),
            "health/sigreg_floor": float(sigreg_floor()),
            "health/projected_std": _float(measure.feature_std(p).mean()),
            "health/projected_rank": _float(measure.effective_rank(measure.spectrum(p))),
        }

    def _shortcuts(self, method: Encodes, tokens: Tensor) -> dict[str, float]:
        some = slice(None, None, -(-len(tokens) // SHORTCUT))  # evenly: sources are often sorted by class
        z = tokens.mean(1)
        border = border_share(lambda x: method.encode(x).float().mean(1), self.pictures[some], z[some])
        return {
            "health/border_share": _float(border),
            "health/trivial_r2": _float(trivial_r2(self.pictures, z)),
            "health/content_share": _float(content_share(tokens[some])),
        }


ALWAYS = ("health/std", "health/spread")  # a nan here is news: the features are not numbers any more


@contextmanager
def quiet(method: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient and a spare random state inside; everything as it was outside."""
    modes = [(m, m.training) for m in method.modules()]
    device = next((p.device for p in method.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        method.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _float(x: Tensor) -> float:
    return float(x.detach())
