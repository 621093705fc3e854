"""Regularisers that keep representations spread out: SIGReg and its univariate tests, variance, covariance.

Each formula lives here once, with its scale. All statistics are over the samples of every process.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openjepa.core import dist
from openjepa.core.epps_pulley import epps_pulley, knots_and_weights
from openjepa.core.normality import anderson_darling, cramer_von_mises, moments

NORMALITY = {"cramer_von_mises": cramer_von_mises, "anderson_darling": anderson_darling, "moments": moments}
FLOORS = {"cramer_von_mises": 1 / 6, "anderson_darling": 1.0, "moments": 1.0}


def random_directions(
    num: int, dim: int, generator: torch.Generator, device: torch.device | str | None = None
) -> Tensor:
    """Uniformly random unit vectors: Gaussian draws, normalised.

    num, dim   how many, of how many features
    generator  draws on its own device; a CPU generator gives the same directions on every device and rank
    returns    (num, dim) float32 on `device`

    >>> u = random_directions(3, 4, torch.Generator().manual_seed(0))
    >>> u.norm(dim=1)
    tensor([1., 1., 1.])
    """
    if num < 1 or dim < 1:
        raise ValueError(f"num and dim must be at least 1, got {num} and {dim}.")
    gauss = torch.randn(num, dim, generator=generator, device=generator.device, dtype=torch.float32)
    return torch.nn.functional.normalize(gauss, dim=1).to(device or generator.device, non_blocking=True)


def sigreg(
    z: Tensor,
    *,
    directions: int | Tensor = 1024,
    generator: torch.Generator | None = None,
    test: str = "epps_pulley",
    knots: int = 17,
    limit: float = 3.0,
) -> Tensor:
    """How far samples are from a standard Gaussian: a univariate test on many random projections, averaged.

        x = z u;   mean over directions u (and leading axes of z) of T(x_1 .. x_N), where T for `test` is

        epps_pulley       N sum_t w_t exp(-t^2/2) [(mean cos(t x) - exp(-t^2/2))^2 + (mean sin(t x))^2],
                          `knots` equal steps t on [0, limit], trapezoid weights w of the integral over [-limit, limit]
        cramer_von_mises  1/(12 N) + sum_i ((2i - 1)/(2N) - F(x_(i)))^2,  x_(i) sorted, F the standard normal CDF
        anderson_darling  -N - 1/N sum_i (2i - 1) [log F(x_(i)) + log(1 - F(x_(N+1-i)))]
        moments           N/4 sum_{j=1..4} (mean H_j(x))^2, Hermite polynomials with E H_i H_j = [i = j] under N(0, 1):
                          mean, variance, skewness and kurtosis (Neyman's smooth test)

    z           (N, D), or (V, N, D): every leading axis (views, time steps) is a sample of its own, and T is averaged
    directions  how many random ones, or (K, D) unit vectors; the same ones must be given on every rank
    generator   what random directions are drawn from: `clock.generator("sigreg")` draws the same on every rank, at
                every step anew, and again after a resume
    returns     () float32 (float64 for float64 input), also under autocast

    Scale    times N, the samples of all ranks: T has the same expectation under N(0, 1) whatever N is, `sigreg_floor`,
             and grows like N otherwise, so a weight balances against a mean-squared error in proportion to N. The
             other common scales are in `sigreg_weight`. Ranks must hold equally many samples.
    Gradient exact; through ranks as in `core.dist`. At total collapse (all samples 0) it is 0 for epps_pulley and
             moments: watch the value. The pull of epps_pulley on one sample is bounded and fades with distance.
             Second derivatives are not available for epps_pulley.
    Source   LeJEPA, arXiv 2511.08544. Epps and Pulley 1983; Anderson and Darling 1952; Neyman 1937. Differences: knots
             by rotation and block-wise evaluation (see `core.epps_pulley`); `moments` is in the orthonormal form.

    >>> g = torch.Generator().manual_seed(0)
    >>> z = torch.randn(2048, 16, generator=g)
    >>> bool(sigreg(z, directions=64, generator=g) < 1.5), bool(sigreg(0.5 * z, directions=64, generator=g) > 250)
    (True, True)
    """
    if z.dim() < 2 or z.shape[-2] * dist.world_size() < 2 or z.shape[-1] < 1:
        raise ValueError(f"z must be (N, D) or (V, N, D) with at least two samples, got {tuple(z.shape)}.")
    _check_test(test, knots, limit)
    unit = _directions(z, directions, generator)
    with torch.autocast(z.device.type, enabled=False):
        z = z.reshape(-1, *z.shape[-2:]).to(unit.dtype)  # (V, N, D)
        if test == "epps_pulley":
            learn = z.requires_grad and torch.is_grad_enabled()
            return epps_pulley(z, unit, knots, limit, learn)[0]
        return torch.stack([NORMALITY[test](view, unit).mean() for view in z]).mean()


def sigreg_floor(test: str = "epps_pulley", *, knots: int = 17, limit: float = 3.0) -> float:
    """What `sigreg` is, on average, for samples that are exactly standard Gaussian: nothing is left to gain there.

    The same for every N. A loss may pass below it: an optimiser can make a batch more regular than chance would.

        epps_pulley   sum_t w_t exp(-t^2/2) (1 - exp(-t^2)), because N E|C - phi|^2 = Var cos + Var sin = 1 - phi^2
        others        1/6, 1 and 1 (exact for every N)

    >>> round(sigreg_floor(), 4)
    1.0525
    """
    _check_test(test, knots, limit)
    if test != "epps_pulley":
        return FLOORS[test]
    _, weights, phi = knots_and_weights(knots, limit)
    return float((weights * (1 - phi.square())).sum())


def sigreg_weight(weight: float, *, source: str, samples: int, target: str = "openjepa", views: int = 1) -> float:
    """Translate the weight of SIGReg from one code base to another, so that both pull equally hard.

    weight   as written there: beside a prediction term of weight 1, or lambda of (1 - lambda) prediction + lambda
             sigreg where that is the form used (the table `SIGREG_SCALES`)
    samples  N of one view over all ranks;  views  how many views are pooled where the code pools them
    source   where the weight comes from;  target  where it goes; both from `SIGREG_SCALES`

    Scale    "openjepa" is the weight of `sigreg` beside a prediction term of weight 1. Only the factor (with or
             without N) and the form are translated; some grids differ too (10 knots on [-3, 3], 17 on [-5, 5]), which
             changes the value by up to 5 per cent.

    >>> round(sigreg_weight(10, source="eb_jepa", samples=256), 4)
    0.0391
    >>> round(sigreg_weight(0.09, source="lewm", target="eb_jepa", samples=128), 2)
    11.52
    """
    for name in (source, target):
        if name not in SIGREG_SCALES:
            raise ValueError(f"source and target must be one of {', '.join(SIGREG_SCALES)}, got {name!r}.")
    if samples < 2 or views < 1 or weight < 0:
        raise ValueError(f"samples >= 2, views >= 1 and weight >= 0 are needed, got {samples}, {views}, {weight}.")
    convex, per_sample = SIGREG_SCALES[source]
    if convex and weight >= 1:
        raise ValueError(f"weight must be below 1 for {source}, which uses (1 - lambda) and lambda, got {weight}.")
    ours = (weight / (1 - weight) if convex else weight) * _factor(per_sample, samples, views)
    convex, per_sample = SIGREG_SCALES[target]
    theirs = ours / _factor(per_sample, samples, views)
    return theirs / (1 + theirs) if convex else theirs


# code base -> (is the loss (1 - lambda) prediction + lambda sigreg?, what the statistic is multiplied with)
SIGREG_SCALES: dict[str, tuple[bool, str]] = {
    "openjepa": (False, "samples"),
    "lejepa": (True, "samples"),
    "lejepa_minimal": (True, "samples"),
    "lightly": (True, "samples"),
    "stable_pretraining": (False, "samples and views"),
    "lewm": (False, "samples"),
    "eb_jepa": (False, "nothing"),
    "vit_pytorch": (False, "nothing"),
}


def variance(z: Tensor, *, floor: float = 1.0) -> Tensor:
    """How much the spread of each feature falls short of `floor`.

        mean over d of max(0, floor - std(z[:, d])),   std = sqrt(unbiased variance + 1e-4)

    z        (N, D), or (V, N, D): averaged over leading axes
    returns  ()  0 when every feature has std >= floor

    Scale    mean over features, so the weight does not depend on D or N.
    Source   VICReg, arXiv 2105.04906, eq. 1, with its eps.
    Ranks    std is over the samples of all ranks.

    >>> variance(torch.zeros(8, 4))
    tensor(0.9900)
    """
    centred, total = _centred(z)
    var = dist.all_mean(centred.square().mean(-2)) * (total / (total - 1))
    return (floor - (var + 1e-4).sqrt()).clamp_min(0).mean()


def covariance(z: Tensor) -> Tensor:
    """How much features vary together: 0 when they are uncorrelated.

        1/D sum over i != j of Cov(z)_ij^2,   Cov with N - 1

    z        (N, D), or (V, N, D): averaged over leading axes
    returns  ()

    Scale    divided by D, as VICReg does. eb_jepa divides by D (D - 1): its weight w is w / (D - 1) here.
    Source   VICReg, arXiv 2105.04906, eq. 3.
    Ranks    Cov is over the samples of all ranks.

    >>> z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    >>> covariance(z), covariance(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))
    (tensor(4.), tensor(0.))
    """
    centred, total = _centred(z)
    with torch.autocast(z.device.type, enabled=False):
        product = centred.transpose(-1, -2) @ centred / centred.shape[-2]
    cov = dist.all_mean(product) * (total / (total - 1))  # (..., D, D)
    off = cov - torch.diag_embed(torch.diagonal(cov, dim1=-2, dim2=-1))
    return off.square().sum((-1, -2)).mean() / z.shape[-1]


def _centred(z: Tensor) -> tuple[Tensor, int]:
    """z minus its mean over the samples of all ranks, in float32 at least, and how many samples those are."""
    total = z.shape[-2] * dist.world_size() if z.dim() >= 2 else 0
    if total < 2:
        raise ValueError(f"z must be (N, D) or (V, N, D) with at least two samples, got {tuple(z.shape)}.")
    z = z if z.dtype == torch.float64 else z.float()
    return z - dist.all_mean(z.mean(-2, keepdim=True)), total


def _directions(z: Tensor, directions: int | Tensor, generator: torch.Generator | None) -> Tensor:
    """Unit vectors (K, D) on z's device, in the type to compute in."""
    dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
    if isinstance(directions, Tensor):
        if directions.dim() != 2 or directions.shape[1] != z.shape[-1]:
            raise ValueError(f"directions must be (K, {z.shape[-1]}) like z, got {tuple(directions.shape)}.")
        return directions.detach().to(z.device, dtype)
    if generator is None:
        raise ValueError('generator must be given with a number of directions. Pass clock.generator("sigreg").')
    return random_directions(directions, z.shape[-1], generator, z.device).to(dtype)


def _check_test(test: str, knots: int, limit: float) -> None:
    if test != "epps_pulley" and test not in NORMALITY:
        raise ValueError(f"test must be one of epps_pulley, {', '.join(NORMALITY)}, got {test!r}.")
    if knots < 2 or not limit > 0:
        raise ValueError(f"knots must be at least 2 and limit above 0, got {knots} and {limit}.")


def _factor(per_sample: str, samples: int, views: int) -> float:
    """The statistic of a code base, divided by ours."""
    return {"samples": 1.0, "samples and views": float(views), "nothing": 1.0 / samples}[per_sample]
