"""Is a representation healthy? Pure measures, tensors in, tensors out; the verdict in words is made elsewhere.

None of these is a loss, and all work on the samples of one process. Ranks are scale-free: they say nothing when the
spread itself has gone, and noise of any size has full rank, so rank *rises* as features collapse into numerical dust.
Read a rank only above a noise floor (`rank_above_floor`), next to `feature_std`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_std(z: Tensor) -> Tensor:
    """The standard deviation of each feature over samples, unbiased.

    z        (N, D)
    returns  (D,)    in the units of z: 0 is collapse

    >>> feature_std(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    tensor([1.4142, 0.0000])
    """
    return _samples(z).std(0)


def relative_spread(z: Tensor) -> Tensor:
    """How much of the size of the samples distinguishes them: 0 when all are the same, up to 1 when centred.

        sqrt( mean |z - mean z|^2 / mean |z|^2 )

    z        (N, D)
    returns  ()      free of scale, so it compares networks; a large common offset hides behind a healthy std

    >>> relative_spread(torch.tensor([[3.0, 0.0], [3.0, 0.0]])), relative_spread(torch.tensor([[1.0], [-1.0]]))
    (tensor(0.), tensor(1.))
    """
    z = _samples(z)
    about_mean = (z - z.mean(0)).square().sum()
    return (about_mean / z.square().sum().clamp_min(torch.finfo(z.dtype).tiny)).sqrt()


def spectrum(z: Tensor) -> Tensor:
    """Eigenvalues of the covariance of the features (N - 1), largest first: the variance along each principal axis.

    z        (N, D)
    returns  (D,)    >= 0, in squared units of z; computed in float64 from the smaller of the two Gram matrices, and 0
                     beyond rank N - 1

    >>> spectrum(torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    tensor([2.6667, 0.6667])
    """
    z = _samples(z)
    n, d = z.shape
    centred = (z - z.mean(0)).double()
    gram = centred @ centred.T if n < d else centred.T @ centred
    values = torch.linalg.eigvalsh(gram / (n - 1)).flip(0).clamp_min(0).to(z.dtype)  # (min(N, D),)
    return F.pad(values, (0, d - values.shape[0]))


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """How many principal axes share the variance: exp of the entropy of p = eigenvalues / sum.

    eigenvalues  (D,) of the covariance, from `spectrum`
    returns      ()   1 for one axis, D for equal ones; 0 when there is no variance at all

    Scale    scale-free: see the head of this file.
    Source   Roy and Vetterli 2007, on covariance eigenvalues. `rankme` uses singular values, which are less steep, and
             gives larger numbers on the same data: never compare the two.

    >>> effective_rank(torch.tensor([5.0, 5.0, 0.0])), effective_rank(torch.zeros(3))
    (tensor(2.), tensor(0.))
    """
    return _perplexity(eigenvalues)


def rankme(z: Tensor) -> Tensor:
    """RankMe: exp of the entropy of the singular values of z, not centred.

    z        (N, D)
    returns  ()      between 1 and min(N, D); 0 for z = 0

    Source   Garrido et al., arXiv 2210.02885, eq. 1, there with 25,600 samples. Small N caps it. A common offset counts
             as one large singular value. We drop the epsilon of 1e-7 in p, which only counts empty axes.

    >>> rankme(torch.eye(4))
    tensor(4.)
    """
    return _perplexity(torch.linalg.svdvals(_samples(z)))


def noise_floor(samples: int, dim: int, variance: float | Tensor) -> Tensor:
    """The largest eigenvalue that pure noise shows, and so the level above which one means something.

        variance (1 + sqrt(D / (N - 1)))^2

    samples, dim  N and D of the matrix whose spectrum is judged
    variance      per feature, of the noise: what rounding (`rounding_variance`) or a stated tolerance leaves

    Source   the upper edge of the Marchenko-Pastur law: where the eigenvalues of N samples of independent noise end.

    >>> noise_floor(401, 100, 1.0)
    tensor(2.2500)
    """
    if samples < 2 or dim < 1:
        raise ValueError(f"samples must be at least 2 and dim at least 1, got {samples} and {dim}.")
    return torch.as_tensor(variance) * (1 + (dim / (samples - 1)) ** 0.5) ** 2


def rounding_variance(z: Tensor, *, relative: float = 1e-2) -> Tensor:
    """The variance per feature to be taken for numerical dust: (relative * root mean square of z)^2.

    z         (N, D)
    relative  bfloat16 leaves about 1e-3 in samples that are really all the same; the default is ten times that
    returns   ()

    Sees samples that agree up to rounding, not samples that shrink to 0 together: for that take an absolute level too,
    such as the `noise_floor` of a small part of the variance that the untrained network had.

    >>> rounding_variance(torch.full((2, 2), 10.0))
    tensor(0.0100)
    """
    return _samples(z).square().mean() * relative**2


def rank_above_floor(eigenvalues: Tensor, floor: float | Tensor) -> Tensor:
    """Effective rank that counts only the variance above an absolute noise floor, so that collapse lowers it.

        p_i ~ max(0, eigenvalue_i - floor);   exp of the entropy of p

    eigenvalues  (D,) of the covariance, from `spectrum`
    floor        from `noise_floor`, in the same squared units, or any level that means "nothing" in the task at hand
    returns      ()   0 when no eigenvalue stands out

    Why      a network that maps everything to one point plus rounding noise has full effective rank. Against a floor it
             has none. An eigenvalue enters gradually, so the curve over training has no jumps.

    >>> e = torch.tensor([4.0, 4.0, 1e-9, 1e-9])
    >>> rank_above_floor(e, 1e-6), rank_above_floor(1e-8 * e, 1e-6)
    (tensor(2.), tensor(0.))
    """
    return _perplexity((eigenvalues - floor).clamp_min(0))


def axes_above_floor(eigenvalues: Tensor, floor: float | Tensor) -> Tensor:
    """How many eigenvalues are above the floor: a count, where `rank_above_floor` weighs.

    >>> axes_above_floor(torch.tensor([4.0, 0.1, 1e-9]), 1e-6)
    tensor(2)
    """
    return (eigenvalues > floor).sum()


def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean cosine between each prediction and its target. Near 1 from the start, it is a shortcut or a collapse.

    prediction, target  (..., D)
    returns             ()  in [-1, 1]; a zero vector counts as 0

    >>> cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, -1.0]]))
    tensor(0.)
    """
    return F.cosine_similarity(_floating(prediction), _floating(target), dim=-1).mean()


def mean_similarity(z: Tensor) -> Tensor:
    """Mean cosine between different samples: 1 is collapse to a direction, 0 is what spread-out samples have.

        ( |sum_n z_n / |z_n||^2 - N ) / (N (N - 1))

    z        (N, D)
    returns  ()      not centred: a common offset counts, as it does for a cosine classifier

    >>> mean_similarity(torch.tensor([[1.0, 0.0], [5.0, 0.0]])), mean_similarity(torch.tensor([[1.0], [-1.0]]))
    (tensor(1.), tensor(-1.))
    """
    z = _samples(z)
    n = z.shape[0]
    unit = F.normalize(z, dim=1)
    # The sum of squares rather than N: a zero sample is similar to nothing, itself included.
    return (unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1))


def teacher_distance(teacher: Iterable[Tensor], student: Iterable[Tensor]) -> Tensor:
    """How far the teacher is behind: |teacher - student| / |student| over all parameters taken as one vector.

    teacher, student  parameters in the same order
    returns           ()  0 when they are the same

    >>> teacher_distance([torch.tensor([3.0, 0.0])], [torch.tensor([3.0, 4.0])])
    tensor(0.8000)
    """
    ours, theirs = [_floating(t).detach() for t in teacher], [_floating(s).detach() for s in student]
    if not ours or len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"teacher and student must have the same tensors, got {len(ours)} and {len(theirs)} or others."
        )
    apart = torch.stack(torch._foreach_norm(torch._foreach_sub(ours, theirs))).norm()
    return apart / torch.stack(torch._foreach_norm(theirs)).norm().clamp_min(torch.finfo(apart.dtype).tiny)


def _perplexity(weights: Tensor) -> Tensor:
    """exp of the entropy of weights / sum; 0 when the sum is 0."""
    p = weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
    return torch.exp(torch.special.entr(p).sum()) * (weights.sum() > 0)


def _samples(z: Tensor) -> Tensor:
    """z (N, D), in float32 at least."""
    if z.dim() != 2 or z.shape[0] < 2:
        raise ValueError(f"z must be (N, D) with at least two samples, got {tuple(z.shape)}. Fold other axes first.")
    return _floating(z)


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
