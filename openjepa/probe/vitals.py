"""The numbers behind a health report, each from plain tensors: of pictures, of features, of predictions, of weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core import measure
from openjepa.core.dist import alone
from openjepa.core.spread import sigreg
from openjepa.core.types import Seen

SLICES = 256  # directions of SIGReg: its standard error is then a few per cent of the floor
RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


def inputs(pictures: Tensor) -> dict[str, float]:
    """What the pictures themselves offer, whatever the encoder.

    input_std          their standard deviation over pictures, mean over pixels; about 1 for normalised pictures
    input_correlation  correlation of neighbouring pixels once the mean picture is taken off: above 0.5 for pictures of
                       things, 0 for noise; nan where all pictures are the same
    """
    x = pictures.float() - pictures.float().mean(0)
    across = (x[..., :, 1:] * x[..., :, :-1]).mean() + (x[..., 1:, :] * x[..., :-1, :]).mean()
    variance = x.square().mean()
    return {
        "health/input_std": _float(x.std(0).mean()),
        "health/input_correlation": _float(across / 2 / variance) if variance > 1e-8 else math.nan,
    }


def observations(x: Tensor) -> dict[str, float]:
    """What observations of a world offer: their standard deviation over observations, mean over numbers or pixels."""
    return {"health/input_std": _float(x.float().std(0).mean()), "health/windows": 1.0}


def features(z: Tensor) -> dict[str, float]:
    """Spread, rank and spectrum of pooled features (N, D)."""
    eigenvalues = measure.spectrum(z)  # (D,)
    floor = measure.noise_floor(len(z), z.shape[1], measure.rounding_variance(z))
    std = measure.feature_std(z)
    row = {
        "health/std": std.mean(),
        "health/std_min": std.min(),
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


def sigreg_here(p: Tensor) -> Tensor:
    """`core.spread.sigreg` of (N, P) on fixed directions, over this process alone.

    An observer runs on one process only; the training term is reduced over processes, so without `alone` it would wait
    for the others for ever.
    """
    with alone():
        return sigreg(p, directions=SLICES, generator=torch.Generator().manual_seed(0))


def _float(x: Tensor) -> float:
    return float(x.detach())
