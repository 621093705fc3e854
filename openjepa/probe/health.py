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
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core import measure
from openjepa.core.epps_pulley import knots_and_weights
from openjepa.core.spread import random_directions, sigreg_floor
from openjepa.core.types import Moment, Seen
from openjepa.probe.shortcut import border_share, content_share, trivial_r2

LARGEST = 2048  # reference pictures: beyond this the numbers no longer change and a look gets slow
SHORTCUT = 256  # pictures for the shortcut measurements, which encode once more
SLICES = 256  # directions of SIGReg: its standard error is then a few per cent of the floor
RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


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
    labels      (N,) classes or -1, only for the kNN accuracy; None when there are none
    batch_size  pictures encoded at once

    The numbers, per look (health/...): `std` and `spread` of the features, `dead` features, `rank` above the noise
    floor (and the count of `axes`) beside the raw `effective_rank` and `rankme`, `top_share` and `decay` of the
    spectrum, `mean_cosine` between pictures, `projected_std` and `sigreg` of the projected features beside its
    `sigreg_floor`, `prediction_cosine`, `unexplained`,
    `view_spread`, `teacher_distance`, `weight_rms`, the shortcut measures, and `knn`. Eigenvalues go under
    `spectrum/1`, `spectrum/2`, `spectrum/4` ... (rank in the name), as shares of the features' mean squared length.

    >>> class Method(torch.nn.Module):
    ...     def encode(self, pictures):
    ...         return pictures.flatten(2).transpose(1, 2)
    >>> pictures = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> row = Monitor(pictures)(Moment(0, 10, Method(), {}, {}))
    >>> round(row["health/spread"], 1), "spectrum/3" in row
    (1.0, True)
    """

    def __init__(self, pictures: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> None:
        if pictures.dim() != 4 or not 16 <= len(pictures) <= LARGEST:
            raise ValueError(
                f"pictures must be 16 to {LARGEST} normalised pictures (N, C, H, W), got {tuple(pictures.shape)}. "
                "Take a sample of the data."
            )
        if labels is not None and len(labels) != len(pictures):
            raise ValueError(f"labels must be one per picture ({len(pictures)}), got {len(labels)}.")
        if labels is not None and int((labels >= 0).sum()) < 16:
            labels = None
        self.pictures, self.labels, self.batch_size = pictures, labels, batch_size
        raw = pictures.float().flatten(1)
        self.constant = {"health/input_spread": _float(measure.relative_spread(raw))}
        if labels is not None:
            self.constant["health/knn_pixels"] = knn_accuracy(raw, labels)

    def __call__(self, moment: Moment) -> dict[str, float]:
        method = moment.method
        if not isinstance(method, Encodes):
            raise ValueError(f"method must have encode(pictures), got {type(method).__name__}.")
        with quiet(method):
            tokens = torch.cat([method.encode(x).float() for x in self.pictures.split(self.batch_size)])  # (N, T, D)
            z = tokens.mean(1)  # (N, D)
            row = self.constant | features(z) | {"health/content_share": _float(content_share(tokens[:SHORTCUT]))}
            row |= self._projected(method, moment) | self._shortcuts(method, z)
            if self.labels is not None:
                row["health/knn"] = knn_accuracy(z, self.labels)
            row |= weights(method) | prediction(moment.seen)
        return {name: value for name, value in row.items() if not math.isnan(value) or name in ALWAYS}

    def _projected(self, method: nn.Module, moment: Moment) -> dict[str, float]:
        """SIGReg of the projected features, always on the same directions, so that looks can be compared."""
        if not isinstance(method, Projects):
            return {}
        parts = [method.projector(method.pooled(x.unsqueeze(0))[0]) for x in self.pictures.split(self.batch_size)]
        p = torch.cat(parts).float()  # (N, P)
        return {
            "health/sigreg": _float(sigreg_here(p)),
            "health/sigreg_floor": float(sigreg_floor()),
            "health/projected_std": _float(measure.feature_std(p).mean()),
        }

    def _shortcuts(self, method: Encodes, z: Tensor) -> dict[str, float]:
        some = self.pictures[:SHORTCUT]
        return {
            "health/border_share": _float(border_share(lambda x: method.encode(x).float().mean(1), some, z[:SHORTCUT])),
            "health/trivial_r2": _float(trivial_r2(self.pictures, z)),
        }


def sigreg_here(p: Tensor) -> Tensor:
    """`core.spread.sigreg` of (N, P) on fixed directions, over this process alone and without its gradient.

    An observer runs on one process only; the training term is summed over processes, so calling it here would wait for
    the others for ever.
    """
    t, w, phi = (x.float().to(p.device) for x in knots_and_weights(17, 3.0))
    u = random_directions(SLICES, p.shape[1], torch.Generator().manual_seed(0), p.device)
    x = p @ u.T  # (N, K)
    terms = [
        w_ * (((s * x).cos().mean(0) - f).square() + (s * x).sin().mean(0).square())
        for s, w_, f in zip(t, w, phi, strict=True)
    ]
    return len(p) * torch.stack(terms).sum(0).mean()


ALWAYS = ("health/std", "health/spread")  # a nan here is news: the features are not numbers any more


def features(z: Tensor) -> dict[str, float]:
    """Spread, rank and spectrum of pooled features (N, D)."""
    eigenvalues = measure.spectrum(z)  # (D,)
    floor = measure.noise_floor(len(z), z.shape[1], measure.rounding_variance(z))
    std = measure.feature_std(z)
    row = {
        "health/std": std.mean(),
        "health/spread": measure.relative_spread(z),
        "health/dead": (std < 0.01 * std.mean()).float().mean(),
        "health/top_share": eigenvalues[0] / eigenvalues.sum().clamp_min(1e-30),
        "health/decay": decay(eigenvalues),
        "health/rank": measure.rank_above_floor(eigenvalues, floor),
        "health/axes": measure.axes_above_floor(eigenvalues, floor),
        "health/effective_rank": measure.effective_rank(eigenvalues),
        "health/rankme": measure.rankme(z),
        "health/mean_cosine": measure.mean_similarity(z),
    }
    shares = eigenvalues / z.square().sum(1).mean().clamp_min(1e-30)
    row |= {f"spectrum/{r}": shares[r - 1] for r in RANKS if r <= min(len(z) - 1, z.shape[1])}
    return {name: _float(value) for name, value in row.items()}


def decay(eigenvalues: Tensor) -> Tensor:
    """The exponent a of eigenvalue ~ rank^-a, least squares in logarithms over those within six decades of the largest.

    About 1 is what healthy natural-image features show; far above it few directions carry everything.

    >>> round(decay(torch.arange(1.0, 50.0) ** -1.5).item(), 3)
    1.5
    """
    e = eigenvalues[eigenvalues > 1e-6 * eigenvalues[0]]
    if len(e) < 3:
        return torch.tensor(torch.nan)
    x = torch.arange(1, len(e) + 1, device=e.device, dtype=torch.float64).log()
    y = e.double().log()
    return -((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()


def knn_accuracy(z: Tensor, labels: Tensor, *, k: int = 10) -> float:
    """Share of pictures whose k nearest others (cosine about the mean, votes weighted by it) vote for their class."""
    known = labels >= 0
    x, y = z[known].float(), labels[known].to(z.device)
    x = F.normalize(x - x.mean(0), dim=1)
    similarity = x @ x.T
    similarity.fill_diagonal_(-torch.inf)
    weight, index = similarity.topk(min(k, len(x) - 1), dim=1)
    votes = torch.zeros(len(x), int(y.max()) + 1, device=z.device)
    votes.scatter_add_(1, y[index], (weight / 0.1).exp())
    return _float((votes.argmax(1) == y).float().mean())


def prediction(seen: Seen) -> dict[str, float]:
    """How good the prediction of the last training batch was, against always predicting the mean.

    unexplained           sum |prediction - target|^2 / sum |target - mean|^2: 1 is no better than a constant
    unexplained_position  the same against the mean of each position: what the context, not the place, told
    prediction_cosine     mean cosine of prediction and target
    view_spread           root of the share of variance that lies between views of one picture (view methods)
    """
    if "prediction" not in seen or "target" not in seen:
        return {}
    target = seen["target"].float()
    guess = seen["prediction"].float().expand_as(target)
    mean = target.flatten(0, -2).mean(0)
    error, spread_ = (guess - target).square().sum(), (target - mean).square().sum()
    row = {
        "health/unexplained": _float(error / spread_.clamp_min(1e-30)),
        "health/prediction_cosine": _float(measure.cosine(guess, target)),
    }
    if "target_index" in seen:
        about = _about_position(target.flatten(0, -2), seen["target_index"].flatten())
        row["health/unexplained_position"] = _float(error / about.clamp_min(1e-30))
    elif target.dim() == 3 and len(target) > 1:  # (V, B, D)
        between = (target - target.mean(0)).square().sum()
        row["health/view_spread"] = _float((between / spread_.clamp_min(1e-30)).sqrt())
    return row


def _about_position(target: Tensor, index: Tensor) -> Tensor:
    """Sum of squares of tokens (M, D) about the mean of their position (M,), each mean without the token itself."""
    positions = int(index.max()) + 1
    count = torch.zeros(positions, device=target.device).index_add_(0, index, torch.ones_like(index, dtype=torch.float))
    total = torch.zeros(positions, target.shape[1], device=target.device).index_add_(0, index, target)
    n = count[index].unsqueeze(1)
    inside = (target - total[index] / n).square()
    return torch.where(n > 1, inside * (n / (n - 1).clamp_min(1)).square(), inside).sum()


def weights(method: nn.Module) -> dict[str, float]:
    """Size of the encoder's weights, and how far the teacher is from it."""
    children = dict(method.named_children())
    own = list(children.get("encoder", method).parameters())
    count = sum(p.numel() for p in own)
    if count == 0:
        return {}
    square = torch.stack([p.detach().float().square().sum() for p in own]).sum()
    row = {"health/weight_rms": _float((square / count).sqrt())}
    if "teacher" in children:
        row["health/teacher_distance"] = _float(measure.teacher_distance(children["teacher"].parameters(), own))
    return row


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
